"""A decoder's convolutions in FP8, emulated: what the pictures lose."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from engine.files.bundle import EngineSpec
from evaluation.image_metrics import psnr
from export.progress import Stage
from export.quantization.nvfp4 import MAX_E4M3, round_e4m3
from export.scenes import Frames, Scene, decode, held_out_scenes
from export.sources import open_source, picture_encoder
from model.decoders import encoder_of

MAX_LOSS_DB = 1.0
"""Loss against the truth that passes, as for the network."""
Convolution = nn.Conv2d | nn.Conv3d
Rounding = Literal["bf16", "fp8"]


class RoundedConvolution(nn.Module):
    """A convolution whose operands are rounded; sums are float32 and results bf16's, as in an engine."""

    def __init__(self, convolution: Convolution, rounding: Rounding, largest: float) -> None:
        """Round the weights once, FP8 with a scale for each output channel.

        Args:
            largest: Largest magnitude of an input on calibration; beyond it FP8 inputs saturate.
        """
        super().__init__()
        self.rounding: Rounding = rounding
        self.convolution = copy.deepcopy(convolution)
        self.scale = max(largest, 1e-12) / MAX_E4M3
        weight = convolution.weight.detach().float()
        if rounding == "fp8":
            scale = weight.flatten(1).abs().amax(1).clamp_min(1e-12) / MAX_E4M3
            scale = scale.view(-1, *[1] * (weight.ndim - 1))
            weight = round_e4m3(weight / scale) * scale
        else:
            weight = weight.bfloat16().float()
        self.convolution.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        rounded = x.bfloat16().float()
        if self.rounding == "fp8":
            rounded = round_e4m3(x.float() / self.scale) * self.scale
        return self.convolution(rounded).bfloat16().to(x.dtype)


def convolutions(decoder: nn.Module) -> dict[str, Convolution]:
    """Return the convolutions of a streaming decoder by name, in the order they were made; its encoder's are left out."""
    return {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d) and ".decoder." in f".{name}"
    }


def emulate_decoder(decoder: nn.Module, rounding: Rounding, largest: Mapping[str, float]) -> nn.Module:
    """Return a copy of a decoder whose convolutions round; the first and the last, latents and colours, stay bf16.

    Args:
        largest: From `calibrated_decoder`.
    """
    twin = copy.deepcopy(decoder)
    found = convolutions(twin)
    ends = (next(iter(found)), next(reversed(found)))
    for name, convolution in found.items():
        parent, _, child = name.rpartition(".")
        chosen: Rounding = "bf16" if name in ends else rounding
        setattr(
            twin.get_submodule(parent), child, RoundedConvolution(convolution, chosen, largest.get(name, 0.0))
        )
    return twin


@contextmanager
def calibrated_decoder(decoder: nn.Module) -> Iterator[dict[str, float]]:
    """Watch the convolutions while the block runs the decoder; yields the largest magnitude that reached each."""
    largest: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest[name] = max(largest.get(name, 0.0), float(inputs[0].abs().max()))

        return hook

    handles = [
        module.register_forward_pre_hook(watch(name)) for name, module in convolutions(decoder).items()
    ]
    try:
        with torch.no_grad():
            yield largest
    finally:
        for handle in handles:
            handle.remove()


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
    with calibrated_decoder(decoder) as largest:
        decode(decoder, latents[:5], caches, guides[:5])
    videos: dict[str, Frames] = {"fp32": decode(decoder, latents, caches, guides)}
    for rounding in ("bf16", "fp8"):
        videos[rounding] = decode(emulate_decoder(decoder, rounding, largest), latents, caches, guides)
    means = {name: _mean_psnr(truth[1:], video[1:]) for name, video in videos.items()}
    between = _mean_psnr(videos["bf16"][1:], videos["fp8"][1:])
    return DecoderWorld(scene.name, means["fp32"], means["bf16"], means["fp8"], between)


def _mean_psnr(truth: Sequence[Any] | Frames, video: Sequence[Any] | Frames) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(truth, video, strict=True)]))
