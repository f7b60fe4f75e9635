"""Keyframes of a place's spatial memory, placed where they show most of what walkers see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import Keyframe
from engine.memory.renderer import MemoryRenderer
from holodeck import Place
from holodeck.collision import are_free, is_free
from holodeck.compiled import render_rgbd
from holodeck.walks import walk

Array = NDArray[np.float32]

SIDE_PX = 512
"""Sides of a keyframe; its field of view is 90 degrees, six of them see everything around a point."""
COLOR_QUALITY = 62
"""Of the colour of keyframes that are kept, as AVIF."""
SCOUT_PX = 128
"""The same of the pictures by which a place for a keyframe is judged."""
HEIGHTS_M = (0.8, 1.6, 2.6)
PROBE_WIDTH, PROBE_HEIGHT, PROBE_FOCAL = 32, 20, 20.8
"""The pictures of the views that are to be covered, a tenth of the frames that are shown."""
FREE_RADIUS_M = 0.25
SHOWN_WIDTH, SHOWN_HEIGHT, SHOWN_FOCAL = 320, 192, 208.0
ERROR_BLOCK_PX = 16
MOST_HARD_POINTS = 8000
"""Points of the views that are rendered worst, which further keyframes are chosen by."""
LEAST_GAIN = 1e-4
"""Mean gain over all points below which no further keyframe is worth its place."""


@dataclass(frozen=True)
class Placement:
    """How many keyframes a place gets."""

    most: int = 190
    mending: float = 0.45
    """Share of them that is placed where the memory of those before was rendered wrong."""
    rounds: int = 5
    """In which that is found out."""
    num_mended_views: int = 300
    """Views that are rendered in each round."""
    num_positions: int = 70
    """Free positions that are tried, each with six directions."""
    num_views: int = 160
    seed: int = 70001
    side: int = SIDE_PX
    """Pixels along each side of a keyframe."""


def place_keyframes(
    place: Place, placement: Placement, progress: Callable[[float], None] | None = None
) -> list[Keyframe]:
    """Choose and render keyframes.

    Most are chosen greedily: those that add most to how well the surfaces of many views are seen. The others are added in rounds,
    where the memory so far is rendered wrong: around thin things, in gaps, close to objects.

    Args:
        progress: Told which share of the candidates is judged.
    """
    rng = np.random.default_rng(placement.seed)
    surfaces = _surfaces(place, rng, placement)
    poses = [
        face for position in free_positions(place, rng, placement.num_positions) for face in faces(position)
    ]
    quality = []
    for done, pose in enumerate(poses, 1):
        quality.append(_quality(place, pose, surfaces))
        if progress is not None:
            progress(done / len(poses))
    per_round = round(placement.most * placement.mending / max(1, placement.rounds))
    first = choose(np.stack(quality), placement.most - per_round * placement.rounds)
    placed = [rendered_keyframe(place, poses[pick], placement.side) for pick in first]
    for _ in range(placement.rounds if per_round else 0):
        placed += _mending(place, placed, placement, per_round, rng)
    return placed


def _mending(
    place: Place, placed: list[Keyframe], placement: Placement, count: int, rng: np.random.Generator
) -> list[Keyframe]:
    """Keyframes from where views are rendered worst, chosen greedily by the squared error of what they see well."""
    memory = MemoryRenderer(placed)
    views = sample_views(place, rng, placement.num_mended_views)
    points, eyes, errors = zip(*(view_errors(place, memory, c2w) for c2w in views), strict=True)
    worst = np.argsort([-error.sum() for error in errors])[: 6 * count]
    weights = np.concatenate(errors)
    hard = np.argsort(-weights)[:MOST_HARD_POINTS]
    surfaces = np.concatenate(points)[hard], np.concatenate(eyes)[hard]
    share = weights[hard] / max(float(weights[hard].mean()), 1e-6)
    quality = [(_quality(place, views[view], surfaces) * share).astype(np.float32) for view in worst]
    chosen = choose(np.stack(quality), count)
    return [rendered_keyframe(place, views[worst[pick]], placement.side) for pick in chosen]


def view_errors(place: Place, memory: MemoryRenderer, c2w: NDArray[np.float64]) -> tuple[Array, Array, Array]:
    """Mean squared error of each block of a rendered view, and the surface point and eye of its worst pixel."""
    lens = np.array([SHOWN_FOCAL, SHOWN_FOCAL, SHOWN_WIDTH / 2, SHOWN_HEIGHT / 2], np.float32)
    truth, depth = render_rgbd(place, c2w, lens, SHOWN_WIDTH, SHOWN_HEIGHT, centred_depth=True)
    shown = memory.render(c2w[None], lens[None], SHOWN_WIDTH, SHOWN_HEIGHT).color[0]
    error = np.square(truth.astype(np.float32) - shown).mean(-1)
    rows, columns = SHOWN_HEIGHT // ERROR_BLOCK_PX, SHOWN_WIDTH // ERROR_BLOCK_PX
    blocks = error.reshape(rows, ERROR_BLOCK_PX, columns, ERROR_BLOCK_PX).swapaxes(1, 2)
    flat = blocks.reshape(rows * columns, -1)
    row, column = np.divmod(flat.argmax(1), ERROR_BLOCK_PX)
    v = row + np.repeat(np.arange(rows), columns) * ERROR_BLOCK_PX
    u = column + np.tile(np.arange(columns), rows) * ERROR_BLOCK_PX
    rays = np.stack([(u + 0.5 - lens[2]) / lens[0], (v + 0.5 - lens[3]) / lens[1], np.ones(len(u))], -1)
    world = (rays * np.minimum(depth[v, u], 1e4)[:, None]) @ c2w[:3, :3].T + c2w[:3, 3]
    eyes = np.broadcast_to(c2w[:3, 3], world.shape)
    return world.astype(np.float32), eyes.astype(np.float32), flat.mean(1)


def choose(quality: Array, most: int) -> list[int]:
    """Choose keyframes greedily, those that add most first, until they add next to nothing.

    Every point counts as well as its best keyframe shows it, and half as well as its second best does.

    Args:
        quality: How well each of K keyframes shows each of P points, in [0, 1], [K, P].

    Returns:
        Rows, in the order of what they add.
    """
    quality = quality.copy()
    best = np.zeros((2, quality.shape[1]), np.float32)
    chosen: list[int] = []
    while len(chosen) < min(most, len(quality)):
        gain = np.maximum(quality - best[0], 0).sum(1) + 0.5 * np.maximum(quality - best[1], 0).sum(1)
        pick = int(gain.argmax())
        if gain[pick] < LEAST_GAIN * quality.shape[1]:
            break
        chosen.append(pick)
        best = np.sort(np.stack([*best, quality[pick]]), 0)[:0:-1]
        quality[pick] = 0
    return chosen


def rendered_keyframe(place: Place, c2w: NDArray[np.float64], side: int = SIDE_PX) -> Keyframe:
    """Render one keyframe of 90 degrees."""
    intrinsics = np.full(4, side / 2, np.float32)
    color, depth = render_rgbd(place, c2w, intrinsics, side, side, centred_depth=True)
    inverse = np.where(depth > 1e4, 0.0, 1.0 / depth)
    return Keyframe.of(color, inverse.astype(np.float32), c2w, intrinsics)


def faces(position: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Six poses that see everything around a point: four around, up, down."""
    found = []
    for ahead, down in (
        ((0, 0, 1), (0, 1, 0)),
        ((1, 0, 0), (0, 1, 0)),
        ((0, 0, -1), (0, 1, 0)),
        ((-1, 0, 0), (0, 1, 0)),
        ((0, -1, 0), (0, 0, 1)),
        ((0, 1, 0), (0, 0, -1)),
    ):
        c2w = np.eye(4)
        c2w[:3, 2], c2w[:3, 1], c2w[:3, 3] = ahead, down, position
        c2w[:3, 0] = np.cross(down, ahead)
        found.append(c2w)
    return found


