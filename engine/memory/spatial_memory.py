"""The spatial memory of a rollout: the keyframes of its world, and those that the walk adds.

It only ever grows: a frame is fused where nothing was known, and seen by a chunk that is made when it surely was decoded: two
chunks later, or as many as are under way at once. So nothing depends on which was faster. Going back is forgetting the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import Grown, Keyframe
from engine.memory.renderer import MemoryRenderer
from engine.memory.rendering import MemoryRendering

GROWTH_DELAY = 2
"""Chunks between the one whose frame is fused and the first that sees it, where one is decoded while the next is denoised."""
LEAST_UNKNOWN = 0.04
"""Share of a frame that must be unknown for the frame to be fused."""
MAX_GROWN = 160
"""Keyframes that a walk adds at most; each takes 0.4 MB at 320x192."""
OVERLAP_PX = 2
"""How far a fused frame reaches over the border of what was known, so that no gap is left."""


class SpatialMemory:
    """Renders what is known for each chunk, and takes in what was generated."""

    def __init__(self, keyframes: Sequence[Keyframe], delay: int = GROWTH_DELAY) -> None:
        """Begin with the keyframes of a world.

        Args:
            delay: Chunks between the one whose frame is fused and the first that sees it: as many as may be under way at once.
        """
        self._delay = delay
        self._renderer = MemoryRenderer(keyframes)
        self._num_given = len(keyframes)
        self._grown: tuple[Grown, ...] = ()

    @property
    def grown(self) -> tuple[Grown, ...]:
        """What the walk added so far; a value that later growth does not change."""
        return self._grown

    @property
    def keyframes(self) -> list[Keyframe]:
        """All keyframes, the world's first."""
        return list(self._renderer.keyframes)

    def restore(self, grown: Sequence[Grown]) -> None:
        """Go back, or on, to what a walk had added at some time."""
        self._renderer.truncate(self._num_given)
        self._grown = tuple(grown)
        for entry in self._grown:
            self._renderer.add(entry.keyframe)

    def render(
        self,
        chunk_index: int,
        c2w: NDArray[np.float64],
        intrinsics: NDArray[np.float32],
        width: int,
        height: int,
    ) -> MemoryRendering:
        """Render the frames of a chunk from what may be known when it is made; see `MemoryRenderer.render`."""
        seen = sum(entry.chunk_index <= chunk_index - self._delay for entry in self._grown)
        return self._renderer.render(c2w, intrinsics, width, height, self._num_given + seen)

    def grow(
        self,
        chunk_index: int,
        frame: NDArray[np.uint8],
        inverse_depth: NDArray[np.float32],
        coverage: NDArray[np.float32],
        c2w: NDArray[np.float64],
        intrinsics: NDArray[np.float32],
    ) -> None:
        """Fuse a generated frame where nothing was known.

        Args:
            frame: [H, W, 3], RGB.
            inverse_depth: [H, W], 1/m.
            coverage: What the memory's rendering covered of it, [H, W].
            c2w: Pose of the frame, [4, 4].
        """
        unknown = (coverage < 0.5).astype(np.uint8)
        if unknown.mean() < LEAST_UNKNOWN or len(self._grown) >= MAX_GROWN:
            return
        # Slivers beside silhouettes are gaps in the rendering, not in what is known.
        unknown = cv2.morphologyEx(unknown, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        if unknown.mean() < LEAST_UNKNOWN:
            return
        side = 2 * OVERLAP_PX + 1
        fused = cv2.dilate(unknown, np.ones((side, side), np.uint8)) > 0
        depth = np.where(fused, np.maximum(inverse_depth, 0.0), np.float32(-1.0))
        entry = Grown(chunk_index, Keyframe.of(frame.copy(), depth, c2w, intrinsics))
        self._grown = (*self._grown, entry)
        self._renderer.add(entry.keyframe)
