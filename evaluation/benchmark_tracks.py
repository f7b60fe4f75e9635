"""Simple and hard tracks in the manner of SANA-WM-Bench, laid through a place without touching anything.

The paper's own ten templates of each kind are not published; these follow its description: arcs, S-bends and eights, and for
hard ones whip-pans, vertical motion and double loops; centripetal splines, at most 0.4 m/s and 12 degrees a second. A template is
a lap of arcs that ends where it began and is walked again until the track is long enough, so every track revisits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from evaluation.poses.alignment import rotation_angles_deg
from evaluation.rollouts import Poses
from holodeck import Place
from holodeck.walks import clear_points

Array = NDArray[np.float64]

KNOT_S = 0.5
"""Between knots."""
RADIUS_M = 0.6
"""Of the ball that must fit along the whole track."""
RADII_M = (2.4, 2.0, 1.6, 1.3, 1.0, 0.8, 0.6, 0.4)
"""Of the arcs; all are tried, the widest first."""
LEADS_M = (0.0, 1.5, 3.0, 4.5)
"""Ways straight ahead before the first arc, tried for each radius: many places begin with a wall at one's back."""
POINT_M = 0.02
"""Step along a lap."""
MAX_SPEED_M_S, MAX_TURN_DEG_S = 0.4, 12.0
"""Of the published tracks."""
MOST_SLOWED = 6
"""Times that a track is slowed down until it keeps its limits between knots too, where a spline is faster than at them."""
DENSE_S = 1.0 / 32.0
"""Between points of a track before its limits are kept, in the time that it would take without them."""
SMOOTH_M = 0.12
"""Standard deviation along the way that corners are rounded with: nobody turns back at full speed."""
WHIP_PERIOD_M, WHIP_DEG = 4.0, 40.0
"""Way between two looks aside, and how far they go."""
RISE_PERIOD_M = 4.0
"""Way on which a track rises and sinks once."""
LOW_M, HIGH_M = 1.0, 2.6
"""Heights between which a rising track moves."""


@dataclass(frozen=True)
class Template:
    """The shape of a track."""

    name: str
    arcs: tuple[float, ...]
    """Degrees of the arcs of a lap, clockwise positive, all of one radius; what does not close is walked back backwards."""
    whips: bool = False
    """Looks aside and back."""
    rises: bool = False
    """Up and down, looking down from above and up from below."""


SIMPLE = (
    Template("arc-right", (90.0,)),
    Template("arc-left", (-90.0,)),
    Template("s-right", (60.0, -60.0)),
    Template("s-left", (-60.0, 60.0)),
    Template("circle-right", (360.0,)),
    Template("circle-left", (-360.0,)),
    Template("eight-right", (360.0, -360.0)),
    Template("eight-left", (-360.0, 360.0)),
    Template("wave-right", (40.0, -80.0, 40.0)),
    Template("wave-left", (-40.0, 80.0, -40.0)),
)
HARD = (
    Template("whip-arc-right", (90.0,), whips=True),
    Template("whip-arc-left", (-90.0,), whips=True),
    Template("whip-s-right", (60.0, -60.0), whips=True),
    Template("whip-s-left", (-60.0, 60.0), whips=True),
    Template("rise-circle-right", (360.0,), rises=True),
    Template("rise-circle-left", (-360.0,), rises=True),
    Template("rise-s", (60.0, -60.0), rises=True),
    Template("double-loop-right", (720.0, -360.0)),
    Template("double-loop-left", (-720.0, 360.0)),
    Template("rise-whip-arc", (90.0,), whips=True, rises=True),
)


def simple_track(place: Place, num_frames: int, fps: int, seed: int) -> Poses:
    """Lay the simple track of a seed: arcs, S-bends, eights; see `lay_track`."""
    return lay_track(SIMPLE[seed % len(SIMPLE)], place, num_frames, fps)


def hard_track(place: Place, num_frames: int, fps: int, seed: int) -> Poses:
    """Lay the hard track of a seed: whip-pans, vertical motion, double loops; see `lay_track`."""
    return lay_track(HARD[seed % len(HARD)], place, num_frames, fps)


def lay_track(template: Template, place: Place, num_frames: int, fps: int) -> Poses:
    """Lay a track from the place's spawn pose on, as wide as it fits.

    Returns:
        Camera-to-world, metres, [num_frames, 4, 4]; a ball of RADIUS_M moves along it freely.

    Raises:
        ValueError: It does not fit even at its smallest.
    """
    for radius, lead in itertools.product(RADII_M, LEADS_M):
        poses = _poses(template, place, num_frames, fps, _lap(template.arcs, radius, lead))
        if clear_points(place, poses[:, :3, 3], RADIUS_M).all():
            return poses
    raise ValueError(f"the track {template.name} does not fit into {place.name}; take --tracks walks there")