def free_positions(place: Place, rng: np.random.Generator, count: int) -> list[NDArray[np.float64]]:
    """Free positions, each far from those before: the best of a few random ones."""
    low_x, low_z, high_x, high_z = place.bounds
    found = [place.spawn[:3, 3]]
    while len(found) < count:
        tried = np.array(
            [
                [
                    rng.uniform(low_x + 0.3, high_x - 0.3),
                    -float(rng.choice(HEIGHTS_M)),
                    rng.uniform(low_z + 0.3, high_z - 0.3),
                ]
                for _ in range(24)
            ]
        )
        free = tried[are_free(place.arrays, tried, FREE_RADIUS_M)]
        if not len(free):
            continue
        gaps = [min(float(np.linalg.norm(point - other)) for other in found) for point in free]
        found.append(free[int(np.argmax(gaps))])
    return found


def sample_views(place: Place, rng: np.random.Generator, count: int) -> list[NDArray[np.float64]]:
    """Poses that walkers take: half from walks, half anywhere, looking up, down and askew."""
    found: list[NDArray[np.float64]] = []
    while len(found) < count // 2:
        path = walk(place, 640, 16, int(rng.integers(1 << 30)))
        found += [path[i] for i in rng.choice(640, 20, replace=False)]
    low_x, low_z, high_x, high_z = place.bounds
    while len(found) < count:
        position = np.array(
            [
                rng.uniform(low_x + 0.35, high_x - 0.35),
                -rng.uniform(0.5, 2.8),
                rng.uniform(low_z + 0.35, high_z - 0.35),
            ]
        )
        if is_free(place.arrays, position, 0.35):
            found.append(turned_pose(position, rng.uniform(0, 360), rng.normal(0, 22), rng.normal(0, 12)))
    return found


