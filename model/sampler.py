"""Flow-matching schedules, and the two calls of streaming: denoise a chunk (reads the state), commit it (writes).

x_sigma = (1 - sigma) x0 + sigma eps, velocity = eps - x0, timestep = 1000 sigma. Sampling is a deterministic Euler
walk; no noise is added between steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from model.rollout import RolloutState
from model.transformer import WorldModel

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
