"""Camera families in a place: orbit, spiral, dolly, fly-through, walk, look-around, crane, pendulum, compound; clear of walls.

A family draws curves until one is free from end to end and sees something; the throughput along it is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.camera.integrator import rotation_x, rotation_y, rotation_z
from engine.session.holodeck_session import WALKER_RADIUS_M
from holodeck import Place, walks
from holodeck.walks import clear_points
from training.data.clip import ClipRejected

Array = NDArray[np.float64]

MAX_CANDIDATES = 40
"""Curves drawn for one clip before the place counts as too narrow for the family; the paper draws as many a scene."""
COVERAGE_EVERY, COVERED_FRAMES = 10, 0.7
"""Frames between those that are asked whether they see enough, and the share that must (the paper's)."""
COVERED_PIXELS, FARTHEST_M = 0.3, 64.0
"""Share of a frame that must show surfaces, and how far these may be; the rest may be sky."""
COVERAGE_SIZE, COVERAGE_LENS = (40, 24), np.array([26.0, 26.0, 20.0, 12.0], np.float32)
SAMPLES = 256
"""Points of a curve that are tested; no curve is so long that they lie a decimetre apart."""
MAX_CURVE_M = 25.0
MIN_SPEED, MAX_SPEED = 0.4, 1.6
"""Metres, or radians of turning, a second; a curve that is slower is gone there and back until it is not."""
EASE = 0.12
"""Share of a stretch in which the camera gets going, and as much to come to rest."""


@dataclass(frozen=True)
class Curve:
    """A camera's way, sampled; which of its points are reached when is the throughput's business."""

    position: Array
    """[N, 3], metres, y down."""
    angles_deg: Array
    """Yaw (clockwise from +z), pitch (up), roll; unwrapped, [N, 3]."""

    def slice(self, start: int, stop: int) -> Curve:
        return Curve(self.position[start:stop], self.angles_deg[start:stop])


def draw_poses(
    family: str, place: Place, num_frames: int, fps: float, seed: int, revisit: bool = False
) -> Array:
    """Draw one camera track.

    Args:
        revisit: Come back the way the camera went, so that the second half sees again what the first saw.

    Returns:
        Camera-to-world, OpenCV axes, metres, [num_frames, 4, 4]; a walk starts from the place's spawn pose.

    Raises:
        ClipRejected: The place has no room for the family.
        ValueError: No family has this name.
    """
    if family == "walk":
        there = walks.walk(place, num_frames // 2 + 1 if revisit else num_frames, round(fps), seed)
        return np.concatenate([there, there[::-1]])[:num_frames] if revisit else there
    if family not in CURVES:
        raise ValueError(f"no camera family is called {family!r}; choose from {', '.join(FAMILIES)}")
    rng = np.random.default_rng(seed)
    for _ in range(MAX_CANDIDATES):
        curve = CURVES[family](place, rng)
        if curve is not None and length(curve).max() < MAX_CURVE_M and is_clear(place, curve.position).all():
            track = poses(throughput(curve, num_frames / fps, num_frames, rng.uniform(0.5, 1.0), revisit))
            if is_covered(place, track):
                return track
    raise ClipRejected(f"{place.name} has no room for the camera family {family} of seed {seed}")


def is_covered(place: Place, c2w: Array) -> bool:
    """Whether enough frames see enough of a place, by its exact depth; every tenth is asked, as in the paper's recipe."""
    seen = [
        (place.depth(pose, COVERAGE_LENS, *COVERAGE_SIZE) < FARTHEST_M).mean() > COVERED_PIXELS
        for pose in c2w[::COVERAGE_EVERY]
    ]
    return float(np.mean(seen)) >= COVERED_FRAMES


def is_clear(place: Place, position: Array) -> NDArray[np.bool_]:
    """Whether a walker could stand at each point [N, 3]."""
    return clear_points(place, position, WALKER_RADIUS_M)


def length(curve: Curve) -> Array:
    """Way from the start to each point, metres, or radians where turning is more, [N]."""
    metres = np.linalg.norm(np.diff(curve.position, axis=0), axis=1)
    turn = np.abs(np.radians(np.diff(curve.angles_deg, axis=0))).max(1)
    return np.concatenate([[0.0], np.cumsum(np.maximum(metres, turn))])


def throughput(curve: Curve, seconds: float, num_frames: int, eagerness: float, revisit: bool) -> Curve:
    """Walk a curve in a given time: once, or there and back.

    A curve that is too long for the time at MAX_SPEED * eagerness is left before its end; one that is too short at
    MIN_SPEED is walked there and back until it is not.
    """
    way = length(curve)
    # Getting going and coming to rest take half of EASE each at either end of a stretch.
    reach = MAX_SPEED * eagerness * seconds * (1.0 - EASE)
    stretches = 2 if revisit else 1
    end = min(way[-1], reach / stretches)
    while end * stretches < MIN_SPEED * seconds * (1.0 - EASE) and end * (stretches + 1) <= reach:
        stretches += 2 if revisit else 1
    time = np.linspace(0.0, stretches, num_frames)
    number = np.minimum(time.astype(int), stretches - 1)
    share = ease(time - number)
    where = end * np.where(number % 2 == 0, share, 1.0 - share)
    return Curve(
        np.stack([np.interp(where, way, column) for column in curve.position.T], 1),
        np.stack([np.interp(where, way, column) for column in curve.angles_deg.T], 1),
    )


def ease(time: Array) -> Array:
    """Share of a stretch walked at a share of its time: speed rises, holds and falls linearly."""
    speed = 1.0 / (1.0 - EASE)
    rise = 0.5 * speed * np.minimum(time, EASE) ** 2 / EASE
    hold = speed * np.clip(time - EASE, 0.0, 1.0 - 2.0 * EASE)
    left = np.clip(1.0 - time, 0.0, EASE)
    fall = np.where(time > 1.0 - EASE, 0.5 * speed * (EASE - left**2 / EASE), 0.0)
    return rise + hold + fall


def poses(curve: Curve) -> Array:
    """Camera-to-world of every point of a curve, [N, 4, 4]."""
    c2w = np.tile(np.eye(4), (len(curve.position), 1, 1))
    for pose, position, (yaw, pitch, roll) in zip(
        c2w, curve.position, np.radians(curve.angles_deg), strict=True
    ):
        pose[:3, :3] = rotation_y(yaw) @ rotation_x(pitch) @ rotation_z(roll)
        pose[:3, 3] = position
    return c2w


def _free_point(place: Place, rng: np.random.Generator, low_m: float = 1.2, high_m: float = 2.2) -> Array:
    """Draw a free point between two heights above the ground; one that is not free where there is none."""
    low_x, low_z, high_x, high_z = place.bounds
    point = np.zeros(3)
    for _ in range(MAX_CANDIDATES):
        point = np.array(
            [rng.uniform(low_x, high_x), -rng.uniform(low_m, high_m), rng.uniform(low_z, high_z)]
        )
        if is_clear(place, point[None])[0]:
            break
    return point


def _looking_at(position: Array, target: Array) -> Array:
    """Angles of cameras at [N, 3] that look at a point, unwrapped, [N, 3] degrees."""
    gap = target - position
    yaw = np.degrees(np.unwrap(np.arctan2(gap[:, 0], gap[:, 2])))
    pitch = np.degrees(np.arctan2(-gap[:, 1], np.hypot(gap[:, 0], gap[:, 2])))
    return np.stack([yaw, pitch, np.zeros(len(gap))], 1)


def _something(place: Place, rng: np.random.Generator) -> Array:
    """Draw something to look at: the middle of a solid shape, no higher than eyes."""
    solid = np.flatnonzero(place.arrays.solid)
    n = solid[rng.integers(len(solid))]
    middle = (place.arrays.low[n] + place.arrays.high[n]).astype(np.float64) / 2.0
    middle[1] = max(middle[1], -1.6)
    return middle


def _around(
    place: Place, rng: np.random.Generator, turns: float, radii: Array, heights: Array
) -> Curve | None:
    """The longest free part of a turn around something; None where it is less than a sixth of a circle."""
    target = _something(place, rng)
    angle = rng.uniform(0.0, 2.0 * np.pi) + rng.choice([-1, 1]) * np.linspace(
        0.0, 2.0 * np.pi * turns, SAMPLES
    )
    radius = np.linspace(radii[0], radii[1], SAMPLES)
    ring = np.stack(
        [np.sin(angle) * radius, np.linspace(heights[0], heights[1], SAMPLES), np.cos(angle) * radius], 1
    )
    position = ring + target * [1.0, 0.0, 1.0]
    start, stop = _longest_run(is_clear(place, position))
    if (stop - start) * turns < SAMPLES / 6:
        return None
    return Curve(position, _looking_at(position, target)).slice(start, stop)


def _longest_run(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and stop of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    if not len(edges):
        return 0, 0
    starts, stops = edges[::2], edges[1::2]
    n = int((stops - starts).argmax())
    return int(starts[n]), int(stops[n])


def _orbit(place: Place, rng: np.random.Generator) -> Curve | None:
    radius, height = rng.uniform(1.5, 4.5), -rng.uniform(1.0, 2.4)
    return _around(place, rng, 1.0, np.array([radius, radius]), np.array([height, height]))


def _spiral(place: Place, rng: np.random.Generator) -> Curve | None:
    radii = np.sort(rng.uniform(1.5, 5.0, 2))[:: rng.choice([-1, 1])]
    return _around(place, rng, 1.5, radii, -rng.uniform(0.8, 2.6, 2))


def _dolly(place: Place, rng: np.random.Generator) -> Curve | None:
    """Straight on rails, the view fixed: ahead, behind, or to a side."""
    start, yaw = _free_point(place, rng), rng.uniform(-180.0, 180.0)
    rise = rng.choice([0.0, 0.0, rng.uniform(-0.15, 0.15)])
    step = np.array([np.sin(np.radians(yaw)), -rise, np.cos(np.radians(yaw))])
    position = start + np.linspace(0.0, 8.0, SAMPLES)[:, None] * step
    free = is_clear(place, position)
    stop = SAMPLES if free.all() else int(free.argmin())
    if stop < SAMPLES / 4:
        return None
    view = np.array([yaw + rng.choice([0.0, 0.0, 180.0, 90.0, -90.0]), rng.uniform(-8.0, 4.0), 0.0])
    return Curve(position, np.tile(view, (SAMPLES, 1))).slice(0, stop)


def _fly_through(place: Place, rng: np.random.Generator) -> Curve | None:
    """Between free points at many heights, rounded off, looking ahead and leaning into bends."""
    corners = [_free_point(place, rng, 0.7, 2.7)]
    for _ in range(MAX_CANDIDATES):
        there = _free_point(place, rng, 0.7, 2.7)
        gap = np.linalg.norm(there - corners[-1])
        if 2.0 < gap < 7.0 and is_clear(place, np.linspace(corners[-1], there, 32)).all():
            corners.append(there)
        if len(corners) == 5:
            break
    if len(corners) < 3:
        return None
    position = _rounded(np.array(corners))
    ahead = np.gradient(position, axis=0)
    angles = _looking_at(-ahead, np.zeros(3))
    angles[:, 1] *= 0.5
    angles[:, 0] = _smooth(angles[:, 0])
    bend = np.gradient(angles[:, 0])
    angles[:, 2] = np.clip(3.0 * _smooth(bend), -10.0, 10.0)
    return Curve(position, angles)


def _rounded(corners: Array) -> Array:
    """A polyline at even steps, its corners rounded, [SAMPLES, 3]."""
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    even = np.linspace(0.0, way[-1], SAMPLES)
    return np.stack([_smooth(np.interp(even, way, column)) for column in corners.T], 1)


def _smooth(values: Array, width: int = 41) -> Array:
    """Average over a window, twice; the ends stay."""
    kernel = np.hanning(width + 2)[1:-1]
    kernel /= kernel.sum()
    half = width // 2
    # Mirrored through its end point, so that a straight end stays straight.
    padded = np.concatenate(
        [2 * values[0] - values[half:0:-1], values, 2 * values[-1] - values[-2 : -half - 2 : -1]]
    )
    return np.asarray(np.convolve(padded, kernel, "valid"), np.float64)


def _look_around(place: Place, rng: np.random.Generator) -> Curve | None:
    """Stand and turn: all the way round, or to and fro."""
    turn = np.linspace(0.0, 1.0, SAMPLES)
    to_and_fro = rng.uniform(40.0, 90.0) * np.sin(2.0 * np.pi * turn)
    yaw = to_and_fro if rng.random() < 0.5 else rng.choice([-1, 1]) * 360.0 * turn
    pitch = rng.uniform(0.0, 14.0) * np.sin(2.0 * np.pi * turn * rng.integers(1, 3))
    angles = np.stack([rng.uniform(-180.0, 180.0) + yaw, pitch, np.zeros(SAMPLES)], 1)
    position = np.tile(_free_point(place, rng, 1.5, 1.7), (SAMPLES, 1))
    # Nobody stands like a tripod.
    position += 0.05 * np.sin(2.0 * np.pi * (turn[:, None] * [2.0, 3.0, 2.5] + rng.random(3)))
    return Curve(position, angles)


def _crane(place: Place, rng: np.random.Generator) -> Curve | None:
    """At the end of a boom that rises or sinks and sweeps a little, looking at something in front of it."""
    foot, yaw = _free_point(place, rng, 0.8, 1.2), rng.uniform(-np.pi, np.pi)
    boom = rng.uniform(1.8, 3.5)
    # The boom ends at the least and at the greatest height that its foot allows.
    most = np.arcsin(np.clip((2.6 + foot[1]) / boom, 0.0, 0.9))
    lift = most * (np.linspace(0.0, 1.0, SAMPLES) if rng.random() < 0.5 else np.linspace(1.0, 0.0, SAMPLES))
    sweep = yaw + np.radians(rng.uniform(-40.0, 40.0)) * np.linspace(0.0, 1.0, SAMPLES)
    arm = np.stack([np.sin(sweep) * np.cos(lift), -np.sin(lift), np.cos(sweep) * np.cos(lift)], 1)
    position = foot + boom * arm
    ahead = np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    target = foot + rng.uniform(boom + 3.0, boom + 6.0) * ahead
    return Curve(position, _looking_at(position, target))


def _pendulum(place: Place, rng: np.random.Generator) -> Curve | None:
    """To and fro on an arc around something, higher at its ends, looking at it."""
    target = _something(place, rng)
    radius, height = rng.uniform(1.3, 4.0), rng.uniform(1.0, 1.8)
    reach, lift = np.radians(rng.uniform(15.0, 50.0)), rng.uniform(0.1, 0.6)
    swings = rng.integers(1, 4)
    swing = np.sin(2.0 * np.pi * swings * np.linspace(0.0, 1.0, SAMPLES))
    angle = rng.uniform(0.0, 2.0 * np.pi) + reach * swing
    up = height + lift * (1.0 - np.cos(reach * swing)) / (1.0 - np.cos(reach))
    position = np.stack([target[0] + radius * np.sin(angle), -up, target[2] + radius * np.cos(angle)], 1)
    return Curve(position, _looking_at(position, target))


def _compound(place: Place, rng: np.random.Generator) -> Curve | None:
    """Several motions at once: along rails while rising or sinking, turning aside and leaning."""
    start, yaw = _free_point(place, rng, 1.0, 2.0), rng.uniform(-180.0, 180.0)
    share = np.linspace(0.0, 1.0, SAMPLES)
    bend = np.radians(yaw + rng.uniform(-60.0, 60.0) * share)
    steps = rng.uniform(3.0, 7.0) / SAMPLES * np.stack([np.sin(bend), np.zeros(SAMPLES), np.cos(bend)], 1)
    position = start + np.cumsum(steps, 0) - steps[0]
    position[:, 1] -= rng.uniform(-0.5, 0.5) * np.sin(np.pi * share * rng.integers(1, 3))
    pan = rng.uniform(20.0, 80.0) * rng.choice([-1, 1]) * np.sin(0.5 * np.pi * share * rng.integers(1, 4))
    lean = rng.uniform(0.0, 8.0) * np.sin(2.0 * np.pi * share)
    tilt = rng.uniform(-8.0, 6.0) * np.sin(np.pi * share)
    return Curve(position, np.stack([np.degrees(np.unwrap(bend)) + pan, tilt, lean], 1))


CURVES: dict[str, Callable[[Place, np.random.Generator], Curve | None]] = {
    "orbit": _orbit,
    "spiral": _spiral,
    "dolly": _dolly,
    "fly-through": _fly_through,
    "look-around": _look_around,
    "crane": _crane,
    "pendulum": _pendulum,
    "compound": _compound,
}
FAMILIES = ("orbit", "spiral", "dolly", "fly-through", "walk", "look-around", "crane", "pendulum", "compound")
"""All camera families."""
