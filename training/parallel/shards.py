"""Tensors of which every process holds a part, made whole and shared out again."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(x: Tensor) -> Tensor:
    """Gather a shared tensor from all processes, which must all ask for it; any other is given back."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def shared_like(x: Tensor, model: Tensor) -> Tensor:
    """Keep the part of x, which every process has whole, that the process holds of `model`; nothing where that is whole."""
    if isinstance(model, DTensor) and not isinstance(x, DTensor):
        return distribute_tensor(x.to(model.device), model.device_mesh, model.placements, src_data_rank=None)
    return x
