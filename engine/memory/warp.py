"""The way from the pixels of a view into a keyframe and back: where a ray meets what the keyframe saw.

A point at some inverse depth along a ray is projected into the keyframe, whose depth there says where the surface is; what the
view makes of that surface point is the next guess (fixed-point image warping, after Bowles et al., "Iterative Image Warping",
2012). Aitken's rule takes the steps to their limit, and a march along the ray finds surfaces that no guess is near to.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import UNKNOWN, Array, Keyframe, silhouettes

Mask = NDArray[np.bool_]

NEAR_Z = np.float32(1e-3)
"""Points nearer to a camera's plane, or behind it, are projected as if they were there: far outside of the picture."""
NOTHING = np.float32(-1.0)
"""Stands for no surface where inverse depths are given."""
MARCH_STEPS = 8
"""Points of a ray that are tried between the nearest and the farthest depth it may have."""
LIST_WIDTH = 256
"""Lists of points are folded into pictures of this width, since OpenCV bounds the sides of a picture."""


@dataclass(frozen=True, eq=False)
class View:
    """A pinhole camera and its picture size."""

    c2w: NDArray[np.float64]
    """[4, 4]."""
    intrinsics: Array
    """fx, fy, cx, cy in pixels, [4]."""
    width: int
    height: int

    @property
    def rotation(self) -> Array:
        """Camera-to-world, [3, 3]."""
        return self.c2w[:3, :3].astype(np.float32)

    @property
    def position(self) -> Array:
        """Metres, [3]."""
        return self.c2w[:3, 3].astype(np.float32)

    def rays(self) -> tuple[Array, Array]:
        """Rays through pixel centres at depth 1 in camera axes: x [1, W] and y [H, 1]."""
        fx, fy, cx, cy = self.intrinsics
        x = (np.arange(self.width) + 0.5 - cx) / fx
        y = (np.arange(self.height) + 0.5 - cy) / fy
        return x.astype(np.float32)[None], y.astype(np.float32)[:, None]

    def scaled(self, factor: float, width: int, height: int) -> View:
        """The same camera with pixels `1 / factor` as large, and its picture in the middle of one of another size."""
        fx, fy, cx, cy = self.intrinsics * np.float32(factor)
        cx += (width - self.width * factor) / 2
        cy += (height - self.height * factor) / 2
        return View(self.c2w, np.array([fx, fy, cx, cy], np.float32), width, height)


@dataclass(frozen=True, eq=False)
class Surface:
    """Surface points that a keyframe shows to the pixels of a view, each array [H, W] or a list [N, 1]."""

    inverse_depth: Array
    """In the view, 1/m."""
    error_px: Array
    """How far the point's projection is from the pixel's centre along either axis; large where there is none."""
    scale: Array
    """Pixels of the keyframe per pixel of the view."""
    beside_silhouette: Mask


