"""Which keyframes of a spatial memory to look into for a view, and between which depths.

Two points of every block of a keyframe stand for it: the nearest and the farthest. Projected into coarse cells of the view they
give its depth roughly; a keyframe is worth as much as it sees of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.memory.images import farthest_around, nearest_around
from engine.memory.kernels import loaded
from engine.memory.keyframes import ROUGH_STEP, SKY_M, UNKNOWN, Array, Keyframe
from engine.memory.sources import View

CELL = 4
"""Pixels of the view behind one cell of the coarse depth, along each side."""
MAX_CANDIDATES, MAX_SELECTED, MAX_FILLERS = 40, 4, 6
"""Keyframes whose points are considered, that are looked into for all pixels, and for those that are left open."""
CLOSE = np.float32(1.0)
"""Inverse depth of surfaces that are close, 1/m."""
REACHES = {3: 1, 5: 3, 9: 5}
"""Sides of the squares of cells that points of ever larger blocks reach into, and of the gaps, where those are close, between
such points that are no gaps in a surface."""
NEAREST_Z = np.float32(0.05)
"""Points nearer to the camera's plane, in metres, are left out."""
SAMPLE_STEP = 3
"""Every third cell is a sample for which keyframes are compared."""
LEAST_GAIN = 1e-3
"""Keyframes that add less than this to the mean quality of a sample are left out."""


@dataclass(frozen=True, eq=False)
class CoarseDepth:
    """Inverse depths of cells of CELL pixels, 1/m, [H / CELL, W / CELL]."""

    solid: Array
    """Nearest of each cell, 0 for none."""
    filled: Array
    """The same, filled from around; 0 where there is only sky."""
    near: Array
    """Nearest of each cell and its neighbours."""
    far: Array
    """Farthest of each cell and its neighbours."""

    @property
    def looked_for(self) -> Array:
        """What keyframes are compared by: close surfaces count wherever they may be.

        Few points of a wall at arm's length fall into the view. Where what is behind it is looked for in the gaps between
        them, keyframes are taken that see past the wall, and it is gone.
        """
        return np.where(self.near > CLOSE, self.near, self.filled)


def find_candidates(view: View, poses: Array, max_candidates: int = MAX_CANDIDATES) -> list[int]:
    """Find keyframes that may see what the view sees, nearest first.

    Args:
        poses: Camera-to-world, [N, 4, 4].
    """
    facing = poses[:, :3, 2] @ view.rotation[:, 2]
    distance = np.linalg.norm(poses[:, :3, 3] - view.position, axis=1)
    possible = np.flatnonzero(facing > -0.3)
    order = np.argsort(distance[possible], kind="stable")
    return possible[order[:max_candidates]].tolist()


def coarse_depth(view: View, clouds: Sequence[Array]) -> CoarseDepth:
    """Render the points of some keyframes, [4, P] each, into cells."""
    width, height = -(-view.width // CELL), -(-view.height // CELL)
    near, far = np.zeros(width * height, np.float32), np.full(width * height, np.inf, np.float32)
    sky = np.zeros(width * height, np.bool_)
    wide = np.zeros((len(REACHES), width * height), np.float32)
    fx, fy, cx, cy = view.intrinsics / np.float32(CELL)
    to_cells = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32) @ view.rotation.T
    camera = np.concatenate([to_cells.ravel(), view.position, [fx, NEAREST_Z]], dtype=np.float32)
    reaches, kernels = np.array(list(REACHES), np.int32), loaded()
    for points in clouds:
        if kernels is not None:
            kernels.splat(points, camera, (width, height), (near, far, sky, wide), reaches, 2 / SKY_M)
            continue
        x, y, z = to_cells @ (points[:3] - view.position[:, None])
        inverse = np.reciprocal(np.maximum(z, NEAREST_Z))
        x *= inverse
        y *= inverse
        inside = np.flatnonzero((z > NEAREST_Z) & (x >= 0) & (y >= 0) & (x < width) & (y < height))
        cells = y[inside].astype(np.int32) * width + x[inside].astype(np.int32)
        inverse = inverse[inside]
        solid = inverse > 2 / SKY_M
        sky[cells[~solid]] = True
        cells, inverse, inside = cells[solid], inverse[solid], inside[solid]
        np.maximum.at(near, cells, inverse)
        np.minimum.at(far, cells, inverse)
        # Points of large blocks reach into neighbouring cells, so that nothing shows through between them.
        reach = points[3, inside] * inverse * fx
        for size, grown in zip(REACHES, wide, strict=True):
            large = np.flatnonzero(reach > size / 4)
            np.maximum.at(grown, cells[large], inverse[large])
    shape = height, width
    solid = near.reshape(shape)
    far[sky & np.isinf(far)] = 0
    filled, far = _filled_cells(solid, far.reshape(shape))
    near = filled
    for size, grown in zip(REACHES, wide, strict=True):
        reached = grown.reshape(shape)
        near = np.maximum(near, nearest_around(reached, size))
        closed = farthest_around(nearest_around(reached, REACHES[size]), REACHES[size])
        solid = np.where(closed > CLOSE, np.maximum(solid, closed), solid)
    return CoarseDepth(solid, filled, nearest_around(near), farthest_around(far))


