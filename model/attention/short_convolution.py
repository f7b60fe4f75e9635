"""The short convolution over time that keys go through."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.attention.gdn import Chunks
from model.precision import in_place, own


def short_convolution(
    x: Tensor, weight: Tensor, chunks: Chunks, history: Tensor | None, across: bool
) -> Tensor:
    """Filter along time: causal taps, plus their mirror image within each chunk, the centre tap once.

    Args:
        x: [B, T, S, C].
        weight: [C, 1, K]; the last tap is the current frame.
        history: The K - 1 frames before x, [B, K - 1, S, C]; None for zeros.
        across: Whether causal taps reach over chunk borders.
    """
    taps = weight[:, 0].to(x.dtype).unbind(-1)
    reach = len(taps) - 1
    if in_place(x, weight):
        return _in_place(x, taps, chunks, history, across)
    output = x * taps[-1]
    if across:
        if history is not None:
            padded = torch.cat([history.to(x.dtype), x], dim=1)
            for lag in range(1, reach + 1):
                output = torch.addcmul(
                    output, padded[:, reach - lag : reach - lag + x.shape[1]], taps[reach - lag]
                )
        else:
            output = _add_lagged(output, x, taps, (0, x.shape[1]), forward=True)
    for chunk in chunks:
        if chunk[1] - chunk[0] > 1:
            if not across:
                output = _add_lagged(output, x, taps, chunk, forward=True)
            output = _add_lagged(output, x, taps, chunk, forward=False)
    return output


def _in_place(
    x: Tensor, taps: tuple[Tensor, ...], chunks: Chunks, history: Tensor | None, across: bool
) -> Tensor:
    """Do the same frame by frame, adding in place."""
    output, reach = x * taps[-1], len(taps) - 1
    past = None if history is None else history.to(x.dtype)
    for start, stop in chunks:
        for frame in range(start, stop):
            for lag in range(1, reach + 1):
                tap, before, after = taps[reach - lag], frame - lag, frame + lag
                if before >= (0 if across else start):
                    output[:, frame].addcmul_(x[:, before], tap)
                elif across and past is not None:
                    output[:, frame].addcmul_(past[:, before], tap)
                if after < stop:
                    output[:, frame].addcmul_(x[:, after], tap)
    return output


def _add_lagged(
    output: Tensor, x: Tensor, taps: tuple[Tensor, ...], chunk: tuple[int, int], forward: bool
) -> Tensor:
    start, stop = chunk
    part = x[:, start:stop]
    total = torch.zeros_like(part)
    for lag in range(1, min(len(taps), stop - start)):
        tap = taps[len(taps) - 1 - lag]
        moved = part[:, : stop - start - lag] if forward else part[:, lag:]
        pad = (0, 0, 0, 0, lag, 0) if forward else (0, 0, 0, 0, 0, lag)
        total = total + functional.pad(moved * tap, pad)
    return torch.cat([output[:, :start], output[:, start:stop] + total, output[:, stop:]], dim=1)


def last_frames(x: Tensor, history: Tensor) -> Tensor:
    """Take the last frames of history [B, count, S, C] and x [B, T, S, C] together, in the history's precision."""
    count = history.shape[1]
    frames = own(x[:, -count:]).to(history.dtype)
    missing = count - frames.shape[1]
    return torch.cat([history[:, -missing:], frames], dim=1) if missing > 0 else frames
