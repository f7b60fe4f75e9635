"""Which latent frames a softmax block attends to: in a whole clip, and within the sink and window of a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from model.attention.gdn import Chunks
from model.config import ModelConfig

PrefixMask = list[tuple[int, int, int]]
"""Block-causal mask as runs of frames, half-open, each with how many frames of the clip it attends to, from the first on."""


def prefix_mask(chunks: Chunks, frames: Sequence[int]) -> PrefixMask:
    """Let frames of a whole clip attend to their own chunk and all before.

    A dense mask of a minute would be 106 480 x 106 480 numbers.

    Args:
        frames: The held frames, by their numbers in the clip, rising.
    """
    visible = [stop for start, stop in chunks for _ in range(start, stop)]
    runs: PrefixMask = []
    for prefix, run in groupby(visible[frame] for frame in frames):
        start = runs[-1][1] if runs else 0
        runs.append((start, start + len(list(run)), prefix))
    return runs


def streaming_mask(config: ModelConfig, chunks: Chunks, device: torch.device) -> Tensor | None:
    """Let every frame of a clip attend to what it would see in a rollout: the sink, the recent chunks and its own.

    Returns:
        Additive, [1, 1, T * S, T * S] float32; None where everything is visible.
    """
    if len(chunks) == 1:
        return None
    order = [float(index) for index, (start, stop) in enumerate(chunks) for _ in range(start, stop)]
    chunk = torch.tensor([order], device=device)
    mask = _additive(config, chunk, chunk)
    tokens = config.tokens_per_frame
    return mask.unsqueeze(-2).expand(*mask.shape[:-1], tokens, -1).flatten(-3, -2)[:, None]


def step_mask(config: ModelConfig, committed: Tensor, num_frames: int) -> Tensor:
    """Hide those cached keys of one chunk's step that are still empty, or older than the rollout's memory.

    Args:
        committed: Latent frames that the state has seen, [B] float32.

    Returns:
        Additive, [B, 1, 1, keys * S] float32 over [sink, window, current] tokens.
    """
    frames = committed[:, None]
    own = torch.zeros(1, num_frames, device=committed.device) + _chunk_index(config, frames)
    slots = torch.arange(-config.window_frames, 0, device=committed.device, dtype=torch.float32)
    recent = _chunk_index(config, frames + slots)
    if config.sink:
        recent = torch.where(recent == 0, -1.0, recent)
        sink = torch.where(frames > 0, 0.0, -1.0).expand(-1, config.sink_frames)
        recent = torch.cat([sink, recent], dim=1)
    return _additive(config, own[:, :1], torch.cat([recent, own], dim=1))[:, None]


def _chunk_index(config: ModelConfig, frames: Tensor) -> Tensor:
    """Chunk that holds each frame, counted from the conditioning chunk; frames before the first stay negative."""
    return torch.where(
        frames < config.first_chunk_size,
        torch.where(frames < 0, -1.0, 0.0),
        1 + torch.div(frames - config.first_chunk_size, config.chunk_size, rounding_mode="floor"),
    )


def _additive(config: ModelConfig, queries: Tensor, keys: Tensor) -> Tensor:
    """Build the mask [B, Q, K * S] between frames of chunks `queries` [B, Q] and `keys` [B, K]; -1 is no chunk."""
    visible = (keys[:, None] >= 0) & (keys[:, None] <= queries[..., None])
    reach = config.num_cached_chunks - 1 if config.sink else config.num_cached_chunks
    near = keys[:, None] >= queries[..., None] - reach
    visible = visible & (near | (keys[:, None] == 0) if config.sink else near)
    mask = torch.where(visible, 0.0, float("-inf"))
    return mask.unsqueeze(-1).expand(*mask.shape, config.tokens_per_frame).flatten(-2)
