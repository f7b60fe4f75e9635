"""Walkers and walls: a ball moves among boxes and round shapes and slides along what it touches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holodeck.shapes import Kind, ShapeArrays

Vector = NDArray[np.float64]

STEP_M = 0.1
"""Longest move tested at once; thinner walls than this do not exist."""
FLOOR_M = 0.3
"""Least height of the camera above the ground."""
TOUCH_M = 1e-9
"""Overlap from which something is touched."""
POSITIONS_AT_ONCE = 64
"""That are compared with all shapes: a few MB."""


def slide(
    shapes: ShapeArrays,
    bounds: tuple[float, float, float, float],
    ceiling_m: float,
    position: Vector,
    delta: Vector,
    radius_m: float,
) -> Vector:
    """Move a ball by `delta` and push it out of whatever it enters.

    Args:
        bounds: Walkable rectangle (low x, low z, high x, high z), metres.
        position: World position of the ball's centre, [3], y down.
        delta: Wanted displacement, [3].

    Returns:
        The new position, [3]; outside every solid shape if `position` was.

    Raises:
        ValueError: A coordinate is not finite.
    """
    position, delta = np.asarray(position, np.float64), np.asarray(delta, np.float64)
    if not (np.isfinite(position).all() and np.isfinite(delta).all()):
        raise ValueError("position and delta must be finite numbers; reset the camera")
    steps = min(max(1, int(np.ceil(np.linalg.norm(delta) / STEP_M))), 1000)
    here = position.copy()
    for _ in range(steps):
        there = _inside(here + delta / steps, bounds, ceiling_m, radius_m)
        for _ in range(3):
            pushed = _push_out(shapes, there, radius_m)
            if pushed is None:
                here = there
                break
            there = _inside(pushed, bounds, ceiling_m, radius_m)
        # Wedged between shapes: the step is given up and the ball stays where it was.
    return here


def is_free(shapes: ShapeArrays, position: Vector, radius_m: float) -> bool:
    """Whether a ball of this radius touches nothing solid."""
    return bool(are_free(shapes, np.asarray(position, np.float64)[None], radius_m)[0])


def are_free(shapes: ShapeArrays, positions: NDArray[np.float64], radius_m: float) -> NDArray[np.bool_]:
    """Whether balls at positions [N, 3] touch nothing solid, [N]."""
    free = np.ones(len(positions), bool)
    for first in range(0, len(positions), POSITIONS_AT_ONCE):
        part = positions[first : first + POSITIONS_AT_ONCE]
        free[first : first + POSITIONS_AT_ONCE] = (_overlap(shapes, part, radius_m)[1] <= TOUCH_M).all(-1)
    return free


def _inside(
    position: Vector, bounds: tuple[float, float, float, float], ceiling_m: float, radius_m: float
) -> Vector:
    x = np.clip(position[0], bounds[0] + radius_m, bounds[2] - radius_m)
    z = np.clip(position[2], bounds[1] + radius_m, bounds[3] - radius_m)
    return np.array([x, np.clip(position[1], -ceiling_m, -FLOOR_M), z])


def _push_out(shapes: ShapeArrays, position: Vector, radius_m: float) -> Vector | None:
    """Push the ball out of the deepest overlap; None where there is none."""
    offset, overlap = _overlap(shapes, position, radius_m)
    deepest = int(overlap.argmax()) if len(overlap) else -1
    if deepest < 0 or overlap[deepest] <= TOUCH_M:
        return None
    distance = np.linalg.norm(offset[deepest])
    if distance < 1e-9:
        # The centre itself is inside: leave by the nearest vertical side.
        return _leave_by_side(shapes.low[deepest], shapes.high[deepest], position, radius_m)
    return position + offset[deepest] / distance * (overlap[deepest] + 1e-6)


def _overlap(
    shapes: ShapeArrays, positions: NDArray[np.float64], radius_m: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets of positions [..., 3] from the closest points of M shapes, [..., M, 3], and how deep balls there overlap solid
    ones, [..., M]."""
    points = positions[..., None, :]
    closest = np.clip(points, shapes.low, shapes.high).astype(np.float64)
    curved = shapes.kind != Kind.BOX
    closest[..., curved, :] = _closest_on_round(shapes, curved, points)
    offset = points - closest
    return offset, np.where(shapes.solid, radius_m - np.linalg.norm(offset, axis=-1), -1.0)


def _closest_on_round(
    shapes: ShapeArrays, curved: NDArray[np.bool_], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Closest points of the solids of K round shapes to `points` [..., 1, 3], [..., K, 3]."""
    low, high, kind = shapes.low[curved], shapes.high[curved], shapes.kind[curved]
    centre, half = (low + high) / 2, (high - low) / 2
    offset = points - centre
    flat = np.hypot(offset[..., 0], offset[..., 2])
    height = np.clip(offset[..., 1], -half[:, 1], half[:, 1])
    # A cone narrows towards its top (negative y); its radius at the walker's own height is what stops the walker.
    taper = np.where(kind == Kind.CONE, np.clip((height + half[:, 1]) / (2 * half[:, 1]), 0.0, 1.0), 1.0)
    reach = np.minimum(1.0, half[:, 0] * taper / np.maximum(flat, 1e-9))
    closest = centre + np.stack([offset[..., 0] * reach, height, offset[..., 2] * reach], -1)
    ball = kind == Kind.SPHERE
    away = offset[..., ball, :]
    length = np.linalg.norm(away, axis=-1, keepdims=True)
    closest[..., ball, :] = centre[ball] + away * np.minimum(1.0, half[ball, :1] / np.maximum(length, 1e-9))
    return closest


def _leave_by_side(low: Vector, high: Vector, position: Vector, radius_m: float) -> Vector:
    gaps = np.array(
        [position[0] - low[0], high[0] - position[0], position[2] - low[2], high[2] - position[2]]
    )
    side = int(gaps.argmin())
    out = position.copy()
    out[0 if side < 2 else 2] = (
        low[0] - radius_m,
        high[0] + radius_m,
        low[2] - radius_m,
        high[2] + radius_m,
    )[side]
    return out