def _poses(template: Template, place: Place, num_frames: int, fps: int, lap: Array) -> Poses:
    times = np.arange(num_frames) / fps

    def at_pace(pace: float) -> Poses:
        positions, angles = _knots(template, place, lap, 2 + int(np.ceil(times[-1] / KNOT_S)), pace)
        c2w = np.tile(np.eye(4), (num_frames, 1, 1))
        c2w[:, :3, 3] = catmull_rom(positions, times / KNOT_S)
        c2w[:, :3, :3] = squad(Rotation.from_euler("YX", angles, degrees=True), times / KNOT_S).as_matrix()
        return c2w

    pace, c2w = 1.0, at_pace(1.0)
    for _ in range(MOST_SLOWED):
        over = _over_limits(c2w, fps)
        if over <= 1.0:
            break
        pace /= over
        c2w = at_pace(pace)
    return c2w


def _over_limits(c2w: Poses, fps: int) -> float:
    """Greatest speed or turn between frames, over what is allowed."""
    moved = np.linalg.norm(np.diff(c2w[:, :3, 3], axis=0), axis=1).max(initial=0.0) * fps
    turned = rotation_angles_deg(c2w[:-1], c2w[1:]).max(initial=0.0) * fps
    return float(max(moved / MAX_SPEED_M_S, turned / MAX_TURN_DEG_S))


def _knots(template: Template, place: Place, lap: Array, count: int, pace: float) -> tuple[Array, Array]:
    """Positions [K, 3] and yaw and pitch in degrees [K, 2] of knots, KNOT_S apart, at a pace of so much of the limits."""
    # Slowed down by turning, a track goes no farther than this.
    way = np.arange(0.0, MAX_SPEED_M_S * KNOT_S * count + POINT_M, MAX_SPEED_M_S * DENSE_S)
    positions, angles = (_rounded(each) for each in _along_track(template, place, lap, way))
    moved = np.linalg.norm(np.diff(positions, axis=0), axis=1) / MAX_SPEED_M_S
    turned = np.linalg.norm(np.diff(angles, axis=0), axis=1) / MAX_TURN_DEG_S
    reached_s = np.concatenate([[0.0], np.cumsum(np.maximum(moved, turned))]) / pace
    knots_s = KNOT_S * np.arange(count, dtype=np.float64)
    columns = np.concatenate([positions, angles], 1).T
    knots = np.stack([np.interp(knots_s, reached_s, column) for column in columns], 1)
    return knots[:, :3], knots[:, 3:]


def _rounded(values: Array) -> Array:
    """Smooth [N, D] along the way; the ends stay where they are."""
    reach = round(4 * SMOOTH_M / (MAX_SPEED_M_S * DENSE_S))
    # Mirrored through its end points, so that a straight end stays straight.
    padded = np.concatenate(
        [2 * values[:1] - values[reach:0:-1], values, 2 * values[-1:] - values[-2 : -reach - 2 : -1]]
    )
    smooth = gaussian_filter1d(padded, SMOOTH_M / (MAX_SPEED_M_S * DENSE_S), axis=0)
    return np.asarray(smooth[reach:-reach], np.float64)


def _along_track(template: Template, place: Place, lap: Array, way: Array) -> tuple[Array, Array]:
    """Positions [N, 3] and angles [N, 2] after ways along the ground, metres."""
    right, forward, heading = _along(lap, way)
    height = -place.spawn[1, 3] + np.zeros_like(way)
    pitch = np.zeros_like(way)
    if template.rises:
        middle, half = (LOW_M + HIGH_M) / 2, (HIGH_M - LOW_M) / 2
        start = np.arcsin((height[0] - middle) / half)
        height = middle + half * np.sin(start + 2 * np.pi * way / RISE_PERIOD_M)
        pitch = 12.0 * (height[0] - height) / half
    if template.whips:
        heading = heading + WHIP_DEG * np.sin(2 * np.pi * way / WHIP_PERIOD_M) ** 3
    yaw = np.radians(place.spawn_yaw_deg)
    spawn = place.spawn[:3, 3]
    positions = np.stack(
        [
            spawn[0] + np.cos(yaw) * right + np.sin(yaw) * forward,
            -height,
            spawn[2] - np.sin(yaw) * right + np.cos(yaw) * forward,
        ],
        1,
    )
    return positions, np.stack([place.spawn_yaw_deg + heading, pitch], 1)


