"""The layer table: in what precision each part of the model runs in an engine for a GPU, and why.

A table that was searched for some weights is a file: it says which layers keep more bits than the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.files.atomic import replacing
from engine.files.bundle import Sha256, first_problem
from engine.machine.assets import checkpoints_dir

Precision = Literal["nvfp4", "fp8", "int8", "bf16", "fp32"]
Low = Literal["nvfp4", "fp8", "int8", "bf16"]
"""What `--precision` may ask of the layers that bear it."""
QUANTISED = ("nvfp4", "fp8", "int8")
"""Precisions with scales, which need calibration."""
Algorithm = Literal["max", "mse", "awq", "svdquant"]
"""How ModelOpt chooses scales: from largest magnitudes, from the least error of weights, with smoothed inputs, or that and
a low rank."""


@dataclass(frozen=True)
class LayerRule:
    """Layers whose names match, and the precision of their products."""

    pattern: str
    """Over names such as `blocks.3.attn.qkv`; `*` matches anything."""
    precision: Literal["low", "nvfp4", "fp8", "int8", "bf16", "fp32"]
    """"low" is what the user asked for."""
    why: str


Rules = tuple[LayerRule, ...]
"""The first rule that matches counts."""
STEP_RULES: Rules = (
    LayerRule("blocks.*.attn.qkv", "low", "large and normalised right after: errors of scale vanish"),
    LayerRule("blocks.*.attn.output_gate", "low", "large, and it only modulates"),
    LayerRule("blocks.*.attn.proj", "low", "large, and its result is added to a much larger stream"),
    LayerRule("blocks.*.cross_attn.q_linear", "low", "large and normalised right after"),
    LayerRule("blocks.*.cross_attn.kv_linear", "low", "large; the text is the same in every frame"),
    LayerRule("blocks.*.cross_attn.proj", "low", "large, and its result is added to a much larger stream"),
    LayerRule("blocks.*.mlp.inverted_conv.conv", "low", "a third of all weights"),
    LayerRule("blocks.*.mlp.point_conv.conv", "low", "a sixth of all weights"),
    LayerRule(
        "blocks.*.attn.*_proj_cam",
        "bf16",
        "small residuals steer the camera; rounded away, it stops following",
    ),
    LayerRule("blocks.*.attn.beta_proj", "bf16", "one output per head, no multiple of 16"),
    LayerRule("blocks.*.attn.gate_proj", "bf16", "one output per head, no multiple of 16"),
    LayerRule("blocks.*.attn.scores", "bf16", "softmax attention"),
    LayerRule("blocks.*.attn", "fp32", "delta-rule scans carry the state; ray transforms hold metres"),
    LayerRule("blocks.*.cross_attn.scores", "bf16", "softmax attention"),
    LayerRule("blocks.*.plucker_proj", "bf16", "small residuals steer the camera"),
    LayerRule("blocks.*.mlp.depth_conv.conv", "bf16", "depthwise: few products, each of 9 terms"),
    LayerRule("blocks.*.mlp", "bf16", "the convolution over time carries the state"),
    LayerRule("t_block.*", "bf16", "scales and shifts every token of a frame"),
    LayerRule("y_embedder.*", "bf16", "once per text token"),
    LayerRule("t_embedder.*", "fp32", "a handful of rows; timesteps need all their digits"),
    LayerRule("x_embedder.*", "fp32", "small, and everything passes through it"),
    LayerRule("memory_embedder.*", "fp32", "small, and everything that is known passes through it"),
    LayerRule("plucker_embedder.*", "fp32", "small; ray maps hold metres"),
    LayerRule("raymap_embedder.*", "fp32", "in the checkpoint, but unused"),
    LayerRule("final_layer.*", "fp32", "small, and everything passes through it"),
    LayerRule("", "fp32", "geometry of rays and rotations"),
)
"""Of the model. What is no product (norms, softmax, gates, sums) runs in fp32."""

REFINER_RULES: Rules = (
    LayerRule("transformer_blocks.*.attn?.to_q", "low", "large and normalised right after"),
    LayerRule("transformer_blocks.*.attn?.to_k", "low", "large and normalised right after"),
    LayerRule("transformer_blocks.*.attn?.to_v", "low", "large; the reference runs it in four bits too"),
    LayerRule("transformer_blocks.*.attn?.to_out.0", "low", "large, and added to a much larger stream"),
    LayerRule("transformer_blocks.*.ff.net.0.proj", "low", "a quarter of all weights"),
    LayerRule("transformer_blocks.*.ff.net.2", "low", "a quarter of all weights"),
    LayerRule("transformer_blocks.*.attn?.to_gate_logits", "bf16", "one output per head, no multiple of 16"),
    LayerRule("transformer_blocks.*.scores", "bf16", "softmax attention"),
    LayerRule("proj_in", "bf16", "small, and everything passes through it; skipped by the reference"),
    LayerRule("proj_out", "bf16", "small, and everything passes through it; skipped by the reference"),
    LayerRule("caption_projection.*", "bf16", "once per text; skipped by the reference"),
    LayerRule("time_embed.*", "bf16", "scales and shifts every token; skipped by the reference"),
)
"""Of the refiner; what the reference skips is what its four-bit engine leaves out by name."""


@dataclass(frozen=True)
class Recipe:
    """How a network is brought to low precision."""

    low: Low
    algorithm: Algorithm = "max"
    hadamard: bool = False
    """Rotate blocks of 16 before NVFP4."""
    rules: Rules = STEP_RULES

    def precision(self, name: str) -> Precision:
        """Return the precision of a layer's products."""
        return precision_of(name, self.low, self.rules)

    def is_quantised(self, name: str) -> bool:
        """Whether a layer has scales."""
        return self.precision(name) in QUANTISED


