"""The camera integrator: six target velocities in, camera-to-world poses out.

This is the one definition of how a camera moves, used by action strings and by the client's rig alike; SANA's
eight keys are the special case without rise and roll. It knows nothing of devices, collision or files.
World vertical is -y (OpenCV axes, y down); yaw turns about it, pitch and roll about the camera's own axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DIRECTION_EPSILON = 1e-6
"""Added to the length of a horizontal direction, which is zero where a camera looks straight down."""


class Axes(NamedTuple):
    """One number for each degree of freedom: what is asked for (in [-1, 1]) or a velocity (m/s, rad/s)."""

    forward: float = 0.0
    """Along the horizontal part of the view direction."""
    strafe: float = 0.0
    """To the camera's right, horizontally."""
    rise: float = 0.0
    """Up, along world -y."""
    yaw: float = 0.0
    """To the right, about the world vertical."""
    pitch: float = 0.0
    """Up, about the camera's x axis."""
    roll: float = 0.0
    """Clockwise as the walker sees it (the horizon turns the other way), about the camera's z axis."""


@dataclass(frozen=True)
class MotionConstants:
    """Speeds, limits and inertia of one key map version."""

    move_m_s: float = 0.4
    """Translation speed of a key held down: 0.025 m per frame at 16 fps."""
    turn_rad_s: float = math.radians(9.6)
    """Rotation speed of a key held down: 0.6 degrees per frame at 16 fps."""
    pitch_limit_rad: float = math.radians(60.0)
    press_tau_s: float = 0.45
    """Time constant of an axis on its way to a velocity; 0 means at once."""
    coast_tau_s: float = 1.0
    """Time constant of an axis on its way to rest; 0 means at once."""
    partial_pitch: bool = True
    """Whether a step past the pitch limit is cut to what fits; version 1 drops it whole."""

    def velocity(self, axes: Axes, speed_scale: float = 1.0) -> Axes:
        """Return the target velocity of axes in [-1, 1]; speed_scale multiplies translation alone."""
        move = self.move_m_s * speed_scale
        turn = self.turn_rad_s
        return Axes(*(value * move for value in axes[:3]), *(value * turn for value in axes[3:]))


CURRENT = MotionConstants()
V1 = MotionConstants(
    move_m_s=0.8,
    turn_rad_s=math.radians(19.2),
    pitch_limit_rad=math.radians(85.0),
    press_tau_s=0.0,
    coast_tau_s=0.0,
    partial_pitch=False,
)


def rotation_x(angle_rad: float) -> NDArray[np.float64]:
    """Return the rotation about x, [3, 3]; positive looks up (y is down)."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_y(angle_rad: float) -> NDArray[np.float64]:
    """Return the rotation about y, [3, 3]; positive turns +z toward +x, to the right."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_z(angle_rad: float) -> NDArray[np.float64]:
    """Return the rotation about z, [3, 3]; positive turns +x toward +y, clockwise as seen."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class IntegratorState:
    """Where the camera is, how it moves, and which keys the last frame saw."""

    start_rotation: NDArray[np.float64]
    """[3, 3], camera to world, of the pose the walk began with; the angles below are counted from it."""
    position: NDArray[np.float64]
    """[3], metres, world frame."""
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0
    roll_rad: float = 0.0
    velocity: Axes = field(default_factory=Axes)
    held: frozenset[str] = frozenset()
    """Names of the keys held in the last frame; any names will do, they are only compared."""

    @classmethod
    def at(cls, c2w: NDArray[np.float64]) -> IntegratorState:
        """Return a camera at rest at c2w, [4, 4]."""
        pose = np.array(c2w, np.float64)
        return cls(start_rotation=pose[:3, :3], position=pose[:3, 3])

    def level_rotation(self) -> NDArray[np.float64]:
        """Return the rotation without roll, [3, 3]: Ry(yaw) R Rx(pitch)."""
        return rotation_y(self.yaw_rad) @ self.start_rotation @ rotation_x(self.pitch_rad)

    def c2w(self) -> NDArray[np.float64]:
        """Return the camera-to-world pose, [4, 4] float64."""
        pose = np.eye(4)
        pose[:3, :3] = (
            self.level_rotation() @ rotation_z(self.roll_rad) if self.roll_rad else self.level_rotation()
        )
        pose[:3, 3] = self.position
        return pose

    def moved_to(self, position: NDArray[np.float64]) -> IntegratorState:
        """Return the same camera at another position, [3] metres (collision slid it there)."""
        return replace(self, position=np.array(position, np.float64))


def step(
    state: IntegratorState,
    target: Axes,
    held: frozenset[str],
    dt_s: float,
    constants: MotionConstants = CURRENT,
    look_rad: tuple[float, float] = (0.0, 0.0),
) -> IntegratorState:
    """Advance by one video frame.

    Args:
        state: The frame before.
        target: Velocity asked for, m/s and rad/s.
        held: Keys held in this frame. A key that the frame before did not hold sets the velocity to the
            target at once; otherwise each axis approaches it exponentially.
        dt_s: Duration of the frame, 1 / fps.
        constants: Limits and time constants.
        look_rad: Yaw (right) and pitch (up) to turn at once, without inertia: a mouse's movement.

    Returns:
        The state after the frame.
    """
    velocity = target if held - state.held else _approach(state.velocity, target, dt_s, constants)
    pitch_step = velocity.pitch * dt_s + look_rad[1]
    pitch = state.pitch_rad + pitch_step
    limit = constants.pitch_limit_rad
    if abs(pitch) > limit:
        pitch = math.copysign(limit, pitch) if constants.partial_pitch else state.pitch_rad
    turned = replace(
        state,
        yaw_rad=state.yaw_rad + velocity.yaw * dt_s + look_rad[0],
        pitch_rad=pitch,
        roll_rad=state.roll_rad + velocity.roll * dt_s,
        velocity=velocity,
        held=held,
    )
    rotation = turned.level_rotation()
    move = _horizontal(rotation[:, 2]) * (velocity.forward * dt_s)
    move += _horizontal(rotation[:, 0]) * (velocity.strafe * dt_s)
    move[1] -= velocity.rise * dt_s
    return turned.moved_to(state.position + move)


def _approach(velocity: Axes, target: Axes, dt_s: float, constants: MotionConstants) -> Axes:
    """Move each velocity toward its target: quickly where one is asked for, slowly to rest."""
    press = _approach_fraction(dt_s, constants.press_tau_s)
    coast = _approach_fraction(dt_s, constants.coast_tau_s)
    return Axes(
        *(v + (press if goal else coast) * (goal - v) for v, goal in zip(velocity, target, strict=True)),
    )


def _approach_fraction(dt_s: float, tau_s: float) -> float:
    return 1.0 - math.exp(-dt_s / tau_s) if tau_s > 0.0 else 1.0


def _horizontal(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction without its vertical part, [3], of unit length."""
    flat = np.array([direction[0], 0.0, direction[2]])
    return flat / (math.hypot(flat[0], flat[2]) + DIRECTION_EPSILON)
