"""Slow double-precision twins of `model.attention.gdn`, written straight from the definitions, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from model.attention.gdn import Chunks


def delta_rule(
    key: Tensor, value: Tensor | None, beta: Tensor, decay: Tensor, chunks: Chunks, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Do what `model.attention.gdn.delta_rule` does, one token at a time in float64."""
    batch, frames, heads, tokens, width = key.shape
    key, beta, decay = key.double(), beta.double(), decay.double()
    value = key.new_ones(batch, frames, heads, tokens, 1) if value is None else value.double()
    read = key.new_zeros(batch, frames, heads, width, value.shape[-1])
    last = key.new_zeros(batch, heads, width, value.shape[-1])
    for b in range(batch):
        for h in range(heads):
            cells = key[b, :, h], value[b, :, h], beta[b, :, h], decay[b, :, h]
            state = torch.zeros_like(last[b, h]) if initial is None else initial[b, h].double()
            for t in range(frames):
                state = _joint_update(state, *(cell[t] for cell in cells))
                read[b, t, h] += state
            last[b, h] = state
            for start, stop in chunks:
                state = torch.zeros_like(state)
                for t in range(stop - 2, start - 1, -1):
                    state = _joint_update(state, *(cell[t + 1] for cell in cells))
                    read[b, t, h] += state
    return read, last


def _joint_update(state: Tensor, key: Tensor, value: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    """Apply one frame's delta-rule step; every token predicts from the same decayed state."""
    kept = decay * state
    after = kept.clone()
    for k, v, b in zip(key, value, beta, strict=True):
        after += b * torch.outer(k, v - k @ kept)
    return after


def frame_attention(
    query: Tensor,
    key: Tensor,
    rotated_query: Tensor,
    rotated_key: Tensor,
    value: Tensor,
    beta: Tensor,
    decay: Tensor,
    chunks: Chunks,
    initial: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Do what `model.attention.gdn.frame_attention` does, in float64."""
    before, norm_before = (None, None) if initial is None else (initial[0], initial[1][..., None])
    state, last = delta_rule(rotated_key, value, beta, decay, chunks, before)
    norm, norm_last = delta_rule(key, None, beta, decay, chunks, norm_before)
    output = torch.empty_like(value, dtype=torch.float64)
    for t in range(query.shape[1]):
        for s in range(query.shape[3]):
            numerator = (rotated_query[:, t, :, s, None].double() @ state[:, t]).squeeze(-2)
            denominator = (query[:, t, :, s, None].double() @ norm[:, t]).squeeze(-2)
            output[:, t, :, s] = numerator / (denominator + 1e-8)
    return output, (last, norm_last[..., 0])
