"""Smooth motion through knots: Catmull-Rom for positions, Squad for rotations, knots at equal times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def catmull_rom(knots: Array, times: Array) -> Array:
    """Go through positions [K, D], knot k at time k; the ends are reached with half the chord's speed.

    Args:
        times: In [0, K - 1], [N].

    Returns:
        [N, D].
    """
    segment, t = _segments(len(knots), times)
    around = [knots[np.clip(segment + n, 0, len(knots) - 1)] for n in (-1, 0, 1, 2)]
    before, start, end, after = around
    t = t[:, None]
    leave, arrive = (end - before) / 2, (after - start) / 2
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leave
        + (-2 * t**3 + 3 * t**2) * end
        + (t**3 - t**2) * arrive
    )


def squad(knots: Rotation, times: Array) -> Rotation:
    """Turn through rotations, knot k at time k, by spherical quadrangles: smooth in angular velocity, always unit.

    Args:
        times: In [0, K - 1], [N].
    """
    count = len(knots)
    index = np.arange(count)
    ahead = (knots.inv() * _pick(knots, np.minimum(index + 1, count - 1))).as_rotvec()
    behind = (knots.inv() * _pick(knots, np.maximum(index - 1, 0))).as_rotvec()
    inner = knots * Rotation.from_rotvec(-(ahead + behind) / 4)
    segment, t = _segments(count, times)
    outside = _slerp(_pick(knots, segment), _pick(knots, segment + 1), t)
    inside = _slerp(_pick(inner, segment), _pick(inner, segment + 1), t)
    return _slerp(outside, inside, 2 * t * (1 - t))


def _pick(rotations: Rotation, index: NDArray[np.int64]) -> Rotation:
    return Rotation.from_quat(rotations.as_quat()[index])


def _slerp(start: Rotation, end: Rotation, t: Array) -> Rotation:
    return start * Rotation.from_rotvec((start.inv() * end).as_rotvec() * t[:, None])


def _segments(count: int, times: Array) -> tuple[NDArray[np.int64], Array]:
    """Segment of each time and how far it is through it, [N] each.

    Raises:
        ValueError: There are fewer than two knots, or a time lies outside them.
    """
    if count < 2:
        raise ValueError(f"a spline takes two knots or more, got {count}")
    if times.min() < 0 or times.max() > count - 1:
        raise ValueError(f"times must lie between 0 and {count - 1}, got {times.min():g} to {times.max():g}")
    segment = np.minimum(times.astype(np.int64), count - 2)
    return segment, times - segment
