"""Whether the film may rest: what was asked for is answered, the camera has stood for a while, nothing moves by itself.

Pure; knows no clock: standing is counted in seconds of video.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

REST_AFTER_S = 4.0
"""So long after the camera came to rest the picture has settled."""
STANDING_M = 1e-3
STANDING_RAD = 2e-4
"""A camera that moves less than this within a chunk stands."""


class Rest:
    """Counts how long the camera has stood."""

    def __init__(self, animated: bool) -> None:
        """Judge a world; where things move by themselves the film never rests."""
        self._animated = animated
        self.begin()

    def begin(self) -> None:
        """Forget the camera: it is elsewhere now."""
        self._stood_s = 0.0
        self._c2w: NDArray[np.float64] | None = None
        self._asked_s = self._answered_s = -math.inf

    def ask(self, posted_s: float) -> None:
        """Note that something was asked for; every chunk knows it whose `latched_s` is no earlier."""
        self._asked_s = posted_s

    def note(self, c2w: NDArray[np.float64], duration_s: float, latched_s: float) -> None:
        """Note the poses of the next chunk, [F, 4, 4], its length, and when its input was latched."""
        self._answered_s = latched_s
        before = c2w[0] if self._c2w is None else self._c2w
        self._c2w = c2w[-1]
        self._stood_s = self._stood_s + duration_s if stands(np.concatenate([before[None], c2w])) else 0.0

    @property
    def may_begin(self) -> bool:
        """Whether no chunk is needed until something is asked for."""
        answered = self._answered_s >= self._asked_s
        return answered and not self._animated and self._stood_s >= REST_AFTER_S


def stands(c2w: NDArray[np.float64]) -> bool:
    """Whether a camera stays where it is through poses [F, 4, 4]."""
    moved_m = np.linalg.norm(c2w[:, :3, 3] - c2w[0, :3, 3], axis=-1).max()
    # Entries of two rotation matrices differ by no more than the angle between them.
    turned_rad = np.abs(c2w[:, :3, :3] - c2w[0, :3, :3]).max()
    return bool(moved_m <= STANDING_M and turned_rad <= STANDING_RAD)