class Link:
    """The pixels of a view seen from a keyframe."""

    def __init__(self, view: View, keyframe: Keyframe) -> None:
        rotation = keyframe.c2w[:3, :3].astype(np.float32)
        self.keyframe = keyframe
        self._focal = view.intrinsics[:2]
        self._turn = rotation.T @ view.rotation
        self._shift = rotation.T @ (view.c2w[:3, 3] - keyframe.c2w[:3, 3]).astype(np.float32)
        self._back = self._turn.T @ self._shift
        self._x, self._y = view.rays()
        turn = self._turn
        self._far = tuple(turn[a, 0] * self._x + (turn[a, 1] * self._y + turn[a, 2]) for a in range(3))
        self._u = self._v = self._x

    def pick(self, chosen: Mask) -> Link:
        """The same for some pixels alone, as a list [N, 1]."""
        link = object.__new__(Link)
        link.__dict__.update(self.__dict__)
        x, y = np.broadcast_arrays(self._x, self._y)
        link._x, link._y = x[chosen][:, None], y[chosen][:, None]
        link._far = tuple(part[chosen][:, None] for part in self._far)
        return link

    def solve(self, inverse_depth: Array) -> Array:
        """Return what the search converges to from a guess; guesses that leave the keyframe stay where they left it."""
        first = self._next_guess(inverse_depth)
        second = self._next_guess(first)
        step, change = first - inverse_depth, second - first
        bend = change - step
        limit = first - step * change / np.where(np.abs(bend) < 1e-7, np.float32(np.inf), bend)
        sound = (limit >= 0) & (limit < 2 * np.maximum(first, inverse_depth) + np.float32(0.01))
        return np.where(sound, limit, second)

    def surface(self, inverse_depth: Array, search: bool = False) -> Surface:
        """Return the surface points behind guesses, after one step of the search where it is asked for."""
        guess = self._next_guess(inverse_depth) if search else inverse_depth
        qx, qy, one_over, found, codes = self._look(guess)
        turn, back = self._turn, self._back
        z = turn[0, 2] * qx + turn[1, 2] * qy + (turn[2, 2] - back[2] * found)
        one_over_z = np.reciprocal(np.maximum(z, NEAR_Z))
        ex = (turn[0, 0] * qx + turn[1, 0] * qy + (turn[2, 0] - back[0] * found)) * one_over_z - self._x
        ey = (turn[0, 1] * qx + turn[1, 1] * qy + (turn[2, 1] - back[1] * found)) * one_over_z - self._y
        error = np.maximum(np.abs(ex) * self._focal[0], np.abs(ey) * self._focal[1])
        error[codes == UNKNOWN] = 1e3
        scale = one_over * (self.keyframe.intrinsics[0] / self._focal[0])
        return Surface(found * one_over_z, error, scale, (codes & 1).astype(bool))

    def colors(self) -> NDArray[np.uint8]:
        """Colours where the last search ended, [H, W, 3] or [N, 1, 3]."""
        return _sample(self.keyframe.color, self._u, self._v, cv2.INTER_LINEAR)

    def crossings(self, near: Array, far: Array) -> tuple[Array, Array]:
        """March along the rays from `near` over `far` to infinity.

        Returns:
            Inverse depths at which rays first and last pass behind what the keyframe saw; NOTHING where they do not, or
            not a second time.
        """
        samples = [near + (far - near) * np.float32(n / (MARCH_STEPS - 1)) for n in range(MARCH_STEPS)]
        before, gap_before = samples[0], self._gap(samples[0], cv2.INTER_NEAREST)
        first_front, first_back, last_front, last_back = (np.full_like(near, NOTHING) for _ in range(4))
        for inverse in (*samples[1:], np.zeros_like(near)):
            gap = self._gap(inverse, cv2.INTER_NEAREST)
            passes = (gap_before > 0) & (gap <= 0)
            fresh = passes & (first_front < 0)
            np.copyto(first_front, before, where=fresh)
            np.copyto(first_back, inverse, where=fresh)
            np.copyto(last_front, before, where=passes)
            np.copyto(last_back, inverse, where=passes)
            before, gap_before = inverse, gap
        last = self._narrowed(last_front, last_back)
        return self._narrowed(first_front, first_back), np.where(last_front == first_front, NOTHING, last)

    def _look(self, inverse_depth: Array) -> tuple[Array, Array, Array, Array, NDArray[np.uint16]]:
        """Project points at an inverse depth along the rays into the keyframe, and read its depth there.

        Returns:
            Keyframe rays qx and qy, depth in the view over depth in the keyframe, inverse depth that the keyframe saw, and
            its codes.
        """
        fx, fy, cx, cy = self.keyframe.intrinsics
        far_x, far_y, far_z = self._far
        one_over = np.reciprocal(np.maximum(far_z + self._shift[2] * inverse_depth, NEAR_Z))
        qx = (far_x + self._shift[0] * inverse_depth) * one_over
        qy = (far_y + self._shift[1] * inverse_depth) * one_over
        self._u, self._v = qx * fx + (cx - np.float32(0.5)), qy * fy + (cy - np.float32(0.5))
        marked = self.keyframe.marked_codes
        nearest = _sample(marked, self._u, self._v, cv2.INTER_NEAREST)
        smooth = _sample(marked, self._u, self._v, cv2.INTER_LINEAR)
        found = np.where(nearest & 1, nearest, smooth) * np.float32(self.keyframe.scale)
        return qx, qy, one_over, found, nearest

    def _next_guess(self, inverse_depth: Array) -> Array:
        qx, qy, _, found, codes = self._look(inverse_depth)
        z = self._turn[0, 2] * qx + self._turn[1, 2] * qy + (self._turn[2, 2] - self._back[2] * found)
        return np.where(codes == UNKNOWN, inverse_depth, found / np.maximum(z, NEAR_Z))

    def _gap(self, inverse_depth: Array, how: int) -> Array:
        """How far points lie in front of what the keyframe saw, in its inverse depth, 1/m; NaN outside."""
        fx, fy, cx, cy = self.keyframe.intrinsics
        far_x, far_y, far_z = self._far
        one_over = np.reciprocal(np.maximum(far_z + self._shift[2] * inverse_depth, NEAR_Z))
        u = (far_x + self._shift[0] * inverse_depth) * (one_over * fx) + (cx - np.float32(0.5))
        v = (far_y + self._shift[1] * inverse_depth) * (one_over * fy) + (cy - np.float32(0.5))
        codes = _sample(self.keyframe.marked_codes, u, v, how)
        gap = inverse_depth * one_over - codes * np.float32(self.keyframe.scale)
        gap[codes == UNKNOWN] = np.nan
        return gap

    def _narrowed(self, front: Array, back: Array) -> Array:
        """Two steps of regula falsi between points in front of a surface and points behind it; NOTHING where front is."""
        a, b = front, back
        gap_a, gap_b = self._gap(a, cv2.INTER_LINEAR), self._gap(b, cv2.INTER_LINEAR)
        middle = _between(a, gap_a, b, gap_b)
        gap = self._gap(middle, cv2.INTER_LINEAR)
        in_front = gap > 0
        middle = _between(
            np.where(in_front, middle, a),
            np.where(in_front, gap, gap_a),
            np.where(in_front, b, middle),
            np.where(in_front, gap_b, gap),
        )
        return np.where((front < 0) | np.isnan(middle), NOTHING, middle)


