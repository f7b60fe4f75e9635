"""Where a camera stands and how it looks, in words. Poses are camera-to-world [4, 4], OpenCV axes, metres."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def place_words(c2w: NDArray[np.float64]) -> str:
    """Say where a camera stands from the origin of its world, such as "1.2 m right, 1.6 m up, 3.0 m ahead"."""
    x, y, z = (float(value) for value in c2w[:3, 3])
    sides = ((x, "m right", "m left"), (-y, "m up", "m down"), (z, "m ahead", "m back"))
    return ", ".join(sided(*side) for side in sides)


def view_words(c2w: NDArray[np.float64]) -> str:
    """Say how a camera is turned, such as "yaw 12.5, pitch 0.0, roll 0.0 deg": right, up, leaning right."""
    # Adding zero turns a negative zero, which would show as "-0.0", into zero.
    yaw, pitch, roll = (round(angle, 1) + 0.0 for angle in pose_angles_deg(c2w))
    return f"yaw {yaw:.1f}, pitch {pitch:.1f}, roll {roll:.1f} deg"


def pose_angles_deg(c2w: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return heading (right of +z), pitch (up) and roll (lean right) of a pose, degrees."""
    heading = math.degrees(math.atan2(c2w[0, 2], c2w[2, 2]))
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -c2w[1, 2]))))
    roll = math.degrees(math.atan2(c2w[1, 0], c2w[1, 1]))
    return heading, pitch, roll


def sided(value: float, positive: str, negative: str, digits: int = 1) -> str:
    """Say how much without a sign: the word behind it names the side."""
    return f"{abs(value):.{digits}f} {negative if round(value, digits) < 0 else positive}"
