"""Which layers need how many bits: ModelOpt's automatic search under a budget, scored by the velocity.

The search takes the loss for a log likelihood. Here that is of a Gaussian around the velocity in float32: its gradients are those
of the squared error at a target drawn with unit variance, so that scores estimate the squared error of the velocity.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.files.bundle import EngineSpec
from export.progress import Stage
from export.quantization.backend import E2M1, E4M3, modelopt, quiet
from export.quantization.layers import QUANTISED, Precision, Recipe, SearchedTable
from export.quantization.quality import Comparison, QualityReport
from export.quantization.quantize import OPERANDS, leaf_linears, quantiser_attributes
from export.scenes import Pass, Scene, held_out_scenes, passes
from export.sources import open_source, picture_encoder
from export.verify import check_sizes
from model.checkpoint import weights_sha256
from model.decoders import encoder_of
from model.world_model import WorldModel

BITS = {"nvfp4": 4.5, "fp8": 8.0, "bf16": 16.0}
"""Of a weight, block scales included."""
OFFERED: tuple[Literal["nvfp4", "fp8"], ...] = ("nvfp4", "fp8")
"""Besides bf16."""
SCORED_CHUNKS = 4
"""Passes in each world that layers are scored on."""


@dataclass(frozen=True)
class SearchedQuality:
    """A table and what it costs."""

    table: SearchedTable
    weight_bytes: int
    """Of the searched layers, block scales included."""
    quality: QualityReport


def search_source(
    spec: EngineSpec, source: str, budgets: Sequence[float], num_chunks: int, stage: Stage
) -> list[SearchedQuality]:
    """Search a table for each budget and measure it on held-out walks through the shipped worlds.

    Args:
        source: The checkpoint that `open_source` opens.
        budgets: Bits of a searched weight on average, at most.
    """
    model, decoder = open_source(source, random_weights=False)
    check_sizes(spec, model.config)
    num_frames = 1 + max(num_chunks, SCORED_CHUNKS) * spec.frames_per_chunk
    encode = picture_encoder(encoder_of(decoder))
    scenes = held_out_scenes(spec.weights_sha256, num_frames, spec.fps, encode)
    advance = stage("scoring layers", None)
    found = search_layers(model, scored_passes(model, spec, scenes), budgets)
    advance(1)
    comparison, made = Comparison(model, decoder, spec, scenes, num_chunks), []
    for table in found:
        recipe = Recipe("nvfp4", rules=table.rules())
        progress = stage(f"{table.effective_bits:.2f} bits", 2 * len(scenes))
        quality, _ = comparison.measure(recipe, progress, costs=False)
        made.append(SearchedQuality(table, searched_bytes(model, table), quality))
    return made


def scored_passes(model: WorldModel, spec: EngineSpec, scenes: Sequence[Scene]) -> list[Pass]:
    """Return passes of the model's own rollouts, in every scene some."""
    return [run for scene in scenes for run in passes(model, scene, spec.timesteps, SCORED_CHUNKS, 0)]


def search_layers(model: WorldModel, runs: Sequence[Pass], budgets: Sequence[float]) -> list[SearchedTable]:
    """Let ModelOpt score every layer that the built-in table offers in low precision, and solve for each budget.

    Raises:
        ValueError: A budget is no number of bits between NVFP4's and bf16's.
    """
    for bits in budgets:
        if not BITS["nvfp4"] <= bits <= BITS["bf16"]:
            raise ValueError(f"--bits takes 4.5, which is all NVFP4, to 16, got {bits:g}")
    named = [name for name in leaf_linears(model) if Recipe("nvfp4").is_quantised(name)]
    # Convolutions too: ModelOpt would search them.
    fixed = [
        name for name, module in model.named_modules() if name not in named and hasattr(module, "weight")
    ]
    generator = torch.Generator().manual_seed(0)

    def log_likelihood(velocity: Tensor, _run: Pass) -> Tensor:
        target = velocity.detach() + torch.randn(velocity.shape, generator=generator).to(velocity.device)
        return 0.5 * (velocity - target).square().sum()

    mtq, twin = modelopt(), copy.deepcopy(model)
    with quiet():
        _, state = mtq.auto_quantize(
            twin,
            constraints={"effective_bits": budgets[0], "cost": {"excluded_module_name_patterns": fixed}},
            quantization_formats=[_format(precision) for precision in OFFERED],
            data_loader=runs,
            forward_step=lambda network, run: run.velocity(network),
            loss_func=log_likelihood,
            disabled_layers=fixed,
            num_calib_steps=len(runs),
            num_score_steps=len(runs),
        )
        configs = [mtq.get_auto_quantize_config(state, {"effective_bits": bits}) for bits in budgets]
    return [_table(model, named, config) for config in configs]


def _format(precision: Precision) -> dict[str, Any]:
    """Return one format as the search takes it: for all layers alike."""
    assert precision in QUANTISED
    entries = [
        {"quantizer_name": f"*{operand}_quantizer", "cfg": quantiser_attributes(precision, operand)}
        for operand in OPERANDS
    ]
    return {"quant_cfg": [{"quantizer_name": "*", "enable": False}, *entries], "algorithm": "max"}


def _table(model: WorldModel, named: Sequence[str], config: dict[str, Any]) -> SearchedTable:
    formats = {E2M1: "nvfp4", E4M3: "fp8"}
    chosen = {
        entry["quantizer_name"].removesuffix(".weight_quantizer"): formats[tuple(entry["cfg"]["num_bits"])]
        for entry in config["quant_cfg"]
        if entry["quantizer_name"].endswith(".weight_quantizer") and entry.get("cfg")
    }
    layers = {name: chosen.get(name, "bf16") for name in named}
    sizes = {name: model.get_parameter(f"{name}.weight").numel() for name in named}
    bits = sum(BITS[layers[name]] * size for name, size in sizes.items()) / sum(sizes.values())
    return SearchedTable.model_validate(
        {"weights_sha256": weights_sha256(model), "effective_bits": bits, "layers": layers}
    )


def searched_bytes(model: WorldModel, table: SearchedTable) -> int:
    """Return what the searched layers' weights take, block scales included."""
    sizes = {name: model.get_parameter(f"{name}.weight").numel() for name in table.layers}
    return round(sum(BITS[table.layers[name]] * size / 8 for name, size in sizes.items()))
