"""The arithmetic of one chunk that is the same for every backend: noise, schedule and camera windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_SEED = (1 << 63) - 1
_REFINER_BIT = 1 << 63
"""Tells the refiner's noise from the generator's; no chunk index reaches it."""


def chunk_noise(seed: int, chunk_index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the standard normal noise of a chunk, float32; it depends on the seed and the index alone."""
    key = np.array([seed, chunk_index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, np.float32)


def refiner_noise(seed: int, chunk_index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the refiner's noise for a chunk, as `chunk_noise` does and independent of it."""
    return chunk_noise(seed, chunk_index | _REFINER_BIT, shape)


def denoise_chunk(
    velocity_of: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]],
    noise: NDArray[np.float32],
    timesteps: Sequence[float],
    clean_first: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Walk the noise down the schedule by Euler steps; nothing random happens on the way.

    Args:
        velocity_of: Maps latents [1, C, T, H, W] and timesteps [1, T] to velocity, noise minus clean latents.
        noise: [1, C, T, H, W].
        timesteps: Decreasing, in (0, 1000]; sigma is a thousandth of it, and the last step goes to 0.
        clean_first: The world's own latent [C, H, W] where the chunk begins with it; it stays as it is.

    Returns:
        Clean latents, [1, C, T, H, W].
    """
    latents = noise.copy()
    levels = np.empty((1, noise.shape[2]), np.float32)
    if clean_first is not None:
        latents[0, :, 0] = clean_first
    for timestep, next_timestep in zip(timesteps, (*timesteps[1:], 0.0), strict=True):
        levels[:] = timestep
        if clean_first is not None:
            levels[0, 0] = 0
        velocity = velocity_of(latents, levels)
        latents -= np.float32((timestep - next_timestep) / 1000) * velocity
        if clean_first is not None:
            latents[0, :, 0] = clean_first
    return latents


def shorter_schedule(timesteps: Sequence[float], num_steps: int | None) -> tuple[float, ...]:
    """Return `num_steps` of a schedule's timesteps, evenly spread and the first among them; all of them for None.

    A few-step model knows the timesteps it was distilled at and no others, so none is made up.
    """
    count = len(timesteps)
    if num_steps is None:
        return tuple(timesteps)
    assert 1 <= num_steps <= count, f"{num_steps} of {count} steps"
    return tuple(timesteps[(2 * i * count + num_steps) // (2 * num_steps)] for i in range(num_steps))


def window_frames(start_frame: int, num_latent_frames: int, temporal_stride: int) -> NDArray[np.int64]:
    """Return the video frames whose cameras a chunk is conditioned on, [T * r].

    Latent frame k sees the r frames that end in its own, r k. Latent frame 0 sees the first r frames instead,
    or frame 0 alone, repeated, where the chunk ends there.
    """
    latent = np.arange(start_frame, start_frame + num_latent_frames)[:, None]
    first = np.maximum(0, temporal_stride * latent - (temporal_stride - 1))
    last_frame = temporal_stride * (start_frame + num_latent_frames - 1)
    return np.minimum(first + np.arange(temporal_stride), last_frame).ravel()
