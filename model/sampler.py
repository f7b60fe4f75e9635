"""Flow-matching schedules and samplers: streaming chunk by chunk, and whole clips with guidance.

x_sigma = (1 - sigma) x0 + sigma eps, velocity = eps - x0, timestep = 1000 sigma. Sampling takes deterministic Euler
steps; no noise is added between steps. Streaming has two calls: denoise a chunk (reads the state), commit it (writes).
Clips are for undistilled models; their frame 0 is the clean conditioning frame, whose time is 0 at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from model.attention.mask import chunk_ranges
from model.precision import wide_dtype
from model.rollout import RolloutState
from model.world_model import WorldModel

STREAMING_TIMESTEPS = (1000.0, 960.0, 889.0, 727.0)
"""The four-step schedule of the released streaming model."""


def shift_sigma(sigma: float, shift: float) -> float:
    """Move a noise level towards 1, as training on larger pictures asks for."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def shifted_timesteps(num_steps: int, shift: float) -> list[float]:
    """Build the teacher's decreasing schedule, without the final 0; the shift is applied twice, as released."""
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; ask for at least one denoising step")
    last = 1000 * shift_sigma(0.001, shift)
    spacing = (1000 - last) / max(num_steps - 1, 1)
    return [1000 * shift_sigma((1000 - i * spacing) / 1000, shift) for i in range(num_steps)]


def check_timesteps(timesteps: Sequence[float]) -> list[float]:
    """Return the schedule as floats, or say what is wrong with it."""
    steps = [float(step) for step in timesteps]
    falling = all(a > b for a, b in pairwise([*steps, 0.0]))
    if not steps or steps[0] > 1000 or not falling:
        raise ValueError(f"timesteps {steps} must fall from at most 1000 to above 0; leave out the final 0")
    return steps


@dataclass(frozen=True)
class ChunkConditions:
    """What a chunk of T latent frames is generated from, beside the rollout state."""

    c2w_windows: Tensor
    """Poses relative to video frame 0, packed windows, [B, T * temporal_stride, 4, 4]."""
    intrinsics: Tensor
    """[B, T * temporal_stride, 4], frame pixels."""
    start_frame: Tensor
    """Absolute latent index of the chunk's first frame, int64 [B]."""
    text: Tensor
    """[B, L, text_dim]."""
    text_mask: Tensor
    """[B, L]."""


