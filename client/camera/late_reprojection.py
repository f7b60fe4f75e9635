"""Late reprojection (timewarp): where the player is by now, and a frame of an earlier view shown from there.

Under pure rotation two views are related by an exact homography, K R K^-1, whatever the scene holds. Camera-to-world,
OpenCV axes. Pixel coordinates here are continuous: the first pixel covers 0 to 1. Angles are yaw, pitch and roll from
the walk's first pose, radians. Knows no window.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from client.camera.rig import WALKING, CameraRig, PlannedMotion
from client.input.controls import Intent
from engine.camera.integrator import IntegratorState

LEAST_TURN_RAD = math.radians(0.02)
"""A turn below this is a fraction of a pixel of the largest window, and not worth the work."""
LEAST_MOVE_M = 2e-3
"""A move below this is a fraction of a pixel wherever a walker may stand."""
LEAD_BACK_S = 0.15
"""Time constant by which a difference to the rig is worked off."""
MAX_REMEMBERED = 8192
"""Views kept to be compared with the rig's: two minutes of a chunk that does not come."""


@dataclass(frozen=True)
class Reach:
    """How far from its own camera a frame is shown."""

    turn_rad: float
    move_m: float


FRAME_ALONE = Reach(math.radians(20.0), 0.6)
"""Beyond it too much of the window would be filled with the frame's edges, or with what is around its gaps."""
WITH_MEMORY = Reach(math.radians(45.0), 1.2)
"""Where the memory shows what the frame does not."""


