"""A decoder's convolutions in FP8: what the pictures lose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import nn

from engine.files.bundle import Bundle, EngineSpec
from evaluation.image_metrics import psnr
from export.graph import layer_of
from export.progress import Stage
from export.quantization.backend import E4M3, modelopt, modelopt_version, quiet
from export.quantization.calibration import calibration_walks
from export.quantization.layers import Precision, Recipe, low_decoder_rules
from export.quantization.quantize import (
    Calibration,
    ForwardLoop,
    nominal_calibration,
    round_to_bf16,
    scales_of,
)
from export.scenes import Frames, Scene, decode, held_out_scenes, roll
from export.sources import RANDOM_WEIGHTS, open_source, picture_encoder, shipped
from model.decoders import encoder_of

MAX_LOSS_DB = 1.0
"""Loss against the truth that passes, as for the network."""
CALIBRATION_CHUNKS = 4
"""Chunks of each world that a decoder is calibrated on."""
Convolution = nn.Conv2d | nn.Conv3d
Rounding = Literal["bf16", "fp8"]


def convolutions(decoder: nn.Module) -> dict[str, Convolution]:
    """Return the convolutions of a streaming decoder by name, in the order they were made; its encoder's are left out."""
    return {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d) and ".decoder." in f".{name}"
    }


def quantised_decoder(decoder: nn.Module, rounding: Rounding, forward_loop: ForwardLoop) -> nn.Module:
    """Return a copy whose convolutions ModelOpt quantised; the first and the last, latents and colours, stay bf16.

    FP8 weights have a scale for each output channel, and inputs one; results are bf16's, as in an engine.

    Args:
        forward_loop: Decodes what FP8 is calibrated on.
    """
    twin = copy.deepcopy(decoder)
    names = list(convolutions(twin))
    ends = (names[0], names[-1])
    precisions: dict[str, Precision] = {name: "bf16" if name in ends else rounding for name in names}
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for name, precision in precisions.items():
        if precision == "fp8":
            for operand, axis in (("weight", 0), ("input", None)):
                attributes = {"num_bits": E4M3, "axis": axis}
                entries.append({"quantizer_name": f"{name}.{operand}_quantizer", "cfg": attributes})
    method = "max" if rounding == "fp8" else None
    with quiet(), torch.no_grad():
        modelopt().quantize(twin, {"quant_cfg": entries, "algorithm": method}, forward_loop)
    round_to_bf16(twin, precisions)
    return twin


def low_decoder(bundle: Bundle) -> tuple[Recipe, list[str]]:
    """Return the recipe of a bundle's decoder in FP8, and the names of the convolutions that get it.

    Raises:
        ValueError: It has none.
    """
    graph = onnx.load(bundle.decoder_graph, load_external_data=False).graph
    names = [layer_of(node) for node in graph.node if node.op_type == "Conv"]
    if not names:
        raise ValueError("the bundle's decoder has no convolutions; leave --decoder-precision out")
    recipe = Recipe("fp8", rules=low_decoder_rules(names[0], names[-1]))
    return recipe, [name for name in names if recipe.is_quantised(name)]


def calibrate_decoder(
    bundle: Bundle, source: str, stage: Stage, notice: Callable[[str], None]
) -> tuple[Recipe, Calibration]:
    """Calibrate a bundle's decoder in FP8 on chunks that the model generates along held-out walks.

    Args:
        source: What the bundle was exported from, as `open_source` takes it; not opened for random weights.
        notice: Told, in a sentence, what is calibrated on where that is no world.
    """
    spec, (recipe, layers) = bundle.spec, low_decoder(bundle)
    if spec.notes == RANDOM_WEIGHTS:
        return recipe, nominal_calibration(layers)
    name, _ = shipped(source, False)
    model, decoder = open_source(name, False, (spec.frame_width, spec.frame_height))
    walks = calibration_walks(spec, picture_encoder(encoder_of(decoder)), notice)
    num_chunks = min(walks.num_chunks, CALIBRATION_CHUNKS)
    advance = stage("calibrating the decoder", len(walks.scenes))

    def generated(network: nn.Module) -> None:
        for done, scene in enumerate(walks.scenes, 1):
            latents = [chunk for chunk, *_ in roll(model, scene, walks.timesteps, num_chunks, seed=0)]
            caches = tuple(torch.from_numpy(tensor.zeros()) for tensor in spec.decoder_caches)
            guides = scene.guides(model.config, sum(chunk.shape[2] for chunk in latents))
            decode(network, latents, caches, guides)
            advance(done)

    twin = quantised_decoder(decoder, "fp8", generated)
    origin = f"max of {modelopt_version()}, chunks in each world: {num_chunks}, worlds: {len(walks.scenes)}"
    return recipe, Calibration({name: scales_of(twin.get_submodule(name)) for name in layers}, origin)


