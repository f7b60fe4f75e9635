"""What calibration finds out about layers, and networks that ModelOpt quantised by one configuration made from a layer table.

Only linear layers are quantised: attention scores, scans and convolutions stay as the network has them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.quantization.backend import BF16, E2M1, E4M3, HADAMARD, NVFP4, modelopt, quiet, rotated_calibrator
from export.quantization.layers import Algorithm, Precision, Recipe
from export.quantization.nvfp4 import BLOCK

Array = NDArray[np.float32]
NOMINAL_LARGEST = 8.0
"""Magnitude said to reach a layer of random weights; it changes no size and no speed."""


@dataclass(frozen=True)
class LayerScales:
    """One layer of 8 or 4 bits."""

    largest: float
    """Magnitude that reaches it at most, after smoothing and rotation; beyond it inputs saturate."""
    weight_largest: Array | None = None
    """The same of its weight, [] or by output channel [N]; None takes that of the weight."""
    smoothing: Array | None = None
    """What inputs are multiplied by and weights divided by, [K]; AWQ and SVDQuant choose it."""
    low_rank: tuple[Array, Array] | None = None
    """Product that SVDQuant takes out of the weight and that stays in bf16, [R, K] and [N, R]."""
    weight: Array | None = None
    """Weight of a distilled student in the place of the graph's, [N, K]."""


@dataclass(frozen=True)
class Calibration:
    """Scales of the layers of 8 or 4 bits."""

    layers: Mapping[str, LayerScales]
    """By name; none in bf16."""
    origin: str
    """Where they come from, in a few words for the bundle's description."""


def nominal_calibration(layers: list[str]) -> Calibration:
    """Take one magnitude for every layer; for random weights, in which there is nothing to measure."""
    origin = f"nominal, {NOMINAL_LARGEST:g} at most in every layer: random weights were not calibrated"
    return Calibration(dict.fromkeys(layers, LayerScales(NOMINAL_LARGEST)), origin if layers else "")


Network = TypeVar("Network", bound=nn.Module)
ForwardLoop = Callable[[Any], object]
"""Runs a network on what it is calibrated on; some algorithms do so more than once."""
METHODS: Mapping[Algorithm, dict[str, Any]] = {
    "max": {"method": "max"},
    "mse": {"method": "mse"},
    "awq": {"method": "awq_lite"},
    "svdquant": {"method": "svdquant", "lowrank": 16},
}
OPERANDS = ("weight", "input")


def leaf_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return a network's linear layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def quantised_layers(model: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of a network's layers of 8 and 4 bits."""
    return [name for name in leaf_linears(model) if recipe.is_quantised(name)]


def quantiser_attributes(precision: Precision, operand: str, hadamard: bool = False) -> dict[str, Any]:
    """Return what ModelOpt has to know of one operand, `weight` or `input`, of a linear layer of 8 or 4 bits."""
    if precision == "int8":
        return {"num_bits": 8, "axis": 0 if operand == "weight" else None}
    if precision == "fp8":
        return {"num_bits": E4M3}
    blocks = {-1: BLOCK, "type": "dynamic", "scale_bits": E4M3}
    attributes = {"num_bits": E2M1, "block_sizes": blocks, "backend": NVFP4, "effective_bits": 4.5}
    if hadamard:
        attributes |= {"backend_extra_args": {HADAMARD: True}, "calibrator": (rotated_calibrator(), ())}
    return attributes


def configuration(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Make the configuration that `mtq.quantize` takes, layer by layer; what the table leaves in bf16 and fp32 is disabled."""
    entries = [
        {
            "quantizer_name": f"{name}.{operand}_quantizer",
            "cfg": quantiser_attributes(recipe.precision(name), operand, recipe.hadamard),
        }
        for name in quantised_layers(model, recipe)
        for operand in OPERANDS
    ]
    algorithm = METHODS[recipe.algorithm] if entries else None
    return {"quant_cfg": [{"quantizer_name": "*", "enable": False}, *entries], "algorithm": algorithm}


