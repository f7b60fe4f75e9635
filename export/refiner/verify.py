"""An exported refiner held against PyTorch block after block, and what low precision costs it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.files.refiner import RefinerFolder, RefinerSpec
from engine.session.refiner import GraphRunner, RefinerStream
from export.quantization.layers import Low, Recipe
from export.quantization.quantize import quantised
from model.refiner import Refiner
from model.refiner.state import SINK_FRAMES

FULL_BOUND = 1e-4
"""Of relative differences where the state is float32: sums in another order differ by about 1e-5."""
HALF_BOUND = 5e-3
"""Where keys and values are kept in float16, which has 11 bits."""
BOUND = 0.3
"""Of the root mean square difference over that of float32: what single rounding errors never reach and a fault does."""
TEXT_LENGTH = 32


@dataclass(frozen=True)
class RefinerReport:
    """Largest differences, each beside the largest value."""

    latents: tuple[float, ...]
    """Of refined latents, per block."""
    state: float
    """Of any state tensor after any block."""
    bound: float

    @property
    def passed(self) -> bool:
        """Whether all differences are within the bound; NaN is not."""
        return all(error <= self.bound for error in (*self.latents, self.state))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"passed": self.passed, **asdict(self)}


@torch.no_grad()
def verify_refiner(
    folder: RefinerFolder, runner: GraphRunner, refiner: Refiner, num_blocks: int = 4, seed: int = 0
) -> RefinerReport:
    """Refine the same latents by the graphs and by PyTorch; four blocks fill the ring and write over its oldest.

    Args:
        runner: Runs the folder's graphs.
        refiner: The network they were exported from, in float32.
    """
    spec = folder.spec
    rng = np.random.default_rng(seed)
    shape = (1, spec.latent_channels, spec.block_size, spec.latent_height, spec.latent_width)
    text = rng.standard_normal((TEXT_LENGTH, spec.text_dim), np.float32)
    mask = (np.arange(TEXT_LENGTH) >= TEXT_LENGTH // 4).astype(np.float32)
    stream = RefinerStream(spec, runner, text, mask)
    context = refiner.encode_text(torch.from_numpy(text)[None], torch.from_numpy(mask)[None])
    first = rng.standard_normal(shape, np.float32)[:, :, :SINK_FRAMES]
    stream.begin(first[0, :, 0])
    state = refiner.begin(torch.from_numpy(first), context, spec.fps, spec.window - SINK_FRAMES)
    latent_errors, state_errors = [], []
    for _ in range(num_blocks):
        latents, noise = (rng.standard_normal(shape, np.float32) for _ in range(2))
        memory = None
        if spec.memory_channels:
            memory = rng.standard_normal((1, spec.memory_channels, *shape[2:]), np.float32)
        refined = stream.refine(latents, noise, memory)
        expected, state = refiner.step(
            torch.from_numpy(latents),
            torch.from_numpy(noise),
            context,
            state,
            spec.fps,
            None if memory is None else torch.from_numpy(memory),
        )
        latent_errors.append(_relative(torch.from_numpy(refined), expected))
        state_errors += [
            _relative(torch.from_numpy(stream.state[name]).float(), tensor)
            for name, tensor in state.tensors.items()
        ]
    is_half = any(tensor.dtype == "float16" for tensor in spec.state)
    return RefinerReport(tuple(latent_errors), max(state_errors), HALF_BOUND if is_half else FULL_BOUND)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@dataclass(frozen=True)
class Clip:
    """What a refiner is tried on where nothing real is at hand: smooth latents, text of random numbers."""

    latents: Tensor
    """[1, C, T, h, w]."""
    text: Tensor
    """[1, L, D]."""
    text_mask: Tensor
    """[1, L]."""
    memory: Tensor | None = None
    """What a memory shows, for refiners that read one, [1, M, T, h, w]: random numbers, too."""

    def refined_by(self, refiner: Refiner, spec: RefinerSpec) -> Tensor:
        """Refine it with the sizes that a refiner was exported with."""
        return refiner.refine(
            self.latents,
            self.text,
            self.text_mask,
            fps=spec.fps,
            block_size=spec.block_size,
            window=spec.window,
            memory=self.memory,
        )


@dataclass(frozen=True)
class PrecisionReport:
    """A low precision beside float32; each follows its own history."""

    precision: Low
    latents: tuple[float, ...]
    """Root mean square difference of the refined latents over what float32 changed them by, per block."""
    bound: float = BOUND

    @property
    def passed(self) -> bool:
        """Whether all differences are within the bound; NaN is not."""
        return all(error <= self.bound for error in self.latents)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"passed": self.passed, **asdict(self)}


def made_up_clip(spec: RefinerSpec, num_blocks: int, seed: int = 0) -> Clip:
    """Make up latents that change little from frame to frame, of unit deviation, and a text."""
    rng = np.random.default_rng(seed)
    num_frames = SINK_FRAMES + num_blocks * spec.block_size
    shape = (1, spec.latent_channels, num_frames, spec.latent_height, spec.latent_width)
    still, moving = rng.standard_normal((*shape[:2], 1, *shape[3:])), rng.standard_normal(shape)
    latents = torch.from_numpy((0.9 * still + np.sqrt(1 - 0.9**2) * moving).astype(np.float32))
    text = torch.from_numpy(rng.standard_normal((1, TEXT_LENGTH, spec.text_dim), np.float32))
    memory = None
    if spec.memory_channels:
        memory = torch.from_numpy(
            rng.standard_normal((1, spec.memory_channels, num_frames, *shape[3:]), np.float32)
        )
    return Clip(latents, text, torch.ones(1, TEXT_LENGTH), memory)


def measure_precision(
    refiner: Refiner, spec: RefinerSpec, recipe: Recipe, num_blocks: int, seed: int = 0
) -> PrecisionReport:
    """Refine a made-up clip in float32 and as an engine of a recipe will, calibrated on another clip.

    Args:
        refiner: In float32.
        spec: For the sizes that it was exported with.
    """
    other, clip = (made_up_clip(spec, num_blocks, number) for number in (seed + 1, seed))
    twin = quantised(refiner, recipe, lambda net: other.refined_by(net, spec))
    refined = [clip.refined_by(model, spec) for model in (refiner, twin)]
    errors = []
    for start in range(SINK_FRAMES, clip.latents.shape[2], spec.block_size):
        exact, rounded, given = (
            latents[:, :, start : start + spec.block_size] for latents in (*refined, clip.latents)
        )
        errors.append(
            float((rounded - exact).square().mean().sqrt() / (exact - given).square().mean().sqrt())
        )
    return PrecisionReport(recipe.low, tuple(errors))
