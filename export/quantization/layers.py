"""The layer table: in what precision each part of the model runs in an engine for a GPU, and why."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

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
