"""The frames of a clip that one pass of the network holds, and what it must be told of the frames beside them.

A pass holds whole clips unless something else opens its timelines; who holds the other frames then is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.attention.gdn import Chunks, FrameUpdates


class Timeline:
    """All frames of a clip: nothing lies before or after them."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        """Ranges of the frames at hand that see one another in both directions."""

    @property
    def held(self) -> Sequence[int]:
        """Numbers of the frames at hand in the clip."""
        return range(self.chunks[-1][1])

    def cut(self, x: Tensor, dim: int, per_frame: int = 1) -> Tensor:
        """Take the frames at hand out of a whole clip's, `per_frame` entries of `dim` each."""
        return x

    def join(self, x: Tensor, dim: int) -> Tensor:
        """Put the whole clip together from the frames at hand; any number of entries of `dim` each."""
        return x

    def widen(self, x: Tensor, reach: int) -> tuple[Tensor, Chunks]:
        """Add `reach` frames on each side that has any to x [B, T, ...], and give the chunks of them all."""
        return x, self.chunks

    def narrow(self, x: Tensor, reach: int) -> Tensor:
        """Take off again what `widen` added."""
        return x

    def state_before(self, updates: FrameUpdates) -> Tensor | None:
        """What the frames before have written into a state, [B * h, D, E]; None where there are none."""
        return None

    def state_after(self, updates: FrameUpdates) -> Tensor | None:
        """What the frames after, of the same chunk, bring back to the last frame, [B * h, D, E]; None for nothing."""
        return None
