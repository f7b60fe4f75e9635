"""How long the unit of recovered poses is: from metric depth by the paper's closed form, or from what is known of the camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.poses.alignment import path_length
from evaluation.poses.estimator import CameraEstimate, Frames

Depths = NDArray[np.float32]

FIT_SIDE = 64
"""Depths are compared on so many rows and columns, by nearest neighbours."""
LEAST_POINTS = 200
"""Of a frame; with fewer it has no scale."""
WINDOW, OVERLAP = 64, 16
"""Frames whose scales a median is taken of, and by how many such windows overlap."""
MOMENTUM = 0.99
"""Of the moving average over windows."""
LEAST_SCALE, GREATEST_SCALE = 0.1, 10.0


class Scale(Protocol):
    """Says how long the unit of poses is."""

    name: str

    def factor(self, found: CameraEstimate, frames: Frames, fps: float) -> tuple[float, dict[str, float]]:
        """Return metres per unit, and what that was judged by."""
        ...


@dataclass(frozen=True)
class KnownSpeed:
    """The camera goes at a known mean speed, such as a walker's."""

    metres_per_s: float = 1.0
    name: str = "speed"

    def factor(self, found: CameraEstimate, frames: Frames, fps: float) -> tuple[float, dict[str, float]]:
        length = path_length(found.c2w)
        return self.metres_per_s * (len(found.c2w) - 1) / fps / max(length, 1e-9), {}


def frame_scale(depth: Depths, metric: Depths, mask: NDArray[np.bool_] | None = None) -> float | None:
    """The factor that makes a depth map metric: least squares of s d - m, weighted by 1 / m.

    Args:
        depth: In any unit, [H, W].
        metric: Metres, [H, W].
        mask: Where both are to be believed, [H, W]; everywhere without one.

    Returns:
        None where fewer than LEAST_POINTS can be compared.
    """
    size = FIT_SIDE, FIT_SIDE
    ours, metres = (cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in (depth, metric))
    good = np.isfinite(ours) & np.isfinite(metres) & (ours > 0) & (metres > 0)
    if mask is not None:
        good &= cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if good.sum() < LEAST_POINTS:
        return None
    ours, metres = ours[good].astype(np.float64), metres[good].astype(np.float64)
    weights = 1.0 / metres
    return float((weights * ours * metres).sum() / (weights * ours**2).sum())


def smooth_scales(scales: Sequence[float | None]) -> NDArray[np.float64]:
    """One scale per frame from those of frames: medians of windows, a moving average over windows, clamped, [F].

    Raises:
        ValueError: No frame has a scale.
    """
    values = np.array([np.nan if scale is None else scale for scale in scales])
    if not np.isfinite(values).any():
        raise ValueError("no frame has enough points whose metric depth is known; give the speed instead")
    smoothed = np.zeros(len(values))
    running: float | None = None
    for start, stop in _windows(len(values)):
        inside = values[start:stop]
        if np.isfinite(inside).any():
            median = float(np.nanmedian(inside))
            running = median if running is None else MOMENTUM * running + (1.0 - MOMENTUM) * median
        smoothed[start:stop] = np.nan if running is None else running
    first = int(np.flatnonzero(np.isfinite(smoothed))[0])
    smoothed[:first] = smoothed[first]
    return np.clip(smoothed, LEAST_SCALE, GREATEST_SCALE)


def scale_variation(scales: Sequence[float | None]) -> float:
    """Standard deviation of the frames' scales over their mean."""
    values = np.array([scale for scale in scales if scale is not None])
    return float(values.std() / (values.mean() + 1e-6)) if len(values) else float("inf")


def _windows(count: int) -> Iterator[tuple[int, int]]:
    start = 0
    while True:
        stop = min(start + WINDOW, count)
        yield start, stop
        if stop == count:
            return
        start += WINDOW - OVERLAP