DECODER_RULES: Rules = (LayerRule("*", "bf16", "pictures of 8 bits; convolutions are not offered in 4"),)


def low_decoder_rules(first: str, last: str) -> Rules:
    """Return the table of a decoder whose convolutions are in low precision, but for the first and the last."""
    return (
        LayerRule(first, "bf16", "small, and every latent passes through it"),
        LayerRule(last, "bf16", "small, and every colour passes through it"),
        LayerRule("*", "low", "nearly all of the work, and bound by arithmetic"),
    )


def find_rule(name: str, rules: Rules = STEP_RULES) -> LayerRule:
    """Return the rule of a layer.

    Raises:
        ValueError: No rule speaks of it: whoever adds a layer to the model decides its precision.
    """
    for rule in rules:
        if fnmatchcase(name, rule.pattern):
            return rule
    raise ValueError(
        f"no rule of the layer table speaks of {name!r}; add one to export/quantization/layers.py"
    )


def low_precision(name: str, hadamard: bool) -> Low:
    """Return a precision as the layer table takes it.

    Raises:
        ValueError: A GPU's large layers do not take it, or it has no blocks to rotate.
    """
    lows: dict[str, Low] = {"nvfp4": "nvfp4", "fp8": "fp8", "int8": "int8", "bf16": "bf16"}
    if name not in lows:
        raise ValueError(f"a GPU's large layers take nvfp4, fp8, int8 or bf16, not {name}")
    if hadamard and name != "nvfp4":
        raise ValueError(f"--hadamard rotates blocks of nvfp4, and {name} has none; leave it out")
    return lows[name]


def precision_of(name: str, low: Low, rules: Rules = STEP_RULES) -> Precision:
    """Return the precision of a layer's products where the user asked for `low`."""
    precision = find_rule(name, rules).precision
    return low if precision == "low" else precision


SUFFIX = ".layers.json"
MAX_TABLE_BYTES = 1 << 20
LayerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,256}$")]


class SearchedTable(BaseModel):
    """What `flaneur export search` found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    weights_sha256: Sha256
    effective_bits: Annotated[float, Field(ge=4, le=16)]
    """Of the layers that were searched, scales included."""
    layers: Annotated[dict[LayerName, Literal["nvfp4", "fp8", "bf16"]], Field(max_length=65536)]
    """Precision of every layer that was searched."""

    def rules(self) -> Rules:
        """Return the built-in table with the searched layers before it."""
        searched = tuple(
            LayerRule(
                name, precision, f"searched at {self.effective_bits:.2f} bits: 4 cost the velocity too much"
            )
            for name, precision in self.layers.items()
            if precision != "nvfp4"
        )
        return searched + STEP_RULES


def rules_for(path: Path | None, name: str, weights_sha256: str, notice: Callable[[str], None]) -> Rules:
    """Read a table that was searched for some weights: the one named, else the one that is shipped, else the built-in one.

    Args:
        name: Of the model; its table is shipped beside its checkpoint.
        notice: Told in a sentence where the shipped table is for other weights.

    Raises:
        ValueError: The named file is missing, no table, or was searched for other weights or layers.
    """
    found = path or shipped_table(name)
    if found is None:
        return STEP_RULES
    table = read_table(found)
    if table.weights_sha256 == weights_sha256:
        return table.rules()
    if path is not None:
        raise ValueError(f"{path} was searched for other weights; search again with `flaneur export search`")
    notice(f"{found.name} was searched for other weights; the built-in layer table is used")
    return STEP_RULES


def shipped_table(name: str, checkpoints: Path | None = None) -> Path | None:
    """Return the table that lies beside a model's checkpoint, in the folder that is shipped or in another."""
    path = (checkpoints or checkpoints_dir()) / f"{name}{SUFFIX}"
    return path if path.is_file() else None


def read_table(path: Path) -> SearchedTable:
    """Read a table.

    Raises:
        ValueError: It cannot be read, is no table, or speaks of layers whose precision is fixed.
    """
    again = "make one with `flaneur export search`"
    try:
        with path.open("rb") as file:
            table = SearchedTable.model_validate_json(file.read(MAX_TABLE_BYTES))
    except OSError as error:
        raise ValueError(f"cannot read the layer table {path} ({error.strerror}); {again}") from None
    except ValidationError as error:
        raise ValueError(f"{path} is no layer table ({first_problem(error)}); {again}") from None
    for name in table.layers:
        if find_rule(name).precision != "low":
            raise ValueError(f"{path} names {name}, whose precision is fixed; {again}")
    return table


def write_table(table: SearchedTable, path: Path) -> None:
    """Write a table, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(table.model_dump_json(indent=1) + "\n")