def rank_keyframes(view: View, looked_for: Array, keyframes: Sequence[Keyframe]) -> list[int]:
    """Order keyframes by what each adds to how well those before it see the view; the useless are left out.

    Args:
        looked_for: Of the view's `CoarseDepth`.

    Returns:
        Numbers of at most MAX_SELECTED + MAX_FILLERS keyframes.
    """
    if not keyframes:
        return []
    start = SAMPLE_STEP // 2
    rows, columns = np.mgrid[
        start : looked_for.shape[0] : SAMPLE_STEP, start : looked_for.shape[1] : SAMPLE_STEP
    ]
    u, v = (columns + 0.5) * CELL, (rows + 0.5) * CELL
    fx, fy, cx, cy = view.intrinsics
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1).reshape(-1, 3)
    rays = rays.astype(np.float32) @ view.rotation.T
    middle = (np.abs(u - view.width / 2) < view.width / 2.6) & (
        np.abs(v - view.height / 2) < view.height / 2.6
    )
    weight = np.where(middle, np.float32(1.0), np.float32(0.4)).ravel()
    quality = _qualities(view, rays, looked_for[rows, columns].ravel(), keyframes) * weight
    best = np.zeros((2, quality.shape[1]), np.float32)
    chosen: list[int] = []
    while len(chosen) < min(MAX_SELECTED + MAX_FILLERS, len(keyframes)):
        gain = (np.maximum(quality - best[0], 0) + 0.5 * np.maximum(quality - best[1], 0)).sum(1)
        pick = int(gain.argmax())
        if gain[pick] < LEAST_GAIN * quality.shape[1]:
            break
        chosen.append(pick)
        second = np.maximum(best[1], np.minimum(best[0], quality[pick]))
        best = np.stack([np.maximum(best[0], quality[pick]), second])
        quality[pick] = 0
    return chosen


def _qualities(view: View, rays: Array, inverse: Array, keyframes: Sequence[Keyframe]) -> Array:
    """How well keyframes see points along rays, [N, S] in [0, 1]: from near, from a like direction, unoccluded.

    Args:
        rays: In world axes, of depth 1, [S, 3].
        inverse: Inverse depth of the points, [S].
    """
    poses = np.stack([keyframe.c2w for keyframe in keyframes]).astype(np.float32)
    offset = rays + inverse[:, None] * (view.position - poses[:, None, :3, 3])
    seen = offset @ poses[:, :3, :3]
    one_over = np.where(seen[..., 2] > 1e-3, 1.0 / np.maximum(seen[..., 2], 1e-3), np.float32(0.0))
    lens = np.stack([keyframe.intrinsics for keyframe in keyframes])[:, :, None]
    u = seen[..., 0] * one_over * lens[:, 0] + lens[:, 2]
    v = seen[..., 1] * one_over * lens[:, 1] + lens[:, 3]
    expected = inverse * one_over
    agrees = np.stack(
        [_agreeing(*sample) for sample in zip(keyframes, u, v, one_over > 0, expected, strict=True)]
    )
    # The view is at half the resolution of the frames, so keyframes of twice its pixels are as fine as needed.
    scale = one_over * (lens[:, 0] / view.intrinsics[0] * np.float32(0.5))
    length = np.linalg.norm(offset, axis=-1) * np.linalg.norm(rays, axis=1)
    cosine = (offset * rays).sum(-1) / np.maximum(length, np.float32(1e-9))
    likeness = np.clip(np.minimum(scale, 1.0 / np.sqrt(np.maximum(scale, 1e-3))), 0, 1)
    return (agrees * likeness * np.exp((cosine - 1) / np.float32(0.15))).astype(np.float32)


def _agreeing(keyframe: Keyframe, u: Array, v: Array, ahead: NDArray[np.bool_], expected: Array) -> Array:
    """Where a keyframe saw about the inverse depth that is expected there, [S]."""
    width, height = keyframe.size
    inside = ahead & (u >= 1) & (v >= 1) & (u < width - 1) & (v < height - 1)
    row, column = (np.where(inside, position, 0).astype(int) // ROUGH_STEP for position in (v, u))
    codes = keyframe.rough_codes[row, column]
    gap = np.abs(codes * np.float32(keyframe.scale) - expected)
    return inside & (codes != UNKNOWN) & (gap < 0.15 * expected + 0.01)


def _filled_cells(near: Array, far: Array) -> tuple[Array, Array]:
    """Fill cells whose farthest depth is infinite from ever coarser ones."""
    if min(near.shape) <= 1:
        return near, np.where(np.isfinite(far), far, np.float32(0.0))
    height, width = near.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    blocks = []
    for cells, blank in ((near, 0.0), (far, np.inf)):
        if height % 2 or width % 2:
            cells = np.pad(cells, ((0, height % 2), (0, width % 2)), constant_values=blank)
        blocks.append(cells.reshape(rows, 2, columns, 2))
    coarse_near, coarse_far = blocks[0].max((1, 3)), blocks[1].min((1, 3))
    coarse_near, coarse_far = (
        part.repeat(2, 0).repeat(2, 1)[:height, :width] for part in _filled_cells(coarse_near, coarse_far)
    )
    return np.where(np.isfinite(far), near, coarse_near), np.where(np.isfinite(far), far, coarse_far)
