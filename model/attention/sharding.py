"""The latent frames of a clip that one pass holds, and what it needs of the frames beside them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.attention.gdn import BorderStates, Chunks, FrameUpdates


class FrameShard:
    """All frames of a clip; subclasses hold some of them and communicate with the holders of the others."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        """Ranges of the held frames that see one another in both directions."""

    @property
    def frames(self) -> Sequence[int]:
        """Numbers of the held frames in the clip."""
        return range(self.chunks[-1][1])

    def shard(self, x: Tensor, dim: int, per_frame: int = 1) -> Tensor:
        """Take the held frames of a whole clip, `per_frame` entries of `dim` each."""
        return x

    def all_gather(self, x: Tensor, dim: int) -> Tensor:
        """Put the whole clip together from the held frames; any number of entries of `dim` each."""
        return x

    def add_halo(self, x: Tensor, reach: int) -> tuple[Tensor, Chunks]:
        """Add `reach` frames on each side that has any to x [B, T, ...], and give the chunks of them all."""
        return x, self.chunks

    def drop_halo(self, x: Tensor, reach: int) -> Tensor:
        """Remove what `add_halo` added."""
        return x

    def border_states(self, updates: FrameUpdates) -> BorderStates:
        """Delta-rule states [B * h, D, E] at the first and last held frame, from the frames before and after."""
        return None, None