def euler_step(latents: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Walk from one noise level to the next; sigmas [B, T], the rest [B, C, T, H, W]."""
    return latents - (sigma - sigma_next)[:, None, :, None, None] * velocity


def denoise_chunk(
    model: WorldModel,
    noise: Tensor,
    conditions: ChunkConditions,
    state: RolloutState | None,
    timesteps: Sequence[float] = STREAMING_TIMESTEPS,
    clean: Tensor | None = None,
) -> Tensor:
    """Denoise one chunk against the committed past, which is only read.

    Args:
        noise: Unit Gaussian, [B, C, T, H, W].
        timesteps: Decreasing from at most 1000, without the final 0.
        clean: Latent frames that open the chunk and stay as they are (the conditioning frame of chunk 0),
            [B, C, t, H, W].

    Returns:
        Clean latents, [B, C, T, H, W].
    """
    steps = check_timesteps(timesteps)
    batch, _, frames = noise.shape[:3]
    num_clean = 0 if clean is None else clean.shape[2]
    noisy = torch.ones(batch, frames, device=noise.device)
    noisy[:, :num_clean] = 0
    latents = noise if clean is None else torch.cat([clean, noise[:, :, num_clean:]], dim=2)
    for step, following in zip(steps, [*steps[1:], 0.0], strict=True):
        velocity, _ = _step(model, latents, noisy * step, conditions, state)
        latents = euler_step(latents, velocity, noisy * (step / 1000), noisy * (following / 1000))
    return latents


def commit_chunk(
    model: WorldModel, latents: Tensor, conditions: ChunkConditions, state: RolloutState | None
) -> RolloutState:
    """Write a finished chunk into the memory: one pass over clean latents at timestep 0."""
    timesteps = torch.zeros(latents.shape[0], latents.shape[2], device=latents.device)
    return _step(model, latents, timesteps, conditions, state)[1]


def _step(
    model: WorldModel,
    latents: Tensor,
    timesteps: Tensor,
    conditions: ChunkConditions,
    state: RolloutState | None,
) -> tuple[Tensor, RolloutState]:
    return model.step(
        latents,
        timesteps,
        conditions.c2w_windows,
        conditions.intrinsics,
        conditions.start_frame,
        conditions.text,
        conditions.text_mask,
        state,
    )


TEACHER_STEPS = 60
TEACHER_SHIFT = 9.8
TEACHER_GUIDANCE = 5.0

Progress = Callable[[int, int], None]
"""Told the network calls made and the number there will be."""


@dataclass(frozen=True)
class ClipConditions:
    """What a clip of T latent frames is generated from; F = 1 + temporal_stride * (T - 1)."""

    first_latent: Tensor
    """Clean latent of frame 0, [B, C, 1, H, W]."""
    c2w: Tensor
    """[B, F, 4, 4]."""
    intrinsics: Tensor
    """Frame pixels, [B, F, 4]."""
    text: Tensor
    """[B, L, text_dim]."""
    text_mask: Tensor
    """[B, L]."""
    null_text: Tensor | None = None
    """Text of the negative prompt, [B, L, text_dim]; needed where guidance is not 1."""
    null_mask: Tensor | None = None
    """[B, L]."""


def teacher_timesteps(num_steps: int = TEACHER_STEPS, shift: float = TEACHER_SHIFT) -> list[float]:
    """The released bidirectional schedule, without the final 0."""
    return shifted_timesteps(num_steps, shift)


@torch.no_grad()
def sample_clip(
    model: WorldModel,
    noise: Tensor,
    conditions: ClipConditions,
    timesteps: Sequence[float] | None = None,
    guidance: float = TEACHER_GUIDANCE,
    progress: Progress | None = None,
) -> Tensor:
    """Denoise all frames of a clip together, every frame seeing every other.

    Args:
        noise: Unit Gaussian, [B, C, T, H, W]; frame 0 is replaced by the clean one.
        timesteps: Decreasing from at most 1000, without the final 0; default: the released 60 steps.
        guidance: velocity = null + guidance * (text - null).

    Returns:
        Clean latents, [B, C, T, H, W].
    """
    steps = check_timesteps(teacher_timesteps() if timesteps is None else timesteps)
    latents = _with_first(noise, conditions)
    batch, frames = latents.shape[0], latents.shape[2]
    # Times stay exact whatever the latents' precision: bfloat16 cannot tell 998 from 1000.
    moving = torch.ones(batch, frames, device=noise.device, dtype=wide_dtype(noise.dtype))
    moving[:, 0] = 0
    for count, (step, following) in enumerate(zip(steps, [*steps[1:], 0.0], strict=True), start=1):
        velocity = _guided(model, latents, moving * step, conditions, guidance, "bidirectional")
        moved = euler_step(latents, velocity, moving * (step / 1000), moving * (following / 1000))
        latents = moved.to(noise.dtype)
        if progress is not None:
            progress(count, len(steps))
    return latents


def staircase(num_chunks: int, num_steps: int, interval: float | None = None) -> list[list[int]]:
    """Say at which of its steps every chunk stands, for each network call.

    Chunk i begins at call floor(i * interval * num_steps).

    Args:
        interval: Share of a schedule by which a chunk waits for the one before; default: 1 / num_chunks.

    Returns:
        Per call a list over the chunks that have begun; num_steps stands for a finished chunk.
    """
    gap = 1 / num_chunks if interval is None else interval
    if not 0 <= gap <= 1:
        raise ValueError(f"the interval between chunks is {gap}; use a share of the schedule from 0 to 1")
    # A guard against 3 * (1 / 3) * n falling just short of n.
    starts = [int(chunk * gap * num_steps + 1e-9) for chunk in range(num_chunks)]
    return [
        [min(call - start, num_steps) for start in starts if call >= start]
        for call in range(starts[-1] + num_steps)
    ]


@torch.no_grad()
def sample_staggered(
    model: WorldModel,
    noise: Tensor,
    conditions: ClipConditions,
    timesteps: Sequence[float] | None = None,
    guidance: float = TEACHER_GUIDANCE,
    interval: float | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Denoise a clip chunk-causally, later chunks starting while earlier ones are still being denoised.

    Every call runs the network once over all chunks that have begun, each at its own time, finished ones at 0; nothing is
    cached. Chunks are those of the chunk-causal pass. Arguments and result are those of `sample_clip`; `interval` is
    that of `staircase`.
    """
    schedule = check_timesteps(teacher_timesteps() if timesteps is None else timesteps)
    steps = torch.tensor([*schedule, 0.0, 0.0], device=noise.device, dtype=wide_dtype(noise.dtype))
    latents = _with_first(noise, conditions)
    batch, frames = latents.shape[0], latents.shape[2]
    chunks = chunk_ranges(model.config, frames, starts=True)
    calls = staircase(len(chunks), len(steps) - 2, interval)
    for count, standing in enumerate(calls, start=1):
        stop = chunks[len(standing) - 1][1]
        lengths = torch.tensor([b - a for a, b in chunks[: len(standing)]], device=noise.device)
        at = torch.tensor(standing, device=noise.device).repeat_interleave(lengths)
        now, following = (steps[at + ahead].expand(batch, -1).clone() for ahead in (0, 1))
        now[:, 0] = following[:, 0] = 0
        seen = latents[:, :, :stop]
        velocity = _guided(model, seen, now, conditions, guidance, "chunk_causal")
        moved = euler_step(seen, velocity, now / 1000, following / 1000).to(noise.dtype)
        latents = torch.cat([moved, latents[:, :, stop:]], dim=2)
        if progress is not None:
            progress(count, len(calls))
    return latents


def _with_first(noise: Tensor, conditions: ClipConditions) -> Tensor:
    return torch.cat([conditions.first_latent.to(noise.dtype), noise[:, :, 1:]], dim=2)


def _guided(
    model: WorldModel,
    latents: Tensor,
    timesteps: Tensor,
    conditions: ClipConditions,
    guidance: float,
    mode: Literal["bidirectional", "chunk_causal"],
) -> Tensor:
    """Velocity of the first frames of a clip; with guidance, null and text go through the network as one batch."""
    # Cameras are given whole: frame 0 looks ahead into those of frame 1.
    cameras = [conditions.c2w, conditions.intrinsics]
    text, mask = conditions.text, conditions.text_mask
    arguments = [latents, timesteps]
    if guidance != 1.0:
        if conditions.null_text is None or conditions.null_mask is None:
            raise ValueError("guidance needs the text of a negative prompt; give null_text, or guidance 1")
        text, mask = torch.cat([conditions.null_text, text]), torch.cat([conditions.null_mask, mask])
        arguments = [torch.cat([tensor, tensor]) for tensor in arguments]
        cameras = [torch.cat([tensor, tensor]) for tensor in cameras]
    velocity = model(*arguments, text, mask, *cameras, mode=mode)
    if guidance == 1.0:
        return velocity
    null, conditional = velocity.chunk(2)
    return null + guidance * (conditional - null)
