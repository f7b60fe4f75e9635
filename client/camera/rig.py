"""The camera rig: intents in, the poses of the next chunk out.

Wraps the engine's integrator with a walker's speeds, collision, height limits and a horizon that can be
levelled. Knows no devices, no window and no clock. World vertical is -y (OpenCV axes, y down), metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.input.controls import Axis, Intent
from engine.camera.integrator import Axes, IntegratorState, MotionConstants, step
from engine.session.holodeck_session import Slide
from engine.types import CameraTrack, Intrinsics

WALKING = MotionConstants(
    move_m_s=1.6,
    turn_rad_s=math.radians(48.0),
    pitch_limit_rad=math.radians(45.0),
    # A released key coasts as far as SANA's does, 0.4 m and 9.6 degrees, at four and five times its speeds.
    press_tau_s=0.11,
    coast_tau_s=0.22,
)
"""A walker's pace; the shape of the motion is the integrator's."""

ON_THE_GROUND_M = 0.05
"""A camera this close to a walker's eye height stands on the ground."""


@dataclass(frozen=True)
class RigLimits:
    """How a walker may move beyond what the integrator says."""

    run_factor: float = 1.5
    """Speed of movement with the run key held, as a multiple of walking."""
    climb_m: float = 2.0
    """Highest flight above a walker's eye height; the pocket worlds were learned from 0.9 to 2.7 m."""
    sink_m: float = 0.9
    """Deepest flight below it."""
    lean_rad: float = math.radians(30.0)
    """Farthest that a walker leans; whoever flies may roll on."""
    look_limit_rad_s: float = math.radians(110.0)
    """Fastest turn by mouse; what exceeds it is carried into the next frames."""
    settle_s: float = 0.35
    """Time constant of levelling the horizon and of coming down to walking height."""


@dataclass(frozen=True, eq=False)
class PlannedMotion:
    """How a camera turns and moves through a chunk; angles are yaw, pitch and roll from the walk's first pose, radians."""

    angles_rad: NDArray[np.float64]
    """[F + 1, 3], of the frame before the chunk and of each of its frames."""
    left_rad: tuple[float, float]
    """Mouse turn (right, up) that was asked for and left to later chunks."""
    positions_m: NDArray[np.float64]
    """[F + 1, 3], of the same cameras, in the world's own frame."""


@dataclass(frozen=True, eq=False)
class RigState:
    """Where a walker stands and how they move, between two chunks."""

    camera: IntegratorState
    left_rad: tuple[float, float]
    """Mouse turn (right, up) that was asked for and not yet taken."""
    flying: bool

    @classmethod
    def standing_at(cls, c2w: NDArray[np.float64]) -> RigState:
        """Return a walker at rest at a pose, [4, 4]: how one begins to walk where nobody steered, as in a replay."""
        return cls(IntegratorState.at(c2w), (0.0, 0.0), flying=False)

    def view(self) -> IntegratorState:
        """Return the camera with all that was asked of the mouse."""
        right, up = self.left_rad
        return replace(self.camera, yaw_rad=self.camera.yaw_rad + right, pitch_rad=self.camera.pitch_rad + up)