def _lap(arcs: tuple[float, ...], radius: float, lead: float) -> Array:
    """Points of one lap, at equal steps from the origin and back to it: right, forward, heading in degrees, [P, 3]."""
    ahead = POINT_M * np.arange(round(lead / POINT_M) + 1, dtype=np.float64)
    way_in = np.stack([np.zeros_like(ahead), ahead, np.zeros_like(ahead)], 1)
    turns = [np.full(round(np.radians(abs(a)) * radius / POINT_M), np.sign(a)) for a in arcs]
    steps = np.asarray(np.degrees(POINT_M / radius) * np.concatenate(turns), np.float64)
    heading = np.cumsum(steps)
    middle = np.radians(heading - steps / 2)
    right, forward = POINT_M * np.cumsum(np.sin(middle)), POINT_M * np.cumsum(np.cos(middle))
    bend = np.stack([right, forward + way_in[-1, 1], heading], 1)
    closed = np.hypot(right[-1], forward[-1]) < 5 * POINT_M
    if closed:
        way_out = way_in[::-1] + np.array([0.0, 0.0, heading[-1]])
        return np.concatenate([way_in, bend, way_out[1:]])
    return np.concatenate([way_in, bend, bend[-2::-1], way_in[::-1]])


def _along(lap: Array, distance: Array) -> tuple[Array, Array, Array]:
    """Right, forward and heading after distances along a lap that is walked again and again."""
    length = POINT_M * (len(lap) - 1)
    laps, rest = np.divmod(distance, length)
    at = np.minimum(rest / POINT_M, len(lap) - 1)
    right, forward, heading = (np.interp(at, np.arange(len(lap)), column) for column in lap.T)
    return right, forward, heading + laps * (lap[-1, 2] - lap[0, 2])


def catmull_rom(knots: Array, times: Array) -> Array:
    """Go through positions [K, D], knot k at time k, by centripetal Catmull-Rom splines: no loops or cusps within a segment.

    Args:
        times: In [0, K - 1], [N].

    Returns:
        [N, D].
    """
    segment, share = _segments(len(knots), times)
    # Beyond its ends a path goes on as it came.
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    gaps = np.maximum(np.sqrt(np.linalg.norm(np.diff(padded, axis=0), axis=1)), 1e-9)[:, None]
    p0, p1, p2, p3 = (padded[segment + n] for n in range(4))
    before, here, after = (gaps[segment + n] for n in range(3))
    t0, t1, t2, t3 = np.zeros_like(before), before, before + here, before + here + after
    t = t1 + share[:, None] * here
    a1 = ((t1 - t) * p0 + (t - t0) * p1) / (t1 - t0)
    a2 = ((t2 - t) * p1 + (t - t1) * p2) / (t2 - t1)
    a3 = ((t3 - t) * p2 + (t - t2) * p3) / (t3 - t2)
    b1 = ((t2 - t) * a1 + (t - t0) * a2) / (t2 - t0)
    b2 = ((t3 - t) * a2 + (t - t1) * a3) / (t3 - t1)
    return ((t2 - t) * b1 + (t - t1) * b2) / (t2 - t1)


def squad(knots: Rotation, times: Array) -> Rotation:
    """Turn through rotations, knot k at time k, by spherical quadrangles: smooth in angular velocity, always unit.

    Args:
        times: In [0, K - 1], [N].
    """
    count = len(knots)
    index = np.arange(count)
    ahead = (knots.inv() * _pick(knots, np.minimum(index + 1, count - 1))).as_rotvec()
    behind = (knots.inv() * _pick(knots, np.maximum(index - 1, 0))).as_rotvec()
    inner = knots * Rotation.from_rotvec(-(ahead + behind) / 4)
    segment, t = _segments(count, times)
    outside = _slerp(_pick(knots, segment), _pick(knots, segment + 1), t)
    inside = _slerp(_pick(inner, segment), _pick(inner, segment + 1), t)
    return _slerp(outside, inside, 2 * t * (1 - t))


def _pick(rotations: Rotation, index: NDArray[np.int64]) -> Rotation:
    return Rotation.from_quat(rotations.as_quat()[index])


def _slerp(start: Rotation, end: Rotation, t: Array) -> Rotation:
    return start * Rotation.from_rotvec((start.inv() * end).as_rotvec() * t[:, None])


def _segments(count: int, times: Array) -> tuple[NDArray[np.int64], Array]:
    """Segment of each time and how far it is through it, [N] each.

    Raises:
        ValueError: There are fewer than two knots, or a time lies outside them.
    """
    if count < 2:
        raise ValueError(f"a spline takes two knots or more, got {count}")
    if times.min() < 0 or times.max() > count - 1:
        raise ValueError(f"times must lie between 0 and {count - 1}, got {times.min():g} to {times.max():g}")
    segment = np.minimum(times.astype(np.int64), count - 2)
    return segment, times - segment