def turned_pose(
    position: NDArray[np.float64], yaw_deg: float, pitch_deg: float, roll_deg: float
) -> NDArray[np.float64]:
    """The camera-to-world pose [4, 4] of a camera that is turned, then tilted up, then rolled."""
    rotations = [
        cv2.Rodrigues(np.radians(angle) * np.array(axis))[0]
        for angle, axis in (
            (yaw_deg, (0.0, 1.0, 0.0)),
            (pitch_deg, (1.0, 0.0, 0.0)),
            (roll_deg, (0.0, 0.0, 1.0)),
        )
    ]
    c2w = np.eye(4)
    c2w[:3, :3] = rotations[0] @ rotations[1] @ rotations[2]
    c2w[:3, 3] = position
    return c2w


def _surfaces(place: Place, rng: np.random.Generator, placement: Placement) -> tuple[Array, Array]:
    """What the views see: surface points, and the eyes they are seen from, [P, 3] each; the sky as points far away."""
    fx = PROBE_FOCAL
    intrinsics = np.array([fx, fx, PROBE_WIDTH / 2, PROBE_HEIGHT / 2], np.float32)
    u, v = np.meshgrid(np.arange(PROBE_WIDTH) + 0.5, np.arange(PROBE_HEIGHT) + 0.5)
    rays = np.stack([(u - PROBE_WIDTH / 2) / fx, (v - PROBE_HEIGHT / 2) / fx, np.ones_like(u)], -1)
    points, eyes = [], []
    for c2w in sample_views(place, rng, placement.num_views):
        _, depth = render_rgbd(place, c2w, intrinsics, PROBE_WIDTH, PROBE_HEIGHT, centred_depth=True)
        world = (rays * np.minimum(depth, 1e4)[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]
        points.append(world.reshape(-1, 3))
        eyes.append(np.broadcast_to(c2w[:3, 3], points[-1].shape))
    return np.concatenate(points).astype(np.float32), np.concatenate(eyes).astype(np.float32)


def _quality(place: Place, c2w: NDArray[np.float64], surfaces: tuple[Array, Array]) -> Array:
    """How well a keyframe would see points that are looked at from somewhere else, [P], in [0, 1]."""
    points, eyes = surfaces
    intrinsics = np.full(4, SCOUT_PX / 2, np.float32)
    _, depth = render_rgbd(place, c2w, intrinsics, SCOUT_PX, SCOUT_PX, centred_depth=True)
    offset = points - c2w[:3, 3].astype(np.float32)
    seen = offset @ c2w[:3, :3].astype(np.float32)
    z = np.where(seen[:, 2] > 1e-3, seen[:, 2], np.float32(1.0))
    u, v = (seen[:, a] / z * (SCOUT_PX / 2) + SCOUT_PX / 2 for a in (0, 1))
    inside = (seen[:, 2] > 1e-3) & (u >= 1) & (v >= 1) & (u < SCOUT_PX - 1) & (v < SCOUT_PX - 1)
    u, v = np.where(inside, u, 0).astype(int), np.where(inside, v, 0).astype(int)
    around = [depth[v + dv, u + du] for dv, du in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))]
    low, high = np.min(around, 0), np.max(around, 0)
    visible = inside & (z > 0.97 * low - 0.02) & (z < 1.03 * high + 0.02)
    look = points - eyes
    near, far = np.linalg.norm(look, axis=1), np.linalg.norm(offset, axis=1)
    cosine = (look * offset).sum(1) / np.maximum(near * far, 1e-6)
    scale = near / np.maximum(far, 1e-3) * 1.23
    likeness = np.minimum(scale, 1.0 / np.maximum(scale, 1e-3) ** 0.5)
    return (visible * np.clip(likeness, 0, 1) * np.exp((cosine - 1) / 0.15)).astype(np.float32)