def _between(a: Array, gap_a: Array, b: Array, gap_b: Array) -> Array:
    return b + (a - b) * np.clip(gap_b / np.minimum(gap_b - gap_a, np.float32(-1e-9)), 0.0, 1.0)


def _sample(picture: NDArray, u: Array, v: Array, how: int) -> NDArray:
    """Sample a picture at [H, W] or at a list of points [N, 1]; UNKNOWN (or black) outside."""
    border = UNKNOWN if picture.dtype == np.uint16 else 0
    if u.shape[1] > 1:
        return cv2.remap(picture, u, v, how, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
    rows = -(-len(u) // LIST_WIDTH)
    maps = np.full((2, rows * LIST_WIDTH), -1e4, np.float32)
    maps[0, : len(u)], maps[1, : len(u)] = u[:, 0], v[:, 0]
    maps = maps.reshape(2, rows, LIST_WIDTH)
    found = cv2.remap(picture, maps[0], maps[1], how, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
    return np.asarray(found).reshape(rows * LIST_WIDTH, 1, *picture.shape[2:])[: len(u)]


def split(inverse_depth: Array) -> tuple[Array, Array]:
    """Take the near and the far side of every silhouette a pixel wider on both sides, [H, W] each; equal elsewhere."""
    beside = cv2.dilate(silhouettes(inverse_depth).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    near = np.where(beside, nearest_around(inverse_depth), inverse_depth)
    return near, np.where(beside, farthest_around(inverse_depth), inverse_depth)


def farthest_around(inverse_depth: Array, size: int = 3) -> Array:
    """Take the farthest depth of each neighbourhood of `size` pixels, [H, W]."""
    return np.asarray(cv2.erode(inverse_depth, np.ones((size, size), np.uint8)), np.float32)


def nearest_around(inverse_depth: Array, size: int = 3) -> Array:
    """Take the nearest depth of each neighbourhood of `size` pixels, [H, W]."""
    return np.asarray(cv2.dilate(inverse_depth, np.ones((size, size), np.uint8)), np.float32)
