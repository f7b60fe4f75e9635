"""Where in a plan one can walk, and where a walk should start."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from holodeck.generator.dice import Dice
from holodeck.generator.plan import Plan, Rectangle
from holodeck.shapes import Shape

Array = NDArray[np.float64]

CELL_M = 0.25
CLEARANCE_M = 0.72
"""Distance kept from solids, a little more than training's walkers keep."""
HEIGHTS_M = (0.9, 2.3)
"""What lies wholly below or above is walked over or under."""
LEAST_SHARE = 0.45
"""Of the walkable rectangle, that can be reached."""
CONNECTED_SHARE = 0.92
"""Of the free cells, that can be reached."""
CANDIDATES = 90
FAN_DEG = tuple(range(-35, 36, 5))
"""Directions in view that a start is judged by."""
OPEN_M = 14.0
"""Further is no better."""
FARTHEST_M = 20.0
"""Things further away than this do not count as seen."""


@dataclass(frozen=True)
class Start:
    """A pose to start from."""

    xz: tuple[float, float]
    yaw_deg: float


def reachable(plan: Plan, bounds: Rectangle) -> tuple[Array, float, float]:
    """Find the cells that are connected.

    Returns:
        Their centres (x, z) in metres, [N, 2]; their share of the rectangle; their share of the free cells.
    """
    xs = np.arange(bounds[0] + CLEARANCE_M, bounds[2] - CLEARANCE_M, CELL_M)
    zs = np.arange(bounds[1] + CLEARANCE_M, bounds[3] - CLEARANCE_M, CELL_M)
    free = np.ones((len(zs), len(xs)), np.uint8)
    for shape in plan.shapes:
        if _blocks(shape):
            columns = (xs > shape.low[0] - CLEARANCE_M) & (xs < shape.high[0] + CLEARANCE_M)
            rows = (zs > shape.low[2] - CLEARANCE_M) & (zs < shape.high[2] + CLEARANCE_M)
            free[np.ix_(rows, columns)] = 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
    if len(stats) < 2:
        return np.empty((0, 2)), 0.0, 0.0
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    rows, columns = np.nonzero(labels == largest)
    return np.stack([xs[columns], zs[rows]], 1), len(rows) / free.size, len(rows) / free.sum()


def is_walkable(plan: Plan, bounds: Rectangle) -> bool:
    """Whether enough of the floor can be walked, nearly all of it in one piece."""
    _, share, connected = reachable(plan, bounds)
    return share >= LEAST_SHARE and connected >= CONNECTED_SHARE


def choose_start(plan: Plan, bounds: Rectangle) -> Start:
    """Choose among random free poses the one that sees most things at a good distance."""
    cells, _, _ = reachable(plan, bounds)
    tall = [(n, shape) for n, group in enumerate(plan.groups) for shape in group.shapes if _stands(shape)]
    owner = np.array([n for n, _ in tall])
    low = np.array([(shape.low[0], shape.low[2]) for _, shape in tall])
    high = np.array([(shape.high[0], shape.high[2]) for _, shape in tall])
    best, start = -np.inf, Start((0.0, 0.0), 0.0)
    for _ in range(CANDIDATES):
        candidate = _draw_start(plan.dice, cells)
        score = _view_score(candidate, low, high, owner)
        if score > best:
            best, start = score, candidate
    return start


def _draw_start(dice: Dice, cells: Array) -> Start:
    x, z = cells[int(len(cells) * dice.between(0, 0.999))]
    return Start((round(float(x), 3), round(float(z), 3)), dice.between(-180, 180))


def _view_score(start: Start, low: Array, high: Array, owner: NDArray[np.int64]) -> float:
    """Number of things in view, how open the view is, and a penalty for what stands in the way.

    Args:
        low, high: Corners of the footprints of the shapes, [N, 2], metres.
        owner: Which thing each shape belongs to, [N].
    """
    yaw = np.radians(start.yaw_deg + np.array(FAN_DEG, np.float64))
    directions = np.stack([np.sin(yaw), np.cos(yaw)], 1)
    directions[np.abs(directions) < 1e-9] = 1e-9
    first, second = (low - start.xz) / directions[:, None], (high - start.xz) / directions[:, None]
    near, far = np.minimum(first, second).max(2), np.maximum(first, second).min(2)
    distance = np.where((near < far) & (near > 0), near, np.inf)
    nearest = np.minimum(distance.min(1), OPEN_M)
    seen = len(set(owner[distance.argmin(1)[distance.min(1) < FARTHEST_M]].tolist()))
    middle = nearest[len(FAN_DEG) // 2 - 3 : len(FAN_DEG) // 2 + 4].min()
    blocked = max(0.0, 3.0 - nearest.min()) * 2 + max(0.0, 4.5 - middle) * 2
    return round(float(1.3 * seen + nearest.mean() / 3 - blocked), 6)


def _blocks(shape: Shape) -> bool:
    bottom, top = -shape.high[1], -shape.low[1]
    return shape.solid and top > HEIGHTS_M[0] and bottom < HEIGHTS_M[1]


def _stands(shape: Shape) -> bool:
    """Whether a shape is seen from eye height: not flat on the ground, not overhead."""
    return -shape.low[1] > 0.8 and -shape.high[1] < HEIGHTS_M[1]
