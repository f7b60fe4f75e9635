"""An engine's low precision in PyTorch: leaf linears swapped for twins that round as the engine will.

It emulates the linear layers only: attention scores, scans and convolutions stay as the model has them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.quantization.layers import STEP_RULES, LayerRule, Low, Precision, precision_of
from export.quantization.nvfp4 import (
    MAX_E4M3,
    global_scale,
    hadamard_matrix,
    quantise,
    rotate_blocks,
    round_e4m3,
)
from model.world_model import WorldModel

Network = TypeVar("Network", bound=nn.Module)
Largest = Mapping[str, float]
"""Largest magnitude that reaches each layer, by its name."""


class RoundedLinear(nn.Module):
    """A linear layer whose operands are rounded to a precision; sums and results are bf16's, as in an engine."""

    def __init__(self, linear: nn.Linear, precision: Precision, largest: float, hadamard: bool) -> None:
        """Round the weights once.

        Args:
            largest: Largest magnitude of an input on calibration; beyond it inputs saturate.
            hadamard: Rotate blocks of inputs and weights first (NVFP4 alone).
        """
        super().__init__()
        self.precision: Precision = precision
        self.largest = largest
        self.rotation = hadamard_matrix() if hadamard and precision == "nvfp4" else None
        self.bias = linear.bias
        self.register_buffer("weight", self._rounded(linear.weight.detach().float(), None))

    def forward(self, x: Tensor) -> Tensor:
        rounded = self._rounded(x.float(), self.largest)
        product = functional.linear(rounded, self.get_buffer("weight")).bfloat16().to(x.dtype)
        return product if self.bias is None else product + self.bias

    def _rounded(self, x: Tensor, largest: float | None) -> Tensor:
        if self.precision == "bf16":
            return x.bfloat16().float()
        if self.precision == "fp8":
            scale = max(float(x.abs().max()) if largest is None else largest, 1e-12) / MAX_E4M3
            return round_e4m3(x / scale) * scale
        if self.rotation is not None:
            x = rotate_blocks(x, self.rotation)
        if largest is None:
            return quantise(x).restored()
        return quantise(x, global_scale(largest)).restored()


def leaf_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the model's linear layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def emulate(
    model: Network,
    low: Low,
    largest: Largest,
    hadamard: bool = False,
    only: Callable[[str], bool] = lambda _name: True,
    rules: tuple[LayerRule, ...] = STEP_RULES,
) -> Network:
    """Return a copy of a model that rounds as an engine of precision `low` will.

    Args:
        largest: From `calibrated`, one entry for each layer that is rounded to 8 or 4 bits.
        only: Names of the layers to round; the others keep float32.
        rules: The layer table of such models.
    """
    twin = copy.deepcopy(model)
    for name, linear in leaf_linears(twin).items():
        precision = precision_of(name, low, rules)
        if precision == "fp32" or not only(name):
            continue
        rounded = RoundedLinear(linear, precision, largest.get(name, 0.0), hadamard)
        parent, _, child = name.rpartition(".")
        setattr(twin.get_submodule(parent), child, rounded)
    return twin


@contextmanager
def calibrated(model: WorldModel, low: Low, hadamard: bool = False) -> Iterator[dict[str, float]]:
    """Watch the layers of precision `low` while the block runs the model; yields what `emulate` takes."""
    largest: dict[str, float] = {}
    rotation = hadamard_matrix()

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = rotate_blocks(inputs[0], rotation) if hadamard and low == "nvfp4" else inputs[0]
            largest[name] = max(largest.get(name, 0.0), float(x.abs().max()))

        return hook

    watched = [name for name in leaf_linears(model) if precision_of(name, low) in ("nvfp4", "fp8")]
    handles = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in watched]
    try:
        with torch.no_grad():
            yield largest
    finally:
        for handle in handles:
            handle.remove()
