"""What a camera sees of a spatial memory: colour, coverage and inverse depth.

For a chunk, points of the keyframes are rendered into coarse cells. They say which keyframes to look into, and between which
depths to march along the rays of an anchor camera, which sees what all frames of the chunk see. The anchor's depth gives each
frame two guesses, one on the near and one on the far side of silhouettes, which every selected keyframe corrects. The nearest
point that truly projects into a pixel wins, and colours are blended over the keyframes that agree about it.

Everything is a function of the keyframes and the cameras alone, bit for bit, whatever was rendered before.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import UNKNOWN, Array, Keyframe, MemoryRendering
from engine.memory.warp import (
    NOTHING,
    Link,
    Mask,
    Surface,
    View,
    farthest_around,
    nearest_around,
    split,
)

ANCHOR_SCALE, ANCHOR_MARGIN = 0.5, 1.5
"""The anchor has half the resolution of the frames and one and a half times their field of view."""
CELL = 4
"""Pixels of the anchor behind one cell of the coarse depth, along each side."""
MAX_CANDIDATES, MAX_SELECTED, MAX_FILLERS = 40, 6, 6
"""Keyframes whose points are considered, that are looked into for all pixels, and for those that are left open."""
TOLERANCE_PX = 0.6
"""Greatest distance of a surface point's projection from the pixel's centre."""
BEHIND = np.float32(0.75)
"""Points whose inverse depth is less than this share of what is known to stand there are hidden by it."""
SAME_SURFACE = np.float32(0.97)
"""Points whose inverse depth is at least this share of the nearest one's are of the same surface."""


