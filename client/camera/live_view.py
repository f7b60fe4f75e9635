"""Where the player looks by now: the view that the rig will have once it has seen every input.

The rig plans by chunks and the model shows its plans late. This view turns with every input, by the rig's own rules,
and is led back wherever the two part: a key is held to the end of a chunk by the rig, and to the moment of its
release here. Knows no frames and no window. Angles are yaw, pitch and roll from the walk's first pose, radians.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.camera.late_reprojection import MAX_TURN_RAD, bounded
from client.camera.rig import WALKING, CameraRig, PlannedTurn
from client.input.controls import Intent
from engine.camera.integrator import IntegratorState

LEAD_BACK_S = 0.15
"""Time constant by which a difference to the rig is worked off."""
MAX_REMEMBERED = 8192
"""Views kept to be compared with the rig's: two minutes of a chunk that does not come."""


class LiveView:
    """The view of one walk, on the client thread."""

    def __init__(self, rig: CameraRig) -> None:
        self._rig = rig
        self.begin()

    def begin(self, state: IntegratorState | None = None) -> None:
        """Look as a camera of the rig does, by default as it did at the walk's first pose."""
        self._state = self._rig.start if state is None else state
        self._led = np.zeros(3)
        self._owed = np.zeros(3)
        self._views: deque[tuple[float, NDArray[np.float64]]] = deque(maxlen=MAX_REMEMBERED)

    @property
    def angles_rad(self) -> NDArray[np.float64]:
        """Yaw, pitch and roll, [3]."""
        return np.array([self._state.yaw_rad, self._state.pitch_rad, self._state.roll_rad])

    def ahead_of(self, angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the turn from a frame's angles to this view, as far as a picture can be turned, [3]."""
        return bounded(self.angles_rad - angles_rad)

    def is_reached_from(self, angles_rad: NDArray[np.float64]) -> bool:
        """Say whether a picture of a frame with these angles can be turned all the way."""
        return bool(np.linalg.norm(self.angles_rad - angles_rad) <= MAX_TURN_RAD)

    def rotation(self, angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the camera-to-world rotation of angles [3], [3, 3]."""
        return self._at(angles_rad).c2w()[:3, :3]

    def turn(self, intent: Intent, posted_s: float, elapsed_s: float, pace: float = 1.0) -> None:
        """Turn as the player asks.

        Args:
            intent: What the devices say; its mouse deltas are turned at once.
            posted_s: Clock time by which a chunk's `latched_s` says that it knows this intent.
            elapsed_s: Time since the last call.
            pace: Seconds of the walk that a second brings: less than 1 where the model is too slow for it.
        """
        look_rad = intent.look_dx_rad, intent.look_dy_rad
        self._state = self._rig.turned(self._state, intent, elapsed_s * pace, look_rad)
        self._lead(self._owed * (1.0 - math.exp(-elapsed_s / LEAD_BACK_S)))
        self._views.append((posted_s, self.angles_rad - self._led))

    def take_plan(self, turn: PlannedTurn, latched_s: float) -> None:
        """Compare with what the rig made of the inputs up to a moment.

        At that moment this view should have been somewhere on the turn that the rig then planned: no further back,
        since the rig was there already, and no further on than it is willing to go.
        """
        then = None
        while self._views and self._views[0][0] <= latched_s:
            then = self._views.popleft()[1]
        if then is None:
            return
        end = turn.angles_rad[-1] + (*turn.left_rad, 0.0)
        end[1] = np.clip(end[1], -WALKING.pitch_limit_rad, WALKING.pitch_limit_rad)
        low, high = np.minimum(turn.angles_rad[0], end), np.maximum(turn.angles_rad[0], end)
        # Compared with where the view would be without any debt, so that a new debt replaces the old one.
        led = then + self._led
        self._owed = np.clip(led, low, high) - led

    def _lead(self, by_rad: NDArray[np.float64]) -> None:
        before = self.angles_rad
        self._state = self._at(before + by_rad)
        self._led += by_rad
        self._owed -= by_rad

    def _at(self, angles_rad: NDArray[np.float64]) -> IntegratorState:
        yaw, pitch, roll = (float(angle) for angle in angles_rad)
        return replace(self._state, yaw_rad=yaw, pitch_rad=pitch, roll_rad=roll)
