"""Late reprojection by depth: what an RGB-D frame shows to a camera close to its own.

The frame's points are splatted into the other view at half size, which finds what hides what; a search at full size then
says where in the frame each pixel looks. What no point of the frame lands on is a hole, which is filled from what the spatial
memory shows there, or with the background around it. Depth is inverse depth along the optical axis, 1/m.
Knows no window and no walk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.blend import fill
from engine.memory.images import (
    FAR_AWAY,
    Array,
    enlarged,
    far_side,
    farthest_around,
    filled_from_farthest,
    nearest_around,
)
from engine.memory.rendering import Surroundings
from engine.memory.sources import Pixels, View, silhouettes

NEAREST_SURFACE = np.float32(10.0)
"""Inverse depth of the nearest surface that is believed, 1/m."""
NEAR_Z = np.float32(1e-2)
"""Points behind a camera are projected as if they were this far in front of its plane: far outside of the picture."""
EMPTY = np.float32(-1.0)
"""Stands for no surface where inverse depths are given."""
TOLERANCE_PX = np.float32(1.0)
"""Greatest distance of the point that a pixel found from where it was looked for."""
BACKGROUND = np.float32(1.15)
"""Surfaces up to this much nearer than what is behind a hole belong to its background, as a share of inverse depth."""
BACKGROUND_PX = 33
"""Side of the neighbourhood of a hole, in pixels at half size, that its foreground is told from its background in."""
HOLE_PX = 3
"""Narrower gaps, in pixels of the frame, are no holes without a memory: the frame's own edge closes them, if not neatly."""
FRINGE_PX = 3
"""Side of the neighbourhood of a silhouette, in pixels of the frame, in which the background's colour is mixed."""
SAME_DEPTH = np.float32(0.1)
"""Difference of inverse depth, as a share of it, up to which what the memory shows in a fringe is what the frame shows there."""
LEAST_STEP_M = 0.01
"""How far a camera must have moved for something to stand in front of what its frame shows."""
STEP = np.float32(0.15)
"""Difference of neighbouring inverse depths, as a share of it, that stands between two surfaces."""
AROUND = np.ones((2 * FRINGE_PX - 1, 2 * FRINGE_PX - 1), np.uint8)
"""Neighbourhood that reaches across a fringe to what it lies beside."""
FILL_SIZES = (3, 5, 9, 17, 33)
"""Sides of the neighbourhoods, in pixels at half size, that the depth behind a hole is taken from, one after another."""


