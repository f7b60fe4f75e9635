"""Flow-matching schedules and samplers: streaming chunk by chunk, and whole clips with guidance.

x_sigma = (1 - sigma) x0 + sigma eps, velocity = eps - x0, timestep = 1000 sigma. Sampling takes deterministic Euler
steps; no noise is added between steps. Streaming has two calls: denoise a chunk (reads the state), commit it (writes).
Clips are for undistilled models; their frame 0 is the clean conditioning frame, whose time is 0 at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from model.conditioning import Conditioning, concatenate
from model.precision import wide_dtype
from model.rollout import RolloutState
from model.world_model import Mode, WorldModel

STREAMING_TIMESTEPS = (1000.0, 960.0, 889.0, 727.0)
"""The four-step schedule of the released streaming model."""
TEACHER_STEPS = 60
TEACHER_SHIFT = 9.8
TEACHER_GUIDANCE = 5.0

Progress = Callable[[int, int], None]
"""Called with the number of network calls made and the number in all."""


def shift_sigma(sigma: float, shift: float) -> float:
    """Move a noise level towards 1, as training on larger frames asks for."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def shifted_timesteps(num_steps: int, shift: float) -> list[float]:
    """Build the teacher's decreasing schedule, without the final 0; the shift is applied twice, as released."""
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; ask for at least one denoising step")
    last = 1000 * shift_sigma(0.001, shift)
    spacing = (1000 - last) / max(num_steps - 1, 1)
    return [1000 * shift_sigma((1000 - i * spacing) / 1000, shift) for i in range(num_steps)]


def check_timesteps(timesteps: Sequence[float]) -> list[float]:
    """Return the schedule as floats, or raise what is wrong with it."""
    steps = [float(step) for step in timesteps]
    falling = all(a > b for a, b in pairwise([*steps, 0.0]))
    if not steps or steps[0] > 1000 or not falling:
        raise ValueError(f"timesteps {steps} must fall from at most 1000 to above 0; leave out the final 0")
    return steps


def euler_step(latents: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Walk from one noise level to the next; sigmas [B, T], the rest [B, C, T, H, W]."""
    return latents - (sigma - sigma_next)[:, None, :, None, None] * velocity


def denoise_chunk(
    model: WorldModel,
    noise: Tensor,
    conditioning: Conditioning,
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
        velocity, _ = model.step(latents, noisy * step, conditioning, state, keep_state=False)
        latents = euler_step(latents, velocity, noisy * (step / 1000), noisy * (following / 1000))
    return latents


def commit_chunk(
    model: WorldModel, latents: Tensor, conditioning: Conditioning, state: RolloutState | None
) -> RolloutState:
    """Write a finished chunk into the memory: one pass over clean latents at timestep 0."""
    timesteps = torch.zeros(latents.shape[0], latents.shape[2], device=latents.device)
    return model.step(latents, timesteps, conditioning, state)[1]


def teacher_timesteps(num_steps: int = TEACHER_STEPS, shift: float = TEACHER_SHIFT) -> list[float]:
    """The released bidirectional schedule, without the final 0."""
    return shifted_timesteps(num_steps, shift)


def staircase(num_chunks: int, num_steps: int, interval: float | None = None) -> list[list[int]]:
    """List the step that every chunk is at, for each network call.

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
def sample_clip(
    model: WorldModel,
    noise: Tensor,
    first_latent: Tensor,
    conditioning: Conditioning,
    negative: Conditioning | None = None,
    *,
    mode: Mode,
    timesteps: Sequence[float] | None = None,
    guidance: float = TEACHER_GUIDANCE,
    interval: float | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Denoise a clip: all frames together, or chunk-causally, where later chunks start while earlier ones are under way.

    Every call runs the network once over all chunks that have begun, each at its own time, finished ones at 0; nothing is
    cached.

    Args:
        noise: Unit Gaussian, [B, C, T, H, W].
        first_latent: Clean latent of frame 0, [B, C, 1, H, W].
        negative: The same cameras with the negative prompt's text; needed where guidance is not 1.
        timesteps: Decreasing from at most 1000, without the final 0; default: the released 60 steps.
        guidance: velocity = negative + guidance * (text - negative).
        interval: Of chunks, as in `staircase`.

    Returns:
        Clean latents, [B, C, T, H, W].
    """
    schedule = check_timesteps(teacher_timesteps() if timesteps is None else timesteps)
    # Times stay exact whatever the latents' precision: bfloat16 cannot tell 998 from 1000.
    steps = torch.tensor([*schedule, 0.0, 0.0], device=noise.device, dtype=wide_dtype(noise.dtype))
    latents = torch.cat([first_latent.to(noise.dtype), noise[:, :, 1:]], dim=2)
    batch, frames = latents.shape[0], latents.shape[2]
    chunks = [(0, frames)] if mode == "bidirectional" else model.config.chunk_ranges(frames)
    calls = staircase(len(chunks), len(schedule), interval)
    for count, standing in enumerate(calls, start=1):
        stop = chunks[len(standing) - 1][1]
        lengths = torch.tensor([b - a for a, b in chunks[: len(standing)]], device=noise.device)
        at = torch.tensor(standing, device=noise.device).repeat_interleave(lengths)
        now, following = (steps[at + ahead].expand(batch, -1).clone() for ahead in (0, 1))
        now[:, 0] = following[:, 0] = 0
        seen = latents[:, :, :stop]
        velocity = _guided(model, seen, now, conditioning, negative, guidance, mode)
        moved = euler_step(seen, velocity, now / 1000, following / 1000).to(noise.dtype)
        latents = torch.cat([moved, latents[:, :, stop:]], dim=2)
        if progress is not None:
            progress(count, len(calls))
    return latents


def _guided(
    model: WorldModel,
    latents: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    negative: Conditioning | None,
    guidance: float,
    mode: Mode,
) -> Tensor:
    """Velocity of the first frames of a clip; with guidance, both texts go through the network as one batch."""
    if guidance == 1.0:
        return model(latents, timesteps, conditioning, mode=mode)
    if negative is None:
        raise ValueError("guidance needs the text of a negative prompt; give negative, or guidance 1")
    both = concatenate([negative, conditioning])
    velocity = model(torch.cat([latents, latents]), torch.cat([timesteps, timesteps]), both, mode=mode)
    unconditional, conditional = velocity.chunk(2)
    return unconditional + guidance * (conditional - unconditional)
