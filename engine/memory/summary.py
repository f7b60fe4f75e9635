"""What a spatial memory holds, in numbers and as a map for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import SKY_M, Keyframe

MAP_COLUMNS, MAP_ROWS = 64, 24
REACH_M = 60.0
"""Surfaces farther away from the keyframe that saw them are not counted as covered."""
MAP_MARGIN_M = 15.0
"""How far the map reaches beyond the keyframes."""
EMPTY, COVERED = " ", "."
HEADINGS = ">v<^"
"""Of keyframes that look along +x, -z, -x and +z; +z is up on the map."""
LEVEL = "o"
"""Of keyframes that look up or down more than ahead."""


@dataclass(frozen=True)
class MemorySummary:
    """Numbers about the keyframes of a world or walk."""

    num_keyframes: int
    sizes: dict[str, int]
    """How many there are of each size, such as "512x512"."""
    num_positions: int
    """Places from which they were taken, to 10 cm."""
    area_m2: float
    """Ground, seen from above, that has a surface which some keyframe saw within 60 m."""
    map: str
    """Surfaces as dots, keyframes by where they look, +x to the right and +z up."""


def summarize(keyframes: Sequence[Keyframe]) -> MemorySummary:
    """Summarize keyframes."""
    if not keyframes:
        return MemorySummary(0, {}, 0, 0.0, "")
    sizes = Counter("{}x{}".format(*keyframe.size) for keyframe in keyframes)
    positions = np.stack([keyframe.c2w[:3, 3] for keyframe in keyframes])
    ground = np.concatenate([_seen_ground(keyframe) for keyframe in keyframes])
    cells = np.unique(np.floor(ground).astype(np.int64), axis=0)
    return MemorySummary(
        len(keyframes),
        dict(sizes),
        len(np.unique(positions.round(1), axis=0)),
        float(len(cells)),
        _map(ground, keyframes),
    )


def _seen_ground(keyframe: Keyframe) -> NDArray[np.float64]:
    """x and z of the surface points that a keyframe saw, [P, 2]."""
    points = keyframe.points[:3].astype(np.float64)
    distance = np.linalg.norm(points - keyframe.c2w[:3, 3:], axis=0)
    return points[[0, 2]][:, distance < min(REACH_M, SKY_M / 2)].T


def _map(ground: NDArray[np.float64], keyframes: Sequence[Keyframe]) -> str:
    eyes = np.stack([keyframe.c2w[[0, 2], 3] for keyframe in keyframes])
    ground = ground[((ground > eyes.min(0) - MAP_MARGIN_M) & (ground < eyes.max(0) + MAP_MARGIN_M)).all(1)]
    low, high = np.concatenate([ground, eyes]).min(0), np.concatenate([ground, eyes]).max(0)
    # A character is about twice as high as it is wide.
    metres = max((high[0] - low[0]) / MAP_COLUMNS, (high[1] - low[1]) / (2 * MAP_ROWS), 0.05)
    columns, rows = int((high[0] - low[0]) / metres) + 1, int((high[1] - low[1]) / (2 * metres)) + 1
    cells = np.full((rows, columns), EMPTY)

    def place(at: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        row, column = (at[:, 1] - low[1]) / (2 * metres), (at[:, 0] - low[0]) / metres
        return rows - 1 - row.astype(np.int64), column.astype(np.int64)

    cells[place(ground)] = COVERED
    for keyframe, row, column in zip(keyframes, *place(eyes), strict=True):
        cells[row, column] = _heading(keyframe.c2w[:3, 2])
    return "\n".join("".join(line).rstrip() for line in cells)


def _heading(forward: NDArray[np.float64]) -> str:
    x, y, z = forward
    if abs(y) > max(abs(x), abs(z)):
        return LEVEL
    return HEADINGS[0 if x > 0 else 2] if abs(x) > abs(z) else HEADINGS[3 if z > 0 else 1]
