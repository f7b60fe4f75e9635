"""Noise levels of training samples: logit-normal, shifted, one for a whole clip or one for each chunk.

A level is an integer index in [0, 1000), 0 being clean; the network meets it as sigma = shift(index / 1000).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.attention.gdn import Chunks

NUM_LEVELS = 1000


@dataclass(frozen=True)
class ChunkMixture:
    """How a clip's chunks share noise: the chance of each rule, drawn for each sample. They must sum to 1."""

    same: float = 0.1
    """One level for all chunks."""
    incremental: float = 0.4
    """Levels that do not fall over the chunks, through a logit-normal one at a chunk drawn at random."""
    last_anchor: float = 0.4
    """The same, through a logit-normal one at the last chunk."""
    teacher_forcing: float = 0.1
    """The same as `last_anchor`, with some chunks at the front made clean: at least one, never all."""

    def __post_init__(self) -> None:
        if abs(sum(self.shares) - 1.0) > 1e-6 or min(self.shares) < 0:
            raise ValueError(f"the noise mixture has the shares {self.shares}; they must sum to 1")

    @property
    def shares(self) -> tuple[float, float, float, float]:
        return self.same, self.incremental, self.last_anchor, self.teacher_forcing


ONE_LEVEL = ChunkMixture(1.0, 0.0, 0.0, 0.0)
"""What clips are trained with whose frames all see one another."""


def shifted(index: NDArray[np.int64], shift: float) -> NDArray[np.float32]:
    """Turn level indices into sigmas: s u / (1 + (s - 1) u) with u = index / 1000."""
    share = index / NUM_LEVELS
    return (shift * share / (1.0 + (shift - 1.0) * share)).astype(np.float32)


def logit_normal_level(rng: np.random.Generator) -> int:
    """Draw a level: floor(1000 sigmoid(z)), z a unit normal."""
    return min(int(NUM_LEVELS / (1.0 + np.exp(-rng.normal()))), NUM_LEVELS - 1)


@cache
def log_completions(num_later: int, num_levels: int = NUM_LEVELS) -> NDArray[np.float64]:
    """Count, in logarithms, the ways `num_later` chunks can follow one at each level without falling, [num_levels].

    W_last = 1 and W_f(t) = sum over t' >= t of W_{f+1}(t').
    """
    if num_later == 0:
        return np.zeros(num_levels)
    following = log_completions(num_later - 1, num_levels)
    return np.logaddexp.accumulate(following[::-1])[::-1]


def monotone_levels(
    num_chunks: int, anchor: int, level: int, rng: np.random.Generator, num_levels: int = NUM_LEVELS
) -> NDArray[np.int64]:
    """Draw levels [num_chunks] that do not fall, each such sequence through `level` at chunk `anchor` being equally likely."""
    levels = np.full(num_chunks, level, np.int64)
    for chunk in range(anchor + 1, num_chunks):
        levels[chunk] = _next_level(levels[chunk - 1], num_chunks - 1 - chunk, rng, num_levels)
    # Backwards the same walk is met in a mirror: levels counted from the top do not fall either.
    for chunk in range(anchor - 1, -1, -1):
        mirrored = num_levels - 1 - levels[chunk + 1]
        levels[chunk] = num_levels - 1 - _next_level(mirrored, chunk, rng, num_levels)
    return levels


def _next_level(level: int, num_later: int, rng: np.random.Generator, num_levels: int) -> int:
    """Draw the next level, at least `level`, in proportion to the completions that begin there."""
    logs = log_completions(num_later, num_levels)[level:]
    weights = np.exp(logs - logs.max())
    return level + int(rng.choice(len(weights), p=weights / weights.sum()))


def chunk_levels(num_chunks: int, mixture: ChunkMixture, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one sample's levels, [num_chunks]."""
    rule = rng.choice(4, p=mixture.shares)
    level = logit_normal_level(rng)
    if rule == 0:
        return np.full(num_chunks, level, np.int64)
    anchor = int(rng.integers(num_chunks)) if rule == 1 else num_chunks - 1
    levels = monotone_levels(num_chunks, anchor, level, rng)
    if rule == 3 and num_chunks > 1:
        levels[: int(rng.integers(1, num_chunks))] = 0
    return levels


def frame_sigmas(
    chunks: Chunks, batch_size: int, mixture: ChunkMixture, shift: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw the sigma of every latent frame, [B, T]."""
    lengths = [stop - start for start, stop in chunks]
    levels = [np.repeat(chunk_levels(len(chunks), mixture, rng), lengths) for _ in range(batch_size)]
    return shifted(np.stack(levels), shift)


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mix latents [B, C, T, H, W] with noise at sigma [B, T]."""
    level = sigma[:, None, :, None, None]
    return (1.0 - level) * clean + level * noise