@dataclass(frozen=True, eq=False)
class SourceMap:
    """Where each pixel of a view looks into a frame."""

    u: Array
    """Column, counted from the centre of the first pixel, [H, W]."""
    v: Array
    """Row, [H, W]."""
    known: NDArray[np.bool_]
    """Where the frame shows what is there, [H, W]."""
    inverse_depth: Array
    """Of the view, [H, W]; of the background where nothing is known."""
    fringe: NDArray[np.bool_]
    """Background beside a silhouette of the frame, [H, W]: what stood in front there is mixed into it."""

    def enlarged(self, width: int, height: int) -> SourceMap:
        """Return the map of the enlarged view into the equally enlarged frame; what is known is left as it is."""
        half = np.float32(0.5)
        scaled = (
            np.clip((part + half) * np.float32(side / own) - half, 0, side - 1)
            for part, side, own in ((self.u, width, self.u.shape[1]), (self.v, height, self.u.shape[0]))
        )
        u, v = (np.asarray(cv2.resize(part, (width, height)), np.float32) for part in scaled)
        return SourceMap(u, v, self.known, self.inverse_depth, self.fringe)

    def holes(self, with_memory: bool = False) -> NDArray[np.uint8]:
        """Find what must be filled, [H, W]: 255 there, else 0; with a memory, narrow gaps and the fringe too."""
        if with_memory:
            return np.where(self.known & ~self.fringe, np.uint8(0), np.uint8(255))
        return self.wide_gaps

    @cached_property
    def wide_gaps(self) -> NDArray[np.uint8]:
        """What is not known and no narrow gap, [H, W]: 255 there, else 0."""
        return wide_gaps(self.known)

    def colors(self, color: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Sample the frame, [h, w, C]; the nearest edge where it is left."""
        sampled = cv2.remap(color, self.u, self.v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(sampled, np.uint8)


def wide_gaps(known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Find what is not known and no narrow gap, [H, W]: 255 there, else 0."""
    unknown = np.where(known, np.uint8(0), np.uint8(255))
    opened = cv2.morphologyEx(unknown, cv2.MORPH_OPEN, np.ones((HOLE_PX, HOLE_PX), np.uint8))
    return np.asarray(opened, np.uint8)


class DepthFrame:
    """A frame with depth, made ready to be seen from elsewhere."""

    def __init__(self, color: NDArray[np.uint8], inverse_depth: Array, view: View) -> None:
        """Take colour, RGB [H, W, 3], and inverse depth [H, W] of a view; depth that is no number counts as sky."""
        self.color, self.view = color, view
        finite = np.nan_to_num(inverse_depth, nan=0.0, posinf=0.0, neginf=0.0)
        self._inverse = np.clip(finite, 0.0, NEAREST_SURFACE).astype(np.float32)

    @cached_property
    def _half(self) -> Array:
        """Inverse depth of the nearest of every four pixels, [H / 2, W / 2]."""
        height, width = (side - side % 2 for side in self._inverse.shape)
        pairs = np.maximum(self._inverse[:height:2, :width], self._inverse[1:height:2, :width])
        return np.maximum(pairs[:, ::2], pairs[:, 1::2])

    @cached_property
    def _steps(self) -> NDArray[np.uint8]:
        """Where depth must not be interpolated, [H, W]."""
        return silhouettes(self._inverse).astype(np.uint8)

    @cached_property
    def _fringe(self) -> NDArray[np.uint8]:
        """Background beside a silhouette, [H, W]: what stands in front is mixed into it, and stays behind when that moves."""
        beside = cv2.dilate(self._steps, np.ones((FRINGE_PX, FRINGE_PX), np.uint8)) > 0
        return (beside & far_side(self._inverse, len(AROUND))).astype(np.uint8)

    def seen_from(self, view: View) -> SourceMap:
        """Return where the pixels of a view look into the frame."""
        own = self.view
        turn = view.rotation.T @ own.rotation
        shift = view.rotation.T @ (own.c2w[:3, 3] - view.c2w[:3, 3]).astype(np.float32)
        half = view.scaled(0.5, view.width // 2, view.height // 2)
        coarse = filled_from_farthest(self._splatted(half, turn, shift), FILL_SIZES)
        near = nearest_around(coarse)
        apart = near - farthest_around(coarse) > STEP * near
        guess = enlarged(coarse, coarse, apart, (view.width, view.height))
        motion = turn, shift, view.intrinsics[:2]
        x, y = _rays(view)
        u, v, inverse, known = self._search(motion, x, y, guess)
        # Most are found by one step. Of slanted surfaces close by the rest is, from where the first one led.
        missed = np.flatnonzero(~known & (np.abs(inverse - guess) < STEP * guess))
        if len(missed):
            some = Pixels.of_view(view).among(missed)
            columns, rows = (part.astype(np.intp) for part in (some.columns, some.rows))
            again = self._search(motion, x[0][columns], y[:, 0][rows], some.take(inverse))
            for whole, part in zip((u, v, inverse, known), again, strict=True):
                some.put(whole, part)
        fringe = cv2.remap(self._fringe, u, v, cv2.INTER_NEAREST) > 0
        known &= ~(fringe & (cv2.dilate(wide_gaps(known), AROUND) > 0))
        return SourceMap(u, v, known, np.where(known, inverse, guess), fringe)

    def _search(
        self, motion: tuple[Array, Array, Array], x: Array, y: Array, guess: Array
    ) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """Look along rays of a view for what the frame shows at a guess of their inverse depth.

        Args:
            motion: From the frame's axes to the view's: rotation and translation; the view's focal lengths, pixels.

        Returns:
            Column and row in the frame, inverse depth in the view of what is there, EMPTY outside of the frame, and
            whether that is where the ray looks.
        """
        turn, shift, focal = motion
        fx, fy, cx, cy = self.view.intrinsics
        back = -turn.T @ shift
        far = [turn[0, a] * x + (turn[1, a] * y + turn[2, a]) for a in range(3)]
        one_over = np.reciprocal(np.maximum(far[2] + back[2] * guess, NEAR_Z))
        qx, qy = (far[0] + back[0] * guess) * one_over, (far[1] + back[1] * guess) * one_over
        u, v = qx * fx + (cx - np.float32(0.5)), qy * fy + (cy - np.float32(0.5))
        found = self._read(u, v)
        z = turn[2, 0] * qx + turn[2, 1] * qy + (turn[2, 2] + shift[2] * found)
        one_over_z = np.reciprocal(np.maximum(z, NEAR_Z))
        ex = (turn[0, 0] * qx + turn[0, 1] * qy + (turn[0, 2] + shift[0] * found)) * one_over_z - x
        ey = (turn[1, 0] * qx + turn[1, 1] * qy + (turn[1, 2] + shift[1] * found)) * one_over_z - y
        error_px = np.maximum(np.abs(ex) * focal[0], np.abs(ey) * focal[1])
        return u, v, np.where(found < 0, EMPTY, found * one_over_z), (found >= 0) & (error_px < TOLERANCE_PX)

    def _read(self, u: Array, v: Array) -> Array:
        """Read inverse depth at positions, [H, W]; EMPTY outside of the frame."""
        outside = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": float(EMPTY)}
        nearest = cv2.remap(self._inverse, u, v, cv2.INTER_NEAREST, **outside)
        smooth = cv2.remap(self._inverse, u, v, cv2.INTER_LINEAR, **outside)
        steps = cv2.remap(self._steps, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1)
        return np.where(steps > 0, nearest, smooth)

    def _splatted(self, half: View, turn: Array, shift: Array) -> Array:
        """Splat points to the pixels around where a view of half size sees them; the nearest wins, EMPTY for none."""
        own = self.view.scaled(0.5, self._half.shape[1], self._half.shape[0])
        fx, fy, cx, cy = half.intrinsics
        x, y = _rays(own)
        qx, qy, qz = (
            turn[a, 0] * x + (turn[a, 1] * y + turn[a, 2]) + shift[a] * self._half for a in range(3)
        )
        one_over = np.reciprocal(np.maximum(qz, NEAR_Z))
        left = np.floor(qx * one_over * fx + (cx - np.float32(0.5)))
        top = np.floor(qy * one_over * fy + (cy - np.float32(0.5)))
        inside = (left >= 0) & (top >= 0) & (left < half.width - 1) & (top < half.height - 1) & (qz > NEAR_Z)
        cells = top[inside].astype(np.intp) * half.width + left[inside].astype(np.intp)
        seen = (self._half * one_over)[inside]
        target = np.full(half.height * half.width, EMPTY)
        for corner in (0, 1, half.width, half.width + 1):
            np.maximum.at(target, cells + corner, seen)
        # Between the points of a surface that has come nearer than twice, what is behind it shows through.
        closing = np.ones((3, 3), np.uint8)
        nearest = cv2.morphologyEx(target.reshape(half.height, half.width), cv2.MORPH_CLOSE, closing)
        return np.asarray(nearest, np.float32)


def _rays(view: View) -> tuple[Array, Array]:
    """Rays through pixel centres at depth 1 in camera axes: x [1, W] and y [H, 1]."""
    fx, fy, cx, cy = view.intrinsics
    x = (np.arange(view.width) + 0.5 - cx) / fx
    y = (np.arange(view.height) + 0.5 - cy) / fy
    return x.astype(np.float32)[None], y.astype(np.float32)[:, None]


def behind(
    frame: DepthFrame, seen: SourceMap, view: View, surroundings: Surroundings | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Return what may stand in the holes of a view: what the memory shows there, else the background around, blurred.

    Args:
        seen: Where the view looks into the frame.
        surroundings: What the memory shows of them.

    Returns:
        The whole view, BGRA [H, W, 4], and where it is of use, [H, W]: 255 in what `holes` finds, else 0.
        None where there is nothing to fill.
    """
    holes = seen.holes(with_memory=surroundings is not None)
    if not holes.any():
        return None
    color = cv2.cvtColor(seen.colors(frame.color), cv2.COLOR_RGB2BGRA)
    if surroundings is None:
        return _background(color, seen.known, seen.inverse_depth), holes
    # A pixel wider than the holes: what stands in front of them must not be mixed in when the patch is enlarged.
    wide = cv2.dilate(holes, np.ones((3, 3), np.uint8)) > 0
    # What the frame did not see for its edge, or for something else, may stand in front of what it shows by now.
    moved = not np.allclose(view.position, frame.view.position, atol=LEAST_STEP_M)
    found, inverse = surroundings.look(view, wide, seen.inverse_depth if moved else None)
    nearer = moved & seen.known & (inverse > (1 + STEP) * seen.inverse_depth + np.float32(0.02))
    holes = np.where(nearer, np.uint8(255), holes)
    # In a fringe it must be the background that was found.
    apart = np.abs(inverse - seen.inverse_depth) > SAME_DEPTH * seen.inverse_depth + np.float32(0.005)
    sound = (inverse >= 0) & (nearer | ~(seen.fringe & seen.known & apart)) & ~_through(seen, inverse)
    found, shown = cv2.cvtColor(found, cv2.COLOR_RGBA2BGRA), sound.astype(np.uint8)
    color, known = cv2.copyTo(found, shown, color), seen.known | (shown > 0)
    if wide_gaps(known).any():
        inverse = np.asarray(cv2.copyTo(inverse, shown, seen.inverse_depth.copy()), np.float32)
        color = cv2.copyTo(found, shown, _background(color, known, inverse))
    # Single pixels beside silhouettes are of the wrong side.
    return np.asarray(cv2.medianBlur(color, 3), np.uint8), holes


def _through(seen: SourceMap, inverse_depth: Array) -> NDArray[np.bool_]:
    """Find narrow gaps in which a memory shows what stands behind everything around them, [H, W]."""
    farthest = farthest_around(np.where(seen.known, seen.inverse_depth, FAR_AWAY), len(AROUND))
    beyond = (farthest < FAR_AWAY) & (inverse_depth < (1 - STEP) * farthest)
    beside = cv2.dilate(seen.fringe.astype(np.uint8), AROUND) > 0
    return ~seen.known & ~beside & (seen.wide_gaps == 0) & beyond


def _background(color: NDArray[Any], known: NDArray[np.bool_], inverse_depth: Array) -> NDArray[np.uint8]:
    """Fill what is not known in a view [H, W, 4] with the background around it, blurred."""
    height, width = known.shape
    size = width // 2, height // 2
    inverse = np.asarray(cv2.resize(inverse_depth, size, interpolation=cv2.INTER_NEAREST), np.float32)
    known = cv2.resize(known.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    # What stands in front of a hole says nothing about what is behind it.
    missing = farthest_around(np.where(known, FAR_AWAY, inverse), BACKGROUND_PX)
    weight = (known & (inverse <= BACKGROUND * missing + np.float32(1e-3))).astype(np.float32)
    small = cv2.resize(color, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
    filled = cv2.convertScaleAbs(fill(small * weight[..., None], weight))
    return np.asarray(cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