class CameraRig:
    """A walker's camera: plans the poses of one chunk after another, each continuing the one before."""

    def __init__(
        self,
        c2w: NDArray[np.float64],
        intrinsics: Intrinsics,
        fps: float,
        speed_scale: float = 1.0,
        slide: Slide | None = None,
        limits: RigLimits | None = None,
        eye_y_m: float | None = None,
    ) -> None:
        """Stand at c2w [4, 4], the pose of the world's first frame; a walker's eyes are at y = `eye_y_m`, or there."""
        self._intrinsics = intrinsics
        self._dt_s = 1.0 / fps
        self._speed_scale = speed_scale
        self._slide = slide
        self._limits = limits or RigLimits()
        self.start = IntegratorState.at(c2w)
        """The camera at the first pose, at rest."""
        self._eye_y_m = float(c2w[1, 3]) if eye_y_m is None else eye_y_m
        self.pace = 1.0
        """Speed of walking as the player set it, as a multiple of the world's own; kept over a reset."""
        self.reset()

    def reset(self) -> None:
        """Go back to the first pose, at rest, walking; flying where that is in the air, or it would be left at once."""
        self._state = self.start
        self._look_rad = np.zeros(2)
        self.motion = _at_rest(self._state, (0.0, 0.0))
        """Of the last plan."""
        self.flying = abs(self.height_m) > ON_THE_GROUND_M

    def snapshot(self) -> RigState:
        """Return how the camera moves behind the last planned frame."""
        return RigState(self._state, self.motion.left_rad, self.flying)

    def restore(self, state: RigState) -> None:
        """Go on from a snapshot of this rig, or of another like it."""
        self._state, self.flying = state.camera, state.flying
        self._look_rad = np.array(state.left_rad)
        self.motion = _at_rest(self._state, state.left_rad)

    @property
    def c2w(self) -> NDArray[np.float64]:
        """Pose of the last planned frame, [4, 4]."""
        return self._state.c2w()

    @property
    def state(self) -> IntegratorState:
        """The camera at the last planned frame."""
        return self._state

    @property
    def speed_m_s(self) -> float:
        """How fast a held key walks, without running, metres a second."""
        return WALKING.move_m_s * self._speed_scale * self.pace

    @property
    def roll_rad(self) -> float:
        """Lean to the right, in [-pi, pi]."""
        return math.remainder(self._state.roll_rad, math.tau)

    @property
    def height_m(self) -> float:
        """Height above a walker's eye height."""
        return self._eye_y_m - float(self._state.position[1])

    @property
    def height_range_m(self) -> tuple[float, float]:
        """Lowest and highest flight above a walker's eye height."""
        return -self._limits.sink_m, self._limits.climb_m

    @property
    def lean_limit_rad(self) -> float:
        """Farthest that a walker leans to either side."""
        return self._limits.lean_rad

    def plan(self, intent: Intent, num_frames: int, latched_s: float = 0.0) -> CameraTrack:
        """Move through the frames of the next chunk and stay at their end.

        Args:
            intent: Held for the whole chunk; its look deltas are spread evenly over the frames.
            num_frames: Video frames of the chunk.
            latched_s: Clock time at which the intent was read.

        Returns:
            The cameras of frames 1 .. num_frames after the current one.
        """
        intent = finite_intent(intent)
        if intent.rise:
            self.flying = True
        self._look_rad += (intent.look_dx_rad, intent.look_dy_rad)
        c2w = np.empty((num_frames, 4, 4))
        angles_rad, positions_m = np.empty((num_frames + 1, 3)), np.empty((num_frames + 1, 3))
        angles_rad[0], positions_m[0] = _angles(self._state), self._state.position
        for i in range(num_frames):
            self._state = self._advance(self._state, intent, self._dt_s, self._take_look(num_frames - i))
            c2w[i], angles_rad[i + 1] = self._state.c2w(), _angles(self._state)
            positions_m[i + 1] = self._state.position
        right, up = self._look_rad
        self.motion = PlannedMotion(angles_rad, (float(right), float(up)), positions_m)
        intrinsics = np.repeat(self._intrinsics.as_array()[None], num_frames, axis=0)
        return CameraTrack(c2w, intrinsics, latched_s)

    def advanced(
        self, state: IntegratorState, intent: Intent, dt_s: float, look_rad: tuple[float, float] = (0.0, 0.0)
    ) -> IntegratorState:
        """Return a camera turned and moved as this rig does it; nothing of the rig changes.

        Args:
            state: Of a camera of the same walk.
            intent: Held for `dt_s`; its mouse deltas are not looked at.
            dt_s: Time that passes, seconds of the walk.
            look_rad: Turn (right, up) to make at once.
        """
        return self._advance(state, finite_intent(intent), dt_s, look_rad)

    def _take_look(self, frames_left: int) -> tuple[float, float]:
        """Spend an even share of the mouse's turn, no more than one frame may turn; the rest stays."""
        share = self._look_rad / frames_left
        limit = self._limits.look_limit_rad_s * self._dt_s
        length = float(np.hypot(*share))
        if length > limit:
            share *= limit / length
        self._look_rad -= share
        return float(share[0]), float(share[1])

    def _advance(
        self, before: IntegratorState, intent: Intent, dt_s: float, look_rad: tuple[float, float]
    ) -> IntegratorState:
        after = step(before, self._target(before, intent), held_axes(intent), dt_s, WALKING, look_rad)
        after = self._kept_upright(before, after)
        position = after.position
        if self._slide is not None:
            position = np.asarray(self._slide(before.position, after.position - before.position), np.float64)
            if not np.isfinite(position).all():
                position = before.position
        after = after.moved_to(self._clamp_height(position))
        if not np.isfinite(after.c2w()).all():
            return replace(before, velocity=Axes())
        return after

    def _kept_upright(self, before: IntegratorState, after: IntegratorState) -> IntegratorState:
        """Stop a walker's lean at its limit; one who landed with a greater lean keeps it until it is less."""
        roll_rad = math.remainder(after.roll_rad, math.tau)
        most_rad = max(self._limits.lean_rad, abs(math.remainder(before.roll_rad, math.tau)))
        if self.flying or abs(roll_rad) <= most_rad:
            return after
        stopped_rad = after.roll_rad - roll_rad + math.copysign(most_rad, roll_rad)
        return replace(after, roll_rad=stopped_rad, velocity=after.velocity._replace(roll=0.0))

    def _target(self, state: IntegratorState, intent: Intent) -> Axes:
        """Return the target velocities of an intent for a camera, m/s and rad/s."""
        speed_scale = self._speed_scale * self.pace * (self._limits.run_factor if intent.run else 1.0)
        moving = WALKING.velocity(Axes(intent.forward, intent.strafe, intent.rise), speed_scale)
        turning = self._turning(intent, math.remainder(state.roll_rad, math.tau))
        target = Axes(*moving[:3], *turning[3:])
        if not (self.flying or intent.rise):
            fall_m_s = WALKING.move_m_s * self._speed_scale
            height_m = self._eye_y_m - float(state.position[1])
            target = target._replace(rise=_settle(height_m, self._limits.settle_s, fall_m_s))
        return target

    def _turning(self, intent: Intent, roll_rad: float) -> Axes:
        """Return the target velocities of turning alone, rad/s."""
        target = WALKING.velocity(Axes(yaw=intent.yaw, pitch=intent.pitch, roll=intent.roll))
        if intent.level:
            # Twice the roll key's speed, so that levelling wins against a finger still on it.
            target = target._replace(roll=_settle(roll_rad, self._limits.settle_s, 2.0 * WALKING.turn_rad_s))
        return target

    def _clamp_height(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = self._eye_y_m - self._limits.climb_m, self._eye_y_m + self._limits.sink_m
        return np.array([position[0], np.clip(position[1], low, high), position[2]])


def _at_rest(state: IntegratorState, left_rad: tuple[float, float]) -> PlannedMotion:
    return PlannedMotion(np.array([_angles(state)]), left_rad, state.position[None])


def _angles(state: IntegratorState) -> tuple[float, float, float]:
    return state.yaw_rad, state.pitch_rad, state.roll_rad


def _settle(value: float, tau_s: float, limit: float) -> float:
    """Return the velocity that brings a value to zero in about tau_s, never faster than the limit."""
    return float(np.clip(-value / tau_s, -limit, limit))


def held_axes(intent: Intent) -> frozenset[str]:
    """Name the directions fully asked for, such as `forward+`.

    A name that is new in a frame makes the integrator answer at once, as it does to a new key; a stick on its
    way does not.
    """
    return frozenset(
        f"{name}{'+' if value > 0 else '-'}" for name in Axis if abs(value := getattr(intent, name)) == 1.0
    )


def finite_intent(intent: Intent) -> Intent:
    """Return the intent with axes in [-1, 1] and no value that is not a number."""

    def clean(value: float, limit: float) -> float:
        return max(-limit, min(limit, value)) if math.isfinite(value) else 0.0

    return replace(
        intent,
        **{name.value: clean(getattr(intent, name), 1.0) for name in Axis},
        # Ten turns in one chunk is no hand, but a broken driver.
        **{name: clean(getattr(intent, name), 20.0 * math.pi) for name in ("look_dx_rad", "look_dy_rad")},
    )
