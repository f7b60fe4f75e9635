"""What a chunk sees of a spatial memory, and what else can be seen with the keyframes that were made ready for it.

Rendering a frame well takes longer than a display frame does. Where a picture only moves a little further than it was made
for, what it uncovers can be taken from those keyframes at once: one guess for each pixel, corrected in one keyframe after
the other until one of them shows what stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.camera.integrator import rotation_y
from engine.memory.blend import first_shown
from engine.memory.images import NEAREST, Array, Mask, filled_from_farthest, resized
from engine.memory.keyframes import Keyframe
from engine.memory.selection import coarse_depth
from engine.memory.sources import NOTHING, Pixels, Source, View
from engine.memory.warp import Link

GUESS_SCALE = 0.5
"""Resolution, over that of the view, at which points are rendered into cells for a first guess."""
AROUND_DEG, AROUND_SCALE = 40.0, 0.25
"""How far a camera is turned to either side, and with which resolution, to see whether the surroundings are known."""
NEARER, NEARER_BY = np.float32(1.3), np.float32(0.05)
"""Factor on an inverse depth, and inverse depth beyond that in 1/m, from which a guess may be of something in front of it."""
LEAST_SHARE = 0.9
"""Of a view that must be known for its depth to be told."""
FILL_SIZES = 3, 9, 33
"""Sides of the neighbourhoods, in pixels, that the depth of what is not known is taken from, one after another."""


@dataclass(frozen=True, eq=False)
class MemoryRendering:
    """What the frames of a chunk see of a spatial memory, F frames."""

    color: NDArray[np.uint8]
    """[F, H, W, 3], RGB; filled smoothly from around where nothing is known."""
    coverage: Array
    """[F, H, W], 1 where something is known, else 0."""
    inverse_depth: Array
    """[F, H, W], 1/m along the optical axis; filled like colour."""
    looked_into: Sequence[tuple[Keyframe, Source]] = ()
    """Keyframes that it was made from, the most useful first."""

    def surroundings(self, c2w: NDArray[np.float64], intrinsics: Array) -> Surroundings:
        """Return what can be seen around its last frame, whose camera is [4, 4] and [4]."""
        height, width = self.coverage.shape[1:]
        depth = np.where(self.coverage[-1] > 0, self.inverse_depth[-1], NOTHING)
        return Surroundings(self.color[-1], depth, View(c2w, intrinsics, width, height), self.looked_into)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A frame of a rendering and the keyframes it was made from; they show other views from close by too."""

    color: NDArray[np.uint8]
    """[H, W, 3], RGB."""
    inverse_depth: Array
    """[H, W], 1/m; NOTHING where nothing is known."""
    view: View
    """Of the frame."""
    looked_into: Sequence[tuple[Keyframe, Source]]

    @cached_property
    def _rendered(self) -> Source:
        """The frame, to be sampled as keyframes are."""
        return Source.of_picture(self.color, self.inverse_depth.copy(), self.view.c2w, self.view.intrinsics)

    @cached_property
    def _points(self) -> Array:
        """Points of all keyframes, [4, P]."""
        points = [keyframe.points for keyframe, _ in self.looked_into]
        return np.concatenate([np.empty((4, 0), np.float32), *points], 1)

    @cached_property
    def share_known(self) -> float:
        """Share of what the frame's camera would see, turned to the left and to the right, that is known."""
        width, height = (round(side * AROUND_SCALE) for side in (self.view.width, self.view.height))
        small = self.view.scaled(AROUND_SCALE, width, height)
        shares = []
        for angle in np.radians((-AROUND_DEG, AROUND_DEG)):
            c2w = small.c2w.copy()
            c2w[:3, :3] = c2w[:3, :3] @ rotation_y(angle)
            _, depth = self.look(replace(small, c2w=c2w), np.ones((height, width), np.bool_))
            shares.append(float((depth >= 0).mean()))
        return min(shares)

    def depth_of(self, view: View) -> Array | None:
        """Return the inverse depth of a view nearby, 1/m, [H, W], that of what is farthest around where nothing is known.

        None where less than LEAST_SHARE of the view is known.
        """
        _, depth = self.look(view, np.ones((view.height, view.width), np.bool_))
        if (depth >= 0).mean() < LEAST_SHARE:
            return None
        return filled_from_farthest(depth, FILL_SIZES)

    def look(
        self, view: View, where: Mask, nearer_than: Array | None = None
    ) -> tuple[NDArray[np.uint8], Array]:
        """Return what stands at some pixels of a view: the first that shows anything there is believed.

        Args:
            where: Pixels that are asked for, [H, W].
            nearer_than: Inverse depths, 1/m, [H, W]; what may stand well in front of them is asked for too.

        Returns:
            RGB and a fourth byte, [H, W, 4], and inverse depth, 1/m, [H, W], NOTHING where none shows anything.
        """
        color = np.zeros((view.height, view.width, 4), np.uint8)
        depth = np.full((view.height, view.width), NOTHING)
        guess = self._guess(view)
        if nearer_than is not None:
            where = where | (guess > NEARER * nearer_than + NEARER_BY)
        asked = np.flatnonzero(where)
        if not len(asked):
            return color, depth
        pixels = Pixels.of_view(view).among(asked)
        sources = self._rendered, *(source for _, source in self.looked_into)
        links = [Link(view, source, pixels) for source in sources]
        found, inverse_depth = first_shown(links, pixels.take(guess))
        pixels.put(color, found)
        pixels.put(depth, inverse_depth)
        return color, depth

    def _guess(self, view: View) -> Array:
        """Inverse depths to search from, [H, W]."""
        small = view.scaled(GUESS_SCALE, view.width // 2, view.height // 2)
        coarse = coarse_depth(small, [self._points])
        return resized(coarse.looked_for, (view.width, view.height), NEAREST)
