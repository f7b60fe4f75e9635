"""The interface of what recovers cameras from frames, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Poses = NDArray[np.float64]


class PosesRefused(ValueError):
    """Frames whose cameras cannot be recovered, or not be trusted; the message says why in one sentence."""


@dataclass(frozen=True, eq=False)
class CameraEstimate:
    """The cameras of all frames of a clip."""

    c2w: Poses
    """Camera-to-world, OpenCV axes, [F, 4, 4]; the unit is any length."""
    intrinsics: NDArray[np.float64]
    """fx, fy, cx, cy in pixels of the frames, [F, 4]."""
    method: str
    """Which solution was taken."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """What the estimate was judged by."""
    problem: str = ""
    """Why it is not to be trusted, in a few words; empty where it is."""
    is_metric: bool = False
    """Whether the estimator takes its unit to be the metre."""
    depths: Mapping[int, NDArray[np.float32]] | None = field(default=None, repr=False)
    """Depth along the optical axis in the poses' unit by number of the frame, [h, w], not a number where it is not believed."""
    points: NDArray[np.float64] | None = field(default=None, repr=False)
    """Points that frames see: number of the frame, column and row in pixels, depth in the poses' unit, [N, 4]."""


class PoseEstimator(Protocol):
    """Recovers cameras from frames."""

    @property
    def name(self) -> str: ...

    def estimate(self, frames: Frames, fps: float, lens: NDArray[np.float64] | None = None) -> CameraEstimate:
        """Recover the camera of every frame.

        Args:
            frames: RGB, [F, H, W, 3], of one shot.
            lens: fx, fy, cx, cy in pixels, [4], where they are known.

        Raises:
            PosesRefused: There is no solution at all.
        """
        ...
