"""Camera walks through a place: people who stroll, look around and fly, and never pass through walls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holodeck.collision import FLOOR_M, are_free, is_free
from holodeck.place import Place

Array = NDArray[np.float64]

CLEAR_VIEW_M = 4.0
"""A view that is blocked nearer than this is left for a better one: most frames should show more than one bare wall."""
WALL_M = 1.6
"""What is nearer than this ahead fills the view."""
CLEARANCE_STEP_M = 0.5
"""Steps in which it is looked ahead."""


@dataclass(frozen=True)
class Gait:
    """How one stretch of a walk moves."""

    speed_m_s: float
    look_offset_deg: float
    """View direction relative to the direction of travel."""
    pitch_deg: float
    roll_deg: float
    height_m: float
    turn_rate_deg_s: float


def random_gait(rng: np.random.Generator) -> Gait:
    """Draw a stretch: mostly strolls, sometimes a look around, sometimes a flight."""
    kind = rng.random()
    if kind < 0.7:
        return Gait(rng.uniform(1.0, 2.2), rng.normal(0, 14), rng.normal(0, 3), 0.0, 1.6, rng.uniform(18, 50))
    if kind < 0.86:
        return Gait(
            rng.uniform(0.0, 0.6), rng.uniform(-180, 180), rng.normal(0, 7), 0.0, 1.6, rng.uniform(20, 55)
        )
    roll = rng.normal(0, 8) if rng.random() < 0.5 else 0.0
    return Gait(
        rng.uniform(0.8, 2.2),
        rng.normal(0, 30),
        rng.normal(0, 8),
        roll,
        rng.uniform(0.9, 2.7),
        rng.uniform(18, 45),
    )


def walk(place: Place, num_frames: int, fps: int, seed: int) -> Array:
    """Walk from the place's spawn pose through random free waypoints.

    Returns:
        Camera-to-world poses, OpenCV axes, metres, [num_frames, 4, 4]; the first is `place.spawn`.
    """
    rng = np.random.default_rng(seed)
    walker = _Walker(place, rng, 1.0 / fps)
    poses = [place.spawn]
    while len(poses) < num_frames:
        poses.append(walker.advance())
    return np.stack(poses)


class _Walker:
    """Position, view angles and their smoothed rates; one `advance` per video frame."""

    def __init__(self, place: Place, rng: np.random.Generator, dt_s: float) -> None:
        self.place, self.rng, self.dt_s = place, rng, dt_s
        self.position = place.spawn[:3, 3].copy()
        self.velocity = np.zeros(3)
        self.angles_deg = np.array([place.spawn_yaw_deg, 0.0, 0.0])
        """Yaw (clockwise from +z), pitch (up positive), roll."""
        self.rates = np.zeros(3)
        self.heading_deg = place.spawn_yaw_deg
        self.waypoint: Array | None = None
        self.blocked_s = 0.0
        """For how long a wall has filled the view."""
        self._new_stretch()

    def _new_stretch(self) -> None:
        self.gait = random_gait(self.rng)
        self.left_s = self.rng.uniform(0.8, 3.5)
        if self.rng.random() < 0.75 or self.waypoint is None:
            self.waypoint = self._free_point()
        self.stop_s = 0.0
        self._look_where_it_is_open()

    def _clearance_m(self, yaw_deg: float, most_m: float = CLEAR_VIEW_M) -> float:
        """Distance to the first solid thing at eye height in a direction, at most `most_m`."""
        step = CLEARANCE_STEP_M * np.array([np.sin(np.radians(yaw_deg)), 0.0, np.cos(np.radians(yaw_deg))])
        num_steps = round(most_m / CLEARANCE_STEP_M)
        points = np.add.accumulate([self.position, *[step] * num_steps])[1:]
        free = are_free(self.place.arrays, points, 0.1)
        return most_m if free.all() else CLEARANCE_STEP_M * (int(free.argmin()) + 1)

    def _look_where_it_is_open(self) -> None:
        """Turn the stretch's view direction to the most open of a few random offsets, if its own is blocked."""
        offsets = [self.gait.look_offset_deg, *self.rng.uniform(-180, 180, 5)]
        open_m = [self._clearance_m(self.heading_deg + offset) for offset in offsets]
        if open_m[0] < CLEAR_VIEW_M:
            self.gait = replace(self.gait, look_offset_deg=float(offsets[int(np.argmax(open_m))]))

    def _free_point(self) -> Array:
        low_x, low_z, high_x, high_z = self.place.bounds
        for _ in range(100):
            point = np.array([self.rng.uniform(low_x, high_x), -1.6, self.rng.uniform(low_z, high_z)])
            if is_free(self.place.arrays, point, 0.7):
                return point
        return self.place.spawn[:3, 3].copy()

    def advance(self) -> Array:
        """Move by one video frame and return the pose."""
        self.left_s -= self.dt_s
        gap = self._gap()
        if self.left_s < 0 or np.hypot(gap[0], gap[2]) < 0.5:
            self._new_stretch()
            gap = self._gap()
        self._turn(np.degrees(np.arctan2(gap[0], gap[2])))
        self._move()
        self.blocked_s = (
            self.blocked_s + self.dt_s if self._clearance_m(self.angles_deg[0], WALL_M) < WALL_M else 0.0
        )
        if self.blocked_s > 0.5:
            self._look_where_it_is_open()
            self.blocked_s = 0.0
        return self._pose()

    def _gap(self) -> Array:
        assert self.waypoint is not None
        return self.waypoint - self.position

    def _turn(self, wanted_heading_deg: float) -> None:
        gait, rate = self.gait, self.gait.turn_rate_deg_s
        error = (wanted_heading_deg - self.heading_deg + 180) % 360 - 180
        self.heading_deg += np.clip(error, -rate * self.dt_s, rate * self.dt_s)
        target = np.array([self.heading_deg + gait.look_offset_deg, gait.pitch_deg, gait.roll_deg])
        error = target - self.angles_deg
        error[0] = (error[0] + 180) % 360 - 180
        wanted = np.clip(2.5 * error, -rate, rate)
        # Rates follow with a lag of about a quarter second: no head turns in no time.
        self.rates += (wanted - self.rates) * min(1.0, self.dt_s / 0.25)
        self.angles_deg = self.angles_deg + self.rates * self.dt_s

    def _move(self) -> None:
        heading = np.radians(self.heading_deg)
        speed = self.gait.speed_m_s
        climb = np.clip(-self.gait.height_m - self.position[1], -0.8, 0.8)
        wanted = np.array([np.sin(heading) * speed, climb, np.cos(heading) * speed])
        self.velocity += (wanted - self.velocity) * min(1.0, self.dt_s / 0.3)
        before = self.position
        self.position = self.place.slide(before, self.velocity * self.dt_s, 0.6)
        moved = np.linalg.norm(self.position - before) / self.dt_s
        if speed > 0.7 and moved < 0.4 * speed:
            # Running into a wall: choose somewhere else to go.
            self.stop_s += self.dt_s
            if self.stop_s > 0.4:
                self.waypoint, self.stop_s = self._free_point(), 0.0

    def _pose(self) -> Array:
        yaw, pitch, roll = np.radians(self.angles_deg)
        cy, sy, cp, sp, cr, sr = (
            np.cos(yaw),
            np.sin(yaw),
            np.cos(pitch),
            np.sin(pitch),
            np.cos(roll),
            np.sin(roll),
        )
        c2w = np.eye(4)
        c2w[:3, :3] = (
            np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
            @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
            @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        )
        c2w[:3, 3] = self.position
        return c2w


def clear_points(place: Place, positions: NDArray[np.float64], radius_m: float) -> NDArray[np.bool_]:
    """Whether a ball is inside a place's bounds and outside its solids at each position [N, 3], metres."""
    low_x, low_z, high_x, high_z = place.bounds
    x, y, z = positions.T
    inside = (
        (x >= low_x + radius_m)
        & (x <= high_x - radius_m)
        & (z >= low_z + radius_m)
        & (z <= high_z - radius_m)
        & (-y >= FLOOR_M)
        & (-y <= place.ceiling_m)
    )
    # Solids are asked only where bounds have said nothing yet.
    inside[inside] = are_free(place.arrays, positions[inside], radius_m)
    return inside
