"""The limits of a walk: which of them a camera is pushed against, and levelling that goes on after a tap.

Knows no devices and no window.
"""

from __future__ import annotations

import math
from dataclasses import replace
from enum import StrEnum

import numpy as np

from client.camera.rig import WALKING, CameraRig
from client.input.controls import Intent
from engine.session.holodeck_session import PlaceBox

NEAR_M = 0.02
"""A camera so close to a limit stands at it."""
NEAR_RAD = math.radians(0.5)
PUSH = 0.3
"""Share of a full step toward a limit that pushes against it: less is walking along it."""
LEVEL_RAD = math.radians(0.3)
"""A horizon that leans less is level."""


class Limit(StrEnum):
    """A limit that a player is told of, with what is said."""

    EDGE = "The place ends here."
    HIGH = "No higher here."
    LOW = "No lower here."
    PITCH = "You can look no further up or down."
    LEAN = "Walkers lean no further; fly to roll on."


def limit_of(rig: CameraRig, box: PlaceBox | None, intent: Intent) -> Limit | None:
    """Return the limit that an intent pushes a rig's camera against, as it was planned last; None where it is free.

    Args:
        box: Where the place can be walked and flown in; None where that is not known.
    """
    state, (low_m, high_m) = rig.state, rig.height_range_m
    x, y, z = (float(value) for value in state.position)
    if box is not None:
        rotation = state.level_rotation()
        way = rotation[[0, 2], 2] * intent.forward + rotation[[0, 2], 0] * intent.strafe
        here = np.array([x, z])
        out_low = (here <= np.array(box.low_xz_m) + NEAR_M) & (way < -PUSH)
        out_high = (here >= np.array(box.high_xz_m) - NEAR_M) & (way > PUSH)
        if out_low.any() or out_high.any():
            return Limit.EDGE
    at_ceiling = box is not None and -y >= box.ceiling_m - NEAR_M
    if intent.rise > 0 and (rig.height_m >= high_m - NEAR_M or at_ceiling):
        return Limit.HIGH
    if intent.rise < 0 and rig.height_m <= low_m + NEAR_M:
        return Limit.LOW
    look = intent.pitch + intent.look_dy_rad
    if look * state.pitch_rad > 0 and abs(state.pitch_rad) >= WALKING.pitch_limit_rad - NEAR_RAD:
        return Limit.PITCH
    leans = abs(rig.roll_rad) >= rig.lean_limit_rad - NEAR_RAD
    if leans and not rig.flying and intent.roll * rig.roll_rad > 0:
        return Limit.LEAN
    return None


class Leveler:
    """Lets one tap level the horizon: goes on asking for it until it is level, or the player leans."""

    def __init__(self) -> None:
        self._on = False

    def apply(self, intent: Intent, roll_rad: float) -> Intent:
        """Return an intent that levels as long as is needed, for a camera with this roll."""
        if intent.level:
            self._on = True
        elif intent.roll or abs(roll_rad) < LEVEL_RAD:
            self._on = False
        return replace(intent, level=True) if self._on else intent