@dataclass(frozen=True)
class DecoderWorld:
    """One walk, decoded from the encoded truth."""

    world: str
    psnr_fp32: float
    """Against the truth, dB, mean over frames."""
    psnr_bf16: float
    psnr_fp8: float
    psnr_between: float
    """FP8 of bf16."""


@dataclass(frozen=True)
class DecoderQuality:
    """What FP8 convolutions cost a decoder."""

    worlds: tuple[DecoderWorld, ...]

    @property
    def loss_db(self) -> float:
        """Greatest loss against the truth, of bf16, over the worlds."""
        return max(world.psnr_bf16 - world.psnr_fp8 for world in self.worlds)

    @property
    def passed(self) -> bool:
        return self.loss_db <= MAX_LOSS_DB

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {"loss_db": self.loss_db, **asdict(self)}


def measure_decoder(spec: EngineSpec, source: str, num_chunks: int, stage: Stage) -> DecoderQuality:
    """Decode the encoded truth of held-out walks in float32, bf16 and FP8, calibrated on the first chunks of each walk.

    Args:
        source: A checkpoint whose decoder has an encoder beside it.

    Raises:
        ValueError: There is no encoder to make latents of the truth.
    """
    model, decoder = open_source(source, random_weights=False)
    encode = picture_encoder(encoder_of(decoder))
    if encode is None:
        raise ValueError(f"{source} has no encoder to make latents of the truth; name a pocket checkpoint")
    scenes = held_out_scenes(spec.weights_sha256, 1 + num_chunks * spec.frames_per_chunk, spec.fps, encode)
    advance = stage("decoding in FP8", len(scenes))
    worlds = []
    for done, scene in enumerate(scenes, 1):
        worlds.append(_decode_scene(scene, spec, model.config, decoder, encode, num_chunks))
        advance(done)
    return DecoderQuality(tuple(worlds))


def _decode_scene(
    scene: Scene, spec: EngineSpec, config: Any, decoder: nn.Module, encode: Any, num_chunks: int
) -> DecoderWorld:
    assert scene.render is not None
    stride = spec.temporal_stride
    num_frames = num_chunks * spec.chunk_size
    truth = np.stack([scene.render(c2w) for c2w in scene.c2w[: 1 + num_frames * stride]])
    latents = [scene.first_latent]
    with torch.no_grad():
        latents += [encode(truth[first : first + stride]) for first in range(1, len(truth), stride)]
    guides = list(scene.guides(config, len(latents)))
    caches = tuple(torch.from_numpy(tensor.zeros()) for tensor in spec.decoder_caches)

    def first_frames(network: nn.Module) -> None:
        decode(network, latents[:5], caches, guides[:5])

    videos: dict[str, Frames] = {"fp32": decode(decoder, latents, caches, guides)}
    for rounding in ("bf16", "fp8"):
        twin = quantised_decoder(decoder, rounding, first_frames)
        videos[rounding] = decode(twin, latents, caches, guides)
    means = {name: _mean_psnr(truth[1:], video[1:]) for name, video in videos.items()}
    between = _mean_psnr(videos["bf16"][1:], videos["fp8"][1:])
    return DecoderWorld(scene.name, means["fp32"], means["bf16"], means["fp8"], between)


def _mean_psnr(truth: Sequence[Any] | Frames, video: Sequence[Any] | Frames) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(truth, video, strict=True)]))
