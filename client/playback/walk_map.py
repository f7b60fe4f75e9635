"""The walk seen from above: where it went, which way it looks, and how many metres fit on a map of it.

Pure geometry in the world's ground plane: x to the right, z ahead, metres. Knows no window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_STEP_M = 0.05
"""A shorter step adds no point to the path."""
LONGEST_STEP_M = 2.0
"""A longer one is no step but a jump, from one branch of a walk to another: the path begins anew there."""
MAX_POINTS = 4096
"""Points kept; beyond them every second one is dropped, so that an hour's walk costs no more than a minute's."""
_SPANS_M = (4.0, 6.0, 10.0, 16.0, 25.0, 40.0, 60.0, 100.0, 160.0, 250.0, 400.0, 600.0, 1000.0)
_BARS_M = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)


@dataclass(frozen=True)
class MapView:
    """A square piece of the ground on a square of the unit size; (0, 0) is top left, ahead is up."""

    centre: tuple[float, float]
    """(x, z) of the middle, metres."""
    span_m: float
    """Length of a side."""

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points [N, 2] of the ground are on the map, [N, 2]."""
        x, z = self.centre
        return np.stack(
            ((points[:, 0] - x) / self.span_m + 0.5, 0.5 - (points[:, 1] - z) / self.span_m), axis=1
        )

    @property
    def bar_m(self) -> float:
        """A round length of about a quarter of the side, for the scale."""
        return max((bar for bar in _BARS_M if bar <= 0.3 * self.span_m), default=_BARS_M[0])


class WalkMap:
    """The path of a walk, as far as it was shown."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float, float]] = []
        self.heading_rad = 0.0
        """Which way the camera looks, right of ahead."""
        self._here = (0.0, 0.0)

    def add(self, frame_index: int, c2w: NDArray[np.float64]) -> None:
        """Go on to a frame's pose [4, 4]; an earlier frame takes back what came after it, and an other one its place."""
        while self._points and self._points[-1][0] >= frame_index:
            self._points.pop()
        x, z = float(c2w[0, 3]), float(c2w[2, 3])
        self._here = (x, z)
        self.heading_rad = math.atan2(c2w[0, 2], c2w[2, 2])
        if not self._points or math.dist(self._points[-1][1:], (x, z)) >= LEAST_STEP_M:
            self._points.append((frame_index, x, z))
        if len(self._points) > MAX_POINTS:
            self._points = [*self._points[:-1:2], self._points[-1]]

    @property
    def here(self) -> tuple[float, float]:
        """(x, z) of the pose that is on."""
        return self._here

    @property
    def pieces(self) -> list[NDArray[np.float64]]:
        """The path as lines, each [N, 2]; a jump lies between two of them."""
        points = self._path()
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        return np.split(points, np.flatnonzero(steps > self._longest_step()) + 1)

    def _path(self) -> NDArray[np.float64]:
        points = [point[1:] for point in self._points]
        if not points or points[-1] != self._here:
            points.append(self._here)
        return np.array(points)

    def _longest_step(self) -> float:
        # Thinned-out paths have longer steps that are still steps.
        return LONGEST_STEP_M if len(self._points) < MAX_POINTS // 2 else 4 * LONGEST_STEP_M

    @property
    def walked_m(self) -> float:
        """Length of the path."""
        return float(sum(np.linalg.norm(np.diff(piece, axis=0), axis=1).sum() for piece in self.pieces))

    def view(self) -> MapView:
        """Return the smallest round piece of the ground that has the whole path on it, with a rim."""
        points = self._path()
        low, high = points.min(axis=0), points.max(axis=0)
        needed_m = 1.3 * float((high - low).max())
        span_m = next((span for span in _SPANS_M if span >= needed_m), needed_m)
        x, z = (low + high) / 2
        return MapView((float(x), float(z)), span_m)
