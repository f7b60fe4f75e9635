"""The camera that a picture seems taken from, as a small offset from where it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Render = Callable[[Array], NDArray[np.uint8]]

PROBE_RAD = 0.02
PROBE_M = 0.08
"""Offsets that the true pictures are compared at: a pixel or two."""
CELL_PX = 4
"""Pictures are averaged over cells of this size first: what a soft world model gets wrong in detail is no motion."""


@dataclass(frozen=True)
class PoseError:
    """Offset of the camera that a picture seems taken from."""

    rotation_deg: float
    translation_m: float


def offset_pose(c2w: Array, offset: Array) -> Array:
    """Move a pose by a rotation vector (rad) and a translation (m), both along the camera's axes, [6]."""
    angle = float(np.linalg.norm(offset[:3]))
    turn = np.eye(3)
    if angle > 0:
        x, y, z = offset[:3] / angle
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
    moved = c2w.copy()
    moved[:3, :3] = c2w[:3, :3] @ turn
    moved[:3, 3] = c2w[:3, 3] + c2w[:3, :3] @ offset[3:]
    return moved


class PoseFit:
    """The true picture at one pose and how it changes with the camera, to hold several pictures against."""

    def __init__(self, render: Render, c2w: Array) -> None:
        self._truth = coarse(render(c2w))
        steps = [PROBE_RAD] * 3 + [PROBE_M] * 3
        columns = []
        for axis, step in enumerate(steps):
            probe = np.zeros(6)
            probe[axis] = step
            ahead, behind = render(offset_pose(c2w, probe)), render(offset_pose(c2w, -probe))
            columns.append((coarse(ahead) - coarse(behind)).ravel() / (2 * step))
        # Brightness is free, channel by channel: it is no motion either.
        tints = np.broadcast_to(np.eye(3), (self._truth.size // 3, 3, 3)).reshape(-1, 3)
        self._inverse = np.linalg.pinv(np.column_stack([*columns, tints]), rcond=1e-6)

    def offset(self, picture: NDArray[np.uint8]) -> Array:
        """Return the small camera offset that explains a picture best, by least squares, [6]."""
        return (self._inverse @ (coarse(picture) - self._truth).ravel())[:6]

    def error(self, picture: NDArray[np.uint8]) -> PoseError:
        offset = self.offset(picture)
        degrees = float(np.degrees(np.linalg.norm(offset[:3])))
        return PoseError(degrees, float(np.linalg.norm(offset[3:])))


def coarse(picture: NDArray[np.uint8]) -> Array:
    """Average a picture over cells, [h, w, 3]."""
    height, width = (size // CELL_PX * CELL_PX for size in picture.shape[:2])
    cells = picture[:height, :width].astype(np.float64)
    return cells.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX, 3).mean((1, 3))
