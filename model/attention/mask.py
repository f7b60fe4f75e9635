"""How a clip is cut into chunks, and which frames a softmax block may see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from model.attention.gdn import Chunks
from model.config import ModelConfig


def chunk_ranges(config: ModelConfig, num_frames: int, starts: bool) -> list[tuple[int, int]]:
    """Cut frames into chunks; a short remainder joins the last one.

    Args:
        starts: Whether the first chunk is the conditioning one, of `first_chunk_size`.
    """
    first = config.first_chunk_size if starts else config.chunk_size
    borders = [0, *range(first, num_frames, config.chunk_size)]
    if len(borders) > 1 and num_frames - borders[-1] < min(config.chunk_size, first):
        borders.pop()
    return list(zip(borders, [*borders[1:], num_frames], strict=True))


def _ordinal(config: ModelConfig, frames: Tensor) -> Tensor:
    """Chunk that holds each frame, counted from the conditioning chunk; frames before the first stay negative."""
    return torch.where(
        frames < config.first_chunk_size,
        torch.where(frames < 0, -1.0, 0.0),
        1 + torch.div(frames - config.first_chunk_size, config.chunk_size, rounding_mode="floor"),
    )


Reaches = list[tuple[int, int, int]]
"""Runs of a clip's frames, half-open, each with how many frames of the clip it sees, counted from the first."""


def clip_reaches(chunks: Chunks, held: Sequence[int]) -> Reaches:
    """Say how far frames of a whole clip see: their own chunk and the ones before.

    No mask is built, which for a minute would be a number for each of 106 480 x 106 480 pairs of tokens.

    Args:
        held: The frames at hand, by their numbers in the clip, rising.
    """
    seen = [stop for start, stop in chunks for _ in range(start, stop)]
    runs: Reaches = []
    for reach, run in groupby(seen[frame] for frame in held):
        start = runs[-1][1] if runs else 0
        runs.append((start, start + len(list(run)), reach))
    return runs


def attention_mask(
    config: ModelConfig, chunks: Chunks, committed: Tensor | None, device: torch.device
) -> Tensor | None:
    """Build the additive mask of softmax blocks in windows and streaming, where the sink and the recent chunks are visible.

    Args:
        committed: Latent frames that the state has seen, [B] float32; None where there is no state.

    Returns:
        [B or 1, 1, T * S or 1, keys * S] float32 over [sink, window, current] tokens; None where everything is visible.
    """
    if committed is None and len(chunks) == 1:
        return None
    order = [float(index) for index, (start, stop) in enumerate(chunks) for _ in range(start, stop)]
    own = torch.tensor([order], device=device)
    keys = own
    if committed is not None:
        frames = committed[:, None]
        own = own + _ordinal(config, frames)
        slots = torch.arange(-config.window_frames, 0, device=device, dtype=torch.float32)
        recent = _ordinal(config, frames + slots)
        if config.sink:
            recent = torch.where(recent == 0, -1.0, recent)
            sink = torch.where(frames > 0, 0.0, -1.0).expand(-1, config.sink_frames)
            recent = torch.cat([sink, recent], dim=1)
        keys = torch.cat([recent, own], dim=1)
    queries = own[:, :1] if len(chunks) == 1 else own
    visible = (keys[:, None] >= 0) & (keys[:, None] <= queries[..., None])
    reach = config.num_cached_chunks - 1 if config.sink else config.num_cached_chunks
    near = keys[:, None] >= queries[..., None] - reach
    visible = visible & (near | (keys[:, None] == 0) if config.sink else near)
    mask = torch.where(visible, 0.0, float("-inf"))
    tokens = config.tokens_per_frame
    mask = mask.unsqueeze(-1).expand(*mask.shape, tokens).flatten(-2)
    if len(chunks) > 1:
        mask = mask.unsqueeze(-2).expand(*mask.shape[:-1], tokens, -1).flatten(-3, -2)
    return mask[:, None]
