"""Where float32 is kept whatever the rest runs in: geometry, scans, gates and norms. (A float64 model keeps float64.)"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Raise x to float32; float64 stays, so that a whole model can be checked in it."""
    return x if x.dtype == torch.float64 else x.float()


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Precision of geometry, scans and gates beside weights of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def own(x: Tensor) -> Tensor:
    """Give a slice memory of its own, since it holds all of what it was cut from; not where gradients or graphs are made."""
    return x if x.requires_grad or torch.compiler.is_exporting() else x.clone()


def casts(x: Tensor) -> bool:
    """Whether autocast is on where x is; it never is where shapes are all there is."""
    kind = x.device.type
    return kind != "meta" and torch.is_autocast_enabled(kind)


def in_place(*tensors: Tensor) -> bool:
    """Whether work on these may overwrite its own results: no gradients or graphs are made of them, and no autocast is on."""
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not learns and not torch.compiler.is_exporting() and not casts(tensors[0])


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off; nothing at all where it is not on, so that exported graphs stay plain."""
    return torch.autocast(x.device.type, enabled=False) if casts(x) else nullcontext()
