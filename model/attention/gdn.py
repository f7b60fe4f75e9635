"""The frame-wise gated delta rule in matrix form: one joint update of the state per latent frame.

Frames are updated as Z_t = g_t (I - A_t) Z_{t-1} + U_t with A_t = sum_s b_s k_s k_s^T and U_t = sum_s b_s k_s v_s^T over
the S tokens of frame t, so the serial part touches only T matrices of D x E. States are laid out key x value. All of
it is at least float32, also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Chunks = Sequence[tuple[int, int]]
"""Half-open ranges of frames that see one another in both directions; they cover 0..T in order."""


@dataclass(frozen=True)
class FrameUpdates:
    """What each frame does to a state, Z -> g (I - A) Z + U; batch and heads share the first axis."""

    gains: Sequence[Tensor]
    """g, each [B * h, 1, 1]."""
    erasures: Sequence[Tensor]
    """A, each [B * h, D, D]."""
    updates: Sequence[Tensor]
    """U, each [B * h, D, E]."""

    def advance(self, state: Tensor, index: int) -> Tensor:
        """Carry a state [B * h, D, E] through one frame."""
        kept = self.gains[index] * state
        return torch.baddbmm(self.updates[index] + kept, self.erasures[index], kept, alpha=-1)

    def composite(self, frames: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Fold frames, in the order given, into one update Z -> F Z + V.

        Returns:
            F, [B * h, D, D], and V, [B * h, D, E].
        """
        factor: Tensor | None = None
        term: Tensor | None = None
        for index in frames:
            term = self.updates[index] if term is None else self.advance(term, index)
            gain, erasure = self.gains[index], self.erasures[index]
            if factor is None:
                factor = torch.eye(erasure.shape[-1], dtype=erasure.dtype, device=erasure.device) - erasure
                factor = gain * factor
            else:
                kept = gain * factor
                factor = torch.baddbmm(kept, erasure, kept, alpha=-1)
        assert factor is not None
        assert term is not None
        return factor, term


BorderStates = tuple[Tensor | None, Tensor | None]
"""State before the first frame, and what later frames of the last frame's chunk bring back to it; None for zero."""
Borders = Callable[[FrameUpdates], BorderStates]
"""Gets the states at the borders of these frames, where a clip is sharded."""


def delta_rule(
    key: Tensor,
    value: Tensor | None,
    beta: Tensor,
    decay: Tensor,
    chunks: Chunks,
    initial: Tensor | None,
    write_limit: float = 0.0,
    erases: bool = True,
    borders: Borders | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan forward through all frames and backward within each chunk, and add the two states.

    The forward scan includes the frame itself; the backward scan of a frame starts at the end of its chunk and
    excludes the frame.

    Args:
        key: [B, T, h, S, D].
        value: [B, T, h, S, E]; None stands for ones with E = 1 (the normaliser).
        beta: Write strength of each token, [B, T, h, S].
        decay: Of each frame, [B, T, h].
        initial: State before the first frame, [B, h, D, E]; None for zero.
        write_limit: Greatest trace of a frame's A_t, to which write strengths are lowered; 0 for none.
        erases: Whether what a frame's keys already hold is taken away before it is written anew; where not, states are
            sums.
        borders: For frames that are a part of a clip; `initial` is None then.

    Returns:
        The state each frame reads, [B, T, h, D, E], and the forward state after the last frame, [B, h, D, E].
    """
    batch, frames, heads = key.shape[:3]
    if write_limit and erases:
        trace = (beta * key.square().sum(-1)).sum(-1, keepdim=True)
        beta = beta * (write_limit / trace.clamp_min(write_limit))
    written = key * beta[..., None]
    erase = written.transpose(-1, -2) @ key
    if not erases:
        erase = torch.zeros_like(erase)
    update = written.sum(-2).unsqueeze(-1) if value is None else written.transpose(-1, -2) @ value
    per_frame = (decay[..., None, None], erase, update)
    steps = FrameUpdates(*([step.flatten(0, 1) for step in tensor.unbind(1)] for tensor in per_frame))
    before, after = (None, None) if borders is None else borders(steps)
    if initial is not None:
        before = initial.flatten(0, 1)
    state = steps.updates[0] if before is None else steps.advance(before, 0)
    states = [state]
    for index in range(1, frames):
        state = steps.advance(state, index)
        states.append(state)
    for start, stop in chunks:
        later = after if stop == frames else None
        if later is not None:
            states[stop - 1] = states[stop - 1] + later
        for index in range(stop - 2, start - 1, -1):
            later = steps.updates[index + 1] if later is None else steps.advance(later, index + 1)
            states[index] = states[index] + later
    read = torch.stack([step.unflatten(0, (batch, heads)) for step in states], dim=1)
    return read, state.unflatten(0, (batch, heads))


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
    write_limit: float = 0.0,
    erases: bool = True,
    borders: Borders | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Read values through the delta-rule state, divided by the normaliser's read-out.

    Args:
        query, key: Non-negative, before rotation, for the normaliser, [B, T, h, S, D].
        rotated_query, rotated_key, value: For the numerator, [B, T, h, S, D].
        beta: [B, T, h, S]. decay: [B, T, h].
        initial: Numerator [B, h, D, D] and normaliser [B, h, D] before the first frame.
        write_limit, erases, borders: As in `delta_rule`.

    Returns:
        Output [B, T, h, S, D] and the two states after the last frame.
    """
    before, norm_before = (None, None) if initial is None else (initial[0], initial[1].unsqueeze(-1))
    state, last = delta_rule(rotated_key, value, beta, decay, chunks, before, write_limit, erases, borders)
    norm, norm_last = delta_rule(key, None, beta, decay, chunks, norm_before, write_limit, erases, borders)
    output = (rotated_query @ state) / (query @ norm + 1e-8)
    return output, (last, norm_last.squeeze(-1))