def quantise_network(model: nn.Module, recipe: Recipe, forward_loop: ForwardLoop) -> None:
    """Let ModelOpt calibrate and quantise the layers of 8 and 4 bits, in place.

    Raises:
        ValueError: ModelOpt is not installed, or the recipe does not go together.
    """
    if recipe.hadamard and recipe.algorithm != "max":
        raise ValueError(
            f"--hadamard goes with --algorithm max, not {recipe.algorithm}; leave one of them out"
        )
    with quiet(), torch.no_grad():
        modelopt().quantize(model, configuration(model, recipe), forward_loop)


def quantised(model: Network, recipe: Recipe, forward_loop: ForwardLoop) -> Network:
    """Return a copy that computes as an engine of a recipe will, bf16 layers and results included."""
    twin = copy.deepcopy(model)
    quantise_network(twin, recipe, forward_loop)
    precisions: dict[str, Precision] = {name: recipe.precision(name) for name in leaf_linears(twin)}
    round_to_bf16(twin, precisions)
    return twin


def quantise_dynamically(model: nn.Module, recipe: Recipe) -> None:
    """Quantise in place for training: scales follow weights and inputs as they are, and nothing is calibrated or stored."""
    config = configuration(model, recipe)
    for entry in config["quant_cfg"]:
        if "cfg" in entry:
            entry["cfg"]["type"] = "dynamic"
    with quiet():
        modelopt().quantize(model, config | {"algorithm": None})


def round_to_bf16(twin: nn.Module, precisions: Mapping[str, Precision]) -> None:
    """Round to bf16 what an engine holds so; after calibration, which must not take these layers for quantised ones."""
    rounding = {"num_bits": "bf16", "backend": BF16, "type": "dynamic"}
    entries = []
    for name, precision in precisions.items():
        if precision != "fp32":
            parts = (*OPERANDS, "output") if precision == "bf16" else ("output",)
            entries += [{"quantizer_name": f"{name}.{part}_quantizer", "cfg": rounding} for part in parts]
    with quiet():
        modelopt().set_quantizer_by_cfg(twin, entries)


def layer_scales(twin: nn.Module, recipe: Recipe) -> dict[str, LayerScales]:
    """Read what calibration found out of a network that `quantised` gave."""
    return {name: scales_of(twin.get_submodule(name)) for name in quantised_layers(twin, recipe)}


def scales_of(layer: nn.Module) -> LayerScales:
    """Read what calibration found out of one layer that ModelOpt quantised."""
    inputs: Any = layer.get_submodule("input_quantizer")
    weight: Any = layer.get_submodule("weight_quantizer")
    down, up = getattr(weight, "svdquant_lora_a", None), getattr(weight, "svdquant_lora_b", None)
    return LayerScales(
        largest=float(inputs.amax),
        weight_largest=_array(weight.amax).reshape(-1 if weight.axis is not None else ()),
        smoothing=None if inputs.pre_quant_scale is None else _array(inputs.pre_quant_scale).reshape(-1),
        low_rank=None if down is None or up is None else (_array(down), _array(up)),
    )


def _array(tensor: Tensor) -> Array:
    return tensor.detach().float().numpy().astype(np.float32)


@contextmanager
def only(twin: nn.Module, layers: Iterable[str]) -> Iterator[None]:
    """Let no quantiser round but those of some layers, while the block runs."""
    kept = {f"{name}.{part}_quantizer" for name in layers for part in (*OPERANDS, "output")}
    silenced: list[Any] = []
    for name, module in twin.named_modules():
        quantizer: Any = module
        if name.endswith("_quantizer") and name not in kept and quantizer.is_enabled:
            quantizer.disable()
            silenced.append(quantizer)
    try:
        yield
    finally:
        for quantizer in silenced:
            quantizer.enable()
