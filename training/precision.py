"""Precisions that a stage can be trained in.

Master weights and EMA are float32 in all of them (`MasterOptimizer`); the choice is about the weights that a step computes with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

PrecisionName = Literal["float32", "autocast", "bfloat16", "float32 compiled", "bfloat16 compiled"]


@dataclass(frozen=True)
class Precision:
    """What a step computes in."""

    weights: torch.dtype
    autocast: bool = False
    """Whether torch casts to bfloat16 where it thinks fit, with float32 weights."""
    compiled: bool = False
    """Whether the network's parts are compiled."""

    @property
    def computed_in(self) -> torch.dtype:
        """Of most matrix products."""
        return torch.bfloat16 if self.autocast else self.weights


PRECISIONS: dict[PrecisionName, Precision] = {
    "float32": Precision(torch.float32),
    "autocast": Precision(torch.float32, autocast=True),
    "bfloat16": Precision(torch.bfloat16),
    "float32 compiled": Precision(torch.float32, compiled=True),
    "bfloat16 compiled": Precision(torch.bfloat16, compiled=True),
}


@contextmanager
def computing_in(name: PrecisionName, model: nn.Module) -> Iterator[None]:
    """Hold a model's weights in a precision, and compute in it, while the block runs; float32 weights come out of it.

    The weights inside are rounded copies. An optimiser publishes its master weights into those that are trained, on the way in
    and out; the others are after the block what they were before it.
    """
    precision = PRECISIONS[name]
    parts = compiled_parts(model) if precision.compiled else []
    for part in parts:
        part.compile()
    before = dict(_tensors(model))
    model.to(precision.weights)
    # A cache would keep the weights of the first step as long as the block runs.
    autocast = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
    try:
        with autocast if precision.autocast else nullcontext():
            yield
    finally:
        model.float()
        _unround(model, before, precision.weights)
        for part in parts:
            part._compiled_call_impl = None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything of a model that has a precision; converting the model leaves what is given here as it is."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor.data


@torch.no_grad()
def _unround(model: nn.Module, before: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Give back what rounding took from every number that is still the rounded one."""
    if dtype is torch.float32:
        return
    for name, tensor in _tensors(model):
        was = before[name].float()
        tensor.copy_(torch.where(tensor == was.to(dtype).float(), was, tensor))


def compiled_parts(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network, or its halves where nothing repeats: what is worth a compiler's time."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for repeated in lists for block in repeated]
    return blocks or list(model.children())