def homography(
    source: NDArray[np.float64], target: NDArray[np.float64], intrinsics: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the map of an image's homogeneous pixels from one view direction to another, [3, 3].

    Args:
        source, target: Camera-to-world rotations [3, 3].
        intrinsics: fx, fy, cx, cy in pixels, [4].
    """
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    camera = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return camera @ target.T @ source @ np.linalg.inv(camera)


def warp(
    image: NDArray[np.uint8], mapping: NDArray[np.float64], frame_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Show an enlarged frame through a homography; what it does not cover is filled with its nearest edge.

    Args:
        image: The frame at any size, [h, w, 3] or [h, w, 4].
        mapping: In pixels of the frame, [3, 3].
        frame_size: Width and height of the frame.
    """
    height, width = image.shape[:2]
    scale = np.diag([width / frame_size[0], height / frame_size[1], 1.0])
    # OpenCV counts from the centre of the first pixel.
    centre = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    inside = np.linalg.inv(centre) @ scale @ mapping @ np.linalg.inv(scale) @ centre
    warped = cv2.warpPerspective(
        image, inside, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)


def bounded(vector: NDArray[np.float64], least: float, longest: float) -> NDArray[np.float64]:
    """Shorten a vector [3] to `longest`, and drop one that cannot be seen."""
    length = float(np.linalg.norm(vector))
    return np.zeros(3) if length <= least else vector * min(1.0, longest / length)


class LiveView:
    """Where the player is by now: the view that the rig will have once it has seen every input.

    The rig plans by chunks and the model shows its plans late. This view turns and moves with every input, by the rig's
    own rules, and is led back wherever the two part: a key is held to the end of a chunk by the rig, and to the moment
    of its release here. For the client thread.
    """

    def __init__(self, rig: CameraRig) -> None:
        self._rig = rig
        self.begin()

    def begin(self, state: IntegratorState | None = None) -> None:
        """Look as a camera of the rig does, by default as it did at the walk's first pose."""
        self._state = self._rig.start if state is None else state
        self._led = np.zeros(6)
        self._owed = np.zeros(6)
        self._views: deque[tuple[float, NDArray[np.float64]]] = deque(maxlen=MAX_REMEMBERED)

    @property
    def angles_rad(self) -> NDArray[np.float64]:
        """Yaw, pitch and roll, [3]."""
        return self._coordinates[:3]

    @property
    def position_m(self) -> NDArray[np.float64]:
        """In the world's own frame, [3]."""
        return self._state.position

    @property
    def _coordinates(self) -> NDArray[np.float64]:
        """Yaw, pitch and roll, then the position in the world's own frame, [6]."""
        state = self._state
        return np.array([state.yaw_rad, state.pitch_rad, state.roll_rad, *state.position])

    def turn_from(self, angles_rad: NDArray[np.float64], reach: Reach = FRAME_ALONE) -> NDArray[np.float64]:
        """Return the turn from a frame's angles to this view, yaw, pitch and roll, as far as a frame can be turned, [3]."""
        return bounded(self.angles_rad - angles_rad, LEAST_TURN_RAD, reach.turn_rad)

    def move_from(self, position_m: NDArray[np.float64], reach: Reach = FRAME_ALONE) -> NDArray[np.float64]:
        """Return the way from a frame's position to this view's, as far as a frame can be moved, metres, [3]."""
        return bounded(self._state.position - position_m, LEAST_MOVE_M, reach.move_m)

    def is_turned_from(self, angles_rad: NDArray[np.float64], reach: Reach = FRAME_ALONE) -> bool:
        """Say whether a frame with these angles can be turned all the way."""
        return bool(np.linalg.norm(self.angles_rad - angles_rad) <= reach.turn_rad)

    def is_reached_from(
        self, angles_rad: NDArray[np.float64], position_m: NDArray[np.float64], reach: Reach = FRAME_ALONE
    ) -> bool:
        """Say whether a frame with these angles can be turned, and with this position moved, all the way."""
        near = np.linalg.norm(self._state.position - position_m) <= reach.move_m
        return bool(near) and self.is_turned_from(angles_rad, reach)

    def rotation(self, angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the camera-to-world rotation of angles [3], [3, 3]."""
        return self._at(np.concatenate([angles_rad, self._state.position])).c2w()[:3, :3]

    def turn(self, intent: Intent, posted_s: float, elapsed_s: float, pace: float = 1.0) -> None:
        """Turn and move as the player asks.

        Args:
            intent: What the devices say; its mouse deltas are turned at once.
            posted_s: Clock time by which a chunk's `latched_s` says that it knows this intent.
            elapsed_s: Time since the last call.
            pace: Seconds of the walk that a second brings: less than 1 where the model is too slow for it.
        """
        look_rad = intent.look_dx_rad, intent.look_dy_rad
        self._state = self._rig.advanced(self._state, intent, elapsed_s * pace, look_rad)
        self._lead(self._owed * (1.0 - math.exp(-elapsed_s / LEAD_BACK_S)))
        self._views.append((posted_s, self._coordinates - self._led))

    def take_plan(self, motion: PlannedMotion, latched_s: float) -> None:
        """Compare with what the rig made of the inputs up to a moment.

        At that moment this view should have been somewhere on the way that the rig then planned: no further back,
        since the rig was there already, and no further on than it is willing to go.
        """
        then = None
        while self._views and self._views[0][0] <= latched_s:
            then = self._views.popleft()[1]
        if then is None:
            return
        end_rad = motion.angles_rad[-1] + (*motion.left_rad, 0.0)
        end_rad[1] = np.clip(end_rad[1], -WALKING.pitch_limit_rad, WALKING.pitch_limit_rad)
        begin = np.concatenate([motion.angles_rad[0], motion.positions_m[0]])
        end = np.concatenate([end_rad, motion.positions_m[-1]])
        # Compared with where the view would be without any debt, so that a new debt replaces the old one.
        led = then + self._led
        self._owed = np.clip(led, np.minimum(begin, end), np.maximum(begin, end)) - led

    def _lead(self, by: NDArray[np.float64]) -> None:
        self._state = self._at(self._coordinates + by)
        self._led += by
        self._owed -= by

    def _at(self, coordinates: NDArray[np.float64]) -> IntegratorState:
        yaw, pitch, roll = (float(angle) for angle in coordinates[:3])
        turned = replace(self._state, yaw_rad=yaw, pitch_rad=pitch, roll_rad=roll)
        return turned.moved_to(coordinates[3:])