class MemoryRenderer:
    """Renders a list of keyframes that may grow."""

    def __init__(self, keyframes: Sequence[Keyframe] = ()) -> None:
        self.keyframes: list[Keyframe] = []
        self._poses = np.empty((0, 4, 4), np.float32)
        for keyframe in keyframes:
            self.add(keyframe)

    def add(self, keyframe: Keyframe) -> None:
        """Append a keyframe."""
        self.keyframes.append(keyframe)
        self._poses = np.concatenate([self._poses, keyframe.c2w.astype(np.float32)[None]])

    def truncate(self, count: int) -> None:
        """Forget all keyframes but the first `count`."""
        del self.keyframes[count:]
        self._poses = self._poses[:count]

    def render(
        self,
        c2w: NDArray[np.float64],
        intrinsics: Array,
        width: int,
        height: int,
        num_keyframes: int | None = None,
    ) -> MemoryRendering:
        """Render the frames of one chunk.

        Args:
            c2w: Camera-to-world of F frames close to one another, [F, 4, 4].
            intrinsics: fx, fy, cx, cy in pixels of F frames, [F, 4].
            num_keyframes: Use the first ones alone; None for all.
        """
        views = [View(pose, lens, width, height) for pose, lens in zip(c2w, intrinsics, strict=True)]
        wide, tall = (round(side * ANCHOR_MARGIN * ANCHOR_SCALE) for side in (width, height))
        anchor = views[len(views) // 2].scaled(ANCHOR_SCALE, wide, tall)
        candidates = self._candidates(anchor, num_keyframes)
        solid, exact, near, far = self._coarse(anchor, candidates)
        ranked = self._ranked(anchor, exact, candidates)
        selected = [self.keyframes[n] for n in ranked[:MAX_SELECTED]]
        others = [self.keyframes[n] for n in ranked[MAX_SELECTED:]]
        depth, fillers = _anchor_depth(anchor, (solid, near, far), selected, others)
        black = np.zeros((1, 1, 3), np.uint8)
        guides = [Keyframe.of(black, part, anchor.c2w, anchor.intrinsics) for part in split(depth)]
        frames = [_render_frame(view, guides, selected, fillers) for view in views]
        color, coverage, inverse_depth = (np.stack(part) for part in zip(*frames, strict=True))
        return MemoryRendering(color, coverage, inverse_depth)

    def _candidates(self, anchor: View, num_keyframes: int | None) -> list[int]:
        """Keyframes that may see what the view sees, nearest first."""
        poses = self._poses[:num_keyframes]
        facing = poses[:, :3, 2] @ anchor.rotation[:, 2]
        distance = np.linalg.norm(poses[:, :3, 3] - anchor.position, axis=1)
        possible = np.flatnonzero(facing > -0.3)
        order = np.argsort(distance[possible], kind="stable")
        return possible[order[:MAX_CANDIDATES]].tolist()

    def _coarse(self, anchor: View, candidates: Sequence[int]) -> tuple[Array, Array, Array, Array]:
        """Render the points of some keyframes into cells of CELL pixels.

        Returns:
            Nearest inverse depth of each cell, 0 for none; the same filled from around; then nearest and farthest of each
            cell and its neighbours, [H / CELL, W / CELL].
        """
        width, height = -(-anchor.width // CELL), -(-anchor.height // CELL)
        if not candidates:
            nothing = np.zeros((height, width), np.float32)
            return nothing, nothing, nothing, nothing
        points = np.concatenate([self.keyframes[n].points for n in candidates])
        camera = (points[:, :3] - anchor.position) @ anchor.rotation
        ahead = camera[:, 2] > 0.05
        camera, side = camera[ahead], points[ahead, 3]
        inverse = 1.0 / camera[:, 2]
        fx, fy, cx, cy = anchor.intrinsics
        u = (camera[:, 0] * inverse * fx + cx) / CELL
        v = (camera[:, 1] * inverse * fy + cy) / CELL
        inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
        cells = v[inside].astype(np.int32) * width + u[inside].astype(np.int32)
        inverse, reach = inverse[inside], (side * inverse * (fx / CELL))[inside]
        near, far = np.zeros(width * height, np.float32), np.full(width * height, np.inf, np.float32)
        np.maximum.at(near, cells, inverse)
        np.minimum.at(far, cells, inverse)
        solid = near.reshape(height, width)
        exact, far = _filled_cells(solid, far.reshape(height, width))
        near = exact
        # Points of large blocks reach into neighbouring cells, so that nothing shows through between them.
        for size in (3, 5, 9):
            wide = reach > size / 4
            grown = np.zeros(width * height, np.float32)
            np.maximum.at(grown, cells[wide], inverse[wide])
            near = np.maximum(near, nearest_around(grown.reshape(height, width), size))
        return solid, exact, nearest_around(near), farthest_around(far)

    def _ranked(self, anchor: View, exact: Array, candidates: Sequence[int]) -> list[int]:
        """Order keyframes by what each adds to how well those before it see the view; the useless are left out."""
        if not candidates:
            return []
        step = 3
        rows, columns = np.mgrid[step // 2 : exact.shape[0] : step, step // 2 : exact.shape[1] : step]
        u, v = (columns + 0.5) * CELL, (rows + 0.5) * CELL
        fx, fy, cx, cy = anchor.intrinsics
        rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1).reshape(-1, 3)
        rays = rays.astype(np.float32) @ anchor.rotation.T
        middle = (np.abs(u - anchor.width / 2) < anchor.width / 2.6) & (
            np.abs(v - anchor.height / 2) < anchor.height / 2.6
        )
        weight = np.where(middle, np.float32(1.0), np.float32(0.4)).ravel()
        inverse = exact[rows, columns].ravel()
        quality = np.stack([self._quality(n, anchor, rays, inverse) for n in candidates]) * weight
        best = np.zeros((2, quality.shape[1]), np.float32)
        chosen: list[int] = []
        while len(chosen) < MAX_SELECTED + MAX_FILLERS:
            gain = (np.maximum(quality - best[0], 0) + 0.5 * np.maximum(quality - best[1], 0)).sum(1)
            pick = int(gain.argmax())
            if gain[pick] < 1e-3 * quality.shape[1]:
                break
            chosen.append(candidates[pick])
            best = np.sort(np.stack([*best, quality[pick]]), 0)[:0:-1]
            quality[pick] = 0
        return chosen

    def _quality(self, n: int, anchor: View, rays: Array, inverse: Array) -> Array:
        """How well a keyframe sees points along rays, in [0, 1]: at a like distance, from a like direction, unoccluded."""
        keyframe, pose = self.keyframes[n], self._poses[n]
        offset = rays + inverse[:, None] * (anchor.position - pose[:3, 3])
        seen = offset @ pose[:3, :3]
        ahead = seen[:, 2] > 1e-3
        one_over = 1.0 / np.where(ahead, seen[:, 2], 1.0)
        fx, fy, cx, cy = keyframe.intrinsics
        u, v = seen[:, 0] * one_over * fx + cx, seen[:, 1] * one_over * fy + cy
        height, width = keyframe.codes.shape
        inside = ahead & (u >= 1) & (v >= 1) & (u < width - 1) & (v < height - 1)
        codes = keyframe.codes[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)]
        expected = inverse * one_over
        agrees = np.abs(codes * np.float32(keyframe.scale) - expected) < 0.15 * expected + 0.01
        scale = one_over * (fx / anchor.intrinsics[0] * ANCHOR_SCALE)
        length = np.linalg.norm(offset, axis=1) * np.linalg.norm(rays, axis=1)
        cosine = (offset * rays).sum(1) / np.maximum(length, 1e-9)
        likeness = np.clip(np.minimum(scale, 1.0 / np.maximum(scale, 1e-3) ** 0.5), 0, 1)
        return (inside & (codes != UNKNOWN) & agrees) * (likeness * np.exp((cosine - 1) / 0.15)).astype(
            np.float32
        )


def _anchor_depth(
    anchor: View, coarse: Sequence[Array], selected: Sequence[Keyframe], others: Sequence[Keyframe]
) -> tuple[Array, list[Keyframe]]:
    """Search the inverse depth of the anchor's pixels, and what fills the pixels that the selected keyframes leave open.

    Args:
        coarse: What `_coarse` found.

    Returns:
        Inverse depth [H, W], the coarse one where no keyframe has any, and those of the others that fill anything.
    """
    solid, near, far = coarse
    grown = (near.shape[1] * CELL, near.shape[0] * CELL)
    inner, near, far = (
        np.asarray(
            cv2.resize(part, grown, interpolation=cv2.INTER_NEAREST)[: anchor.height, : anchor.width],
            np.float32,
        )
        for part in (farthest_around(solid), near, far)
    )
    best = np.full((anchor.height, anchor.width), NOTHING)
    nearest, farthest = near * np.float32(1.25), far * np.float32(0.75)
    for keyframe in selected:
        link = Link(anchor, keyframe)
        for guess in link.crossings(nearest, farthest):
            np.maximum(best, _verified(link, guess), out=best)
    # What is seen behind the middle of something near is seen through it, from where it does not stand in the way.
    best[best < BEHIND * inner] = NOTHING
    fillers: list[Keyframe] = []
    for keyframe in others:
        holes = best < 0
        if not holes.any():
            break
        link = Link(anchor, keyframe).pick(holes)
        guesses = link.crossings(nearest[holes][:, None], farthest[holes][:, None])
        found = np.maximum(*(_verified(link, guess) for guess in guesses))[:, 0]
        found[found < BEHIND * inner[holes]] = NOTHING
        best[holes] = found
        if np.count_nonzero(found >= 0) > 4:
            fillers.append(keyframe)
    return np.where(best < 0, np.maximum(far, inner), best), fillers


def _verified(link: Link, guess: Array) -> Array:
    """Inverse depth of the surface points behind guesses that project into their pixels; NOTHING elsewhere."""
    surface = link.surface(guess, search=True)
    sound = (surface.error_px < 2 * TOLERANCE_PX) & (guess >= 0)
    return np.where(sound, surface.inverse_depth, NOTHING)


def _render_frame(
    view: View, guides: Sequence[Keyframe], selected: Sequence[Keyframe], fillers: Sequence[Keyframe]
) -> tuple[NDArray[np.uint8], Array, Array]:
    """Render one frame: colour [H, W, 3], coverage and inverse depth [H, W]."""
    near, far = _guesses(view, guides)
    doubtful = np.abs(near - far) > 0.02 * near + 1e-4
    least = BEHIND * far
    picture, side = _Blend(least), _Blend(least[doubtful][:, None])
    for keyframe in selected:
        link = Link(view, keyframe)
        picture.add(link.surface(near, search=True), link.colors())
        if side.shape[0]:
            link = link.pick(doubtful)
            side.add(link.surface(far[doubtful][:, None], search=True), link.colors())
    if side.shape[0]:
        picture.merge(side, doubtful)
    color, depth = picture.result()
    holes = depth < 0
    if fillers and holes.any():
        patch = _Blend(least[holes][:, None])
        for keyframe in fillers:
            link = Link(view, keyframe).pick(holes)
            for guess in (near, far):
                patch.add(link.surface(link.solve(guess[holes][:, None])), link.colors())
        color[holes], depth[holes] = (part[:, 0] for part in patch.result())
    coverage = (depth >= 0).astype(np.float32)
    known = np.dstack([color, np.maximum(depth, 0.0)]).astype(np.float32) * coverage[..., None]
    filled = fill(known, coverage)
    return (
        cv2.convertScaleAbs(filled[..., :3]).astype(np.uint8),
        coverage,
        np.ascontiguousarray(filled[..., 3]),
    )


def _guesses(view: View, guides: Sequence[Keyframe]) -> tuple[Array, Array]:
    """Near and far guesses of a frame's inverse depth from those of the chunk's anchor, [H, W] each."""
    half = view.scaled(0.5, view.width // 2, view.height // 2)
    size, found = (view.width, view.height), []
    for guide, side in zip(guides, (0, 1), strict=True):
        link = Link(half, guide)
        start = np.full((half.height, half.width), 0.02, np.float32)
        guess = link.solve(link.solve(start))
        sides = split(guess)
        apart = cv2.resize(np.uint8(sides[0] != sides[1]), size, interpolation=cv2.INTER_NEAREST) > 0
        stepped = cv2.resize(sides[side], size, interpolation=cv2.INTER_NEAREST)
        found.append(np.where(apart, stepped, cv2.resize(guess, size, interpolation=cv2.INTER_LINEAR)))
    return found[0].astype(np.float32), found[1].astype(np.float32)


class _Blend:
    """Surface points of keyframes, blended where they are of each pixel's nearest surface."""

    def __init__(self, least: Array) -> None:
        """`least`: inverse depth of what hides everything behind it, [H, W]."""
        self.shape, self._least = least.shape, least
        self.nearest = np.full(least.shape, NOTHING)
        self._parts: list[tuple[Array, Array, NDArray[np.uint8]]] = []
        self._merged: tuple[_Blend, Mask] | None = None

    def add(self, surface: Surface, color: NDArray[np.uint8]) -> None:
        """Take in what one keyframe shows."""
        likeness = np.minimum(surface.scale, 1.0 / np.maximum(surface.scale, np.float32(1e-3)))
        likeness *= likeness
        weight = likeness * likeness * np.where(surface.beside_silhouette, np.float32(0.1), np.float32(1.0))
        weight += np.float32(1e-4)
        weight *= np.float32(1.05) - np.minimum(surface.error_px * np.float32(1 / TOLERANCE_PX), 1.0)
        sound = (surface.error_px < TOLERANCE_PX) & (surface.inverse_depth >= self._least)
        depth = np.where(sound, surface.inverse_depth, NOTHING)
        np.maximum(self.nearest, depth, out=self.nearest)
        self._parts.append((depth, weight, color))

    def merge(self, other: _Blend, where: Mask) -> None:
        """Take in what another blend has of some pixels."""
        self.nearest[where] = np.maximum(self.nearest[where], other.nearest[:, 0])
        other.nearest = self.nearest[where][:, None]
        self._merged = (other, where)

    def sums(self) -> tuple[Array, Array, Array]:
        """Weighted colour [H, W, 3], weight and weighted inverse depth [H, W]."""
        least = self.nearest * SAME_SURFACE - np.float32(0.002)
        color = np.zeros((*self.shape, 3), np.float32)
        total, depth = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        for inverse, weight, picture in self._parts:
            counted = np.where((inverse >= 0) & (inverse > least), weight, np.float32(0.0))
            color += cv2.multiply(picture, cv2.merge([counted] * 3), dtype=cv2.CV_32F)
            total += counted
            depth += counted * inverse
        return color, total, depth

    def result(self) -> tuple[Array, Array]:
        """Colour [H, W, 3] and inverse depth [H, W], NOTHING where no keyframe shows anything."""
        color, total, depth = self.sums()
        if self._merged is not None:
            other, where = self._merged
            for part, extra in zip((color, total, depth), other.sums(), strict=True):
                part[where] += extra[:, 0]
        known = total > 0
        share = 1.0 / np.where(known, total, np.float32(1.0))
        return cv2.multiply(color, cv2.merge([share] * 3)), np.where(known, depth * share, NOTHING)


def fill(picture: Array, coverage: Array) -> Array:
    """Fill what is not covered smoothly from around it, by averages over ever larger cells.

    Args:
        picture: [H, W, C], 0 where not covered.
        coverage: [H, W], 0 or 1.
    """
    if coverage.min() > 0:
        return picture
    levels = [(picture, coverage)]
    while min(levels[-1][1].shape) > 2:
        height, width = levels[-1][1].shape
        size = ((width + 1) // 2, (height + 1) // 2)
        smaller, weight = (
            np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA)) for part in levels[-1]
        )
        levels.append((smaller, weight))
    total, weight = levels.pop()
    mean = total.sum((0, 1)) / max(float(weight.sum()), 1e-6)
    below = np.where(weight[..., None] > 1e-6, total / np.maximum(weight, 1e-6)[..., None], mean)
    for total, weight in reversed(levels):
        below = np.asarray(cv2.resize(below, weight.shape[::-1], interpolation=cv2.INTER_LINEAR))
        known = np.maximum(weight, 1e-3)[..., None]
        below = np.where(weight[..., None] > 1e-3, total / known, below)
    return below.astype(np.float32)


def _filled_cells(near: Array, far: Array) -> tuple[Array, Array]:
    """Fill empty cells (0 and infinity) from ever coarser ones."""
    if min(near.shape) <= 1:
        return near, np.where(np.isfinite(far), far, np.float32(0.0))
    height, width = near.shape
    pad = ((0, height % 2), (0, width % 2))
    rows, columns = (height + 1) // 2, (width + 1) // 2
    coarse_near = np.pad(near, pad).reshape(rows, 2, columns, 2).max((1, 3))
    coarse_far = np.pad(far, pad, constant_values=np.inf).reshape(rows, 2, columns, 2).min((1, 3))
    coarse_near, coarse_far = (
        part.repeat(2, 0).repeat(2, 1)[:height, :width] for part in _filled_cells(coarse_near, coarse_far)
    )
    return np.where(near > 0, near, coarse_near), np.where(np.isfinite(far), far, coarse_far)
