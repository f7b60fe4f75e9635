"""The way from the pixels of a view into a keyframe and back: where a ray meets what the keyframe saw.

A point at some inverse depth along a ray is projected into the keyframe, whose depth there says where the surface is; what the
view makes of that surface point is the next guess (fixed-point image warping, after Bowles et al., "Iterative Image Warping",
2012). Aitken's rule takes the steps to their limit, and a march along the ray finds surfaces that no guess is near to.

Where no depth is known, arrays hold NaN. Whole images go through OpenCV, which is several times as fast as masks in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import UNKNOWN, Array, Keyframe, silhouettes

Mask = NDArray[np.bool_]

NEAR_Z = 1e-3
"""Points nearer to a camera's plane, or behind it, are projected as if they were there: far outside of the picture."""
NOTHING = np.float32(-1.0)
"""Stands for no surface where inverse depths are given."""
NAN = float("nan")
MARCH_STEPS = 8
"""Points of a ray that are tried between the nearest and the farthest depth it may have."""
LIST_WIDTH = 256
"""Lists of pixels are folded into images of this width, since OpenCV bounds the sides of an image."""


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

    def scaled(self, factor: float, width: int, height: int) -> View:
        """The same camera with pixels `1 / factor` as large, and its picture in the middle of one of another size."""
        fx, fy, cx, cy = self.intrinsics * np.float32(factor)
        cx += (width - self.width * factor) / 2
        cy += (height - self.height * factor) / 2
        return View(self.c2w, np.array([fx, fy, cx, cy], np.float32), width, height)


@dataclass(frozen=True, eq=False)
class Source:
    """A keyframe as it is sampled."""

    c2w: NDArray[np.float64]
    intrinsics: Array
    color: NDArray[np.uint8]
    """[H, W, 4], RGB and a byte that only makes sampling faster."""
    depth: Array
    """Inverse depth, 1/m, [H, W]."""
    smooth: Array
    """The same, NaN beside silhouettes too, where depths must not be interpolated."""

    @classmethod
    def of_keyframe(cls, keyframe: Keyframe) -> Source:
        depth = keyframe.inverse_depth
        smooth = np.where(silhouettes(depth), np.float32(NAN), depth)
        depth[keyframe.codes == UNKNOWN] = NAN
        color = np.asarray(cv2.cvtColor(keyframe.color, cv2.COLOR_RGB2RGBA), np.uint8)
        return cls(keyframe.c2w, keyframe.intrinsics, color, depth, smooth)

    @classmethod
    def of_depth(cls, view: View, inverse_depth: Array) -> Source:
        """Make one without colours."""
        smooth = np.where(silhouettes(inverse_depth), np.float32(NAN), inverse_depth)
        return cls(view.c2w, view.intrinsics, np.zeros((1, 1, 4), np.uint8), inverse_depth, smooth)


class Pixels:
    """All pixels of a view, or some of other pixels as a list, folded into rows."""

    def __init__(
        self, columns: Array, rows: Array, folded: NDArray[np.intp] | None = None, count: int = 0
    ) -> None:
        self.columns, self.rows = columns, rows
        self._folded, self._count = folded, count

    @classmethod
    def of_view(cls, view: View) -> Pixels:
        columns = np.arange(view.width, dtype=np.float32)[None]
        return cls(columns, np.arange(view.height, dtype=np.float32)[:, None])

    def among(self, chosen: NDArray[np.intp]) -> Pixels:
        """Some of these, at least one, by their flat indices."""
        num_rows = -(-len(chosen) // LIST_WIDTH)
        padding = np.repeat(chosen[-1:], num_rows * LIST_WIDTH - len(chosen))
        folded = np.concatenate([chosen, padding]).reshape(num_rows, LIST_WIDTH)
        columns, rows = np.broadcast_arrays(self.columns, self.rows)
        return Pixels(columns.reshape(-1)[folded], rows.reshape(-1)[folded], folded, len(chosen))

    def take(self, image: Array) -> Array:
        """Their values in an image of what they were chosen among."""
        return image if self._folded is None else image.reshape(-1, *image.shape[2:])[self._folded]

    def put(self, image: NDArray, values: NDArray) -> None:
        """Write their values into an image [H, W] or [H, W, C] of what they were chosen among."""
        assert self._folded is not None
        channels = image.shape[2:]
        index = self._folded.reshape(-1)[: self._count]
        image.reshape(-1, *channels)[index] = values.reshape(-1, *channels)[: self._count]


@dataclass(frozen=True, eq=False)
class Surface:
    """Surface points that a keyframe shows to the pixels of a view, each array [H, W] or a folded list."""

    inverse_depth: Array
    """In the view, 1/m; NaN where there is none."""
    error_px: Array
    """How far the point's projection is from the pixel's centre along either axis; NaN where there is none."""
    scale: Array
    """Pixels of the keyframe per pixel of the view."""
    beside_silhouette: Mask
    color: NDArray[np.uint8]
    """RGB and a fourth byte, [H, W, 4]; 1 x 1 where colours were not asked for."""


class Link:
    """Pixels of a view seen from a keyframe.

    Pixel (i, j) of the view at inverse depth d falls on H (i, j, 1) + d e of the keyframe, and its pixel (u, v) at inverse
    depth d on G (u, v, 1) - d g of the view, both homogeneous.
    """

    def __init__(self, view: View, source: Source, pixels: Pixels) -> None:
        self._view, self._source, self.pixels = view, source, pixels
        turn = source.c2w[:3, :3].T @ view.c2w[:3, :3]
        shift = source.c2w[:3, :3].T @ (view.c2w[:3, 3] - source.c2w[:3, 3])
        to_pixels, to_rays = _matrices(source.intrinsics)
        to_view_pixels, view_rays = _matrices(view.intrinsics)
        there = to_pixels @ turn @ view_rays
        self._offset = (to_pixels @ shift).tolist()
        self._return = (to_view_pixels @ turn.T @ to_rays).tolist()
        self._return_offset = (to_view_pixels @ turn.T @ shift).tolist()
        self._far = [_plane(row, pixels) for row in there.astype(np.float32)]
        self._zoom = np.float32(source.intrinsics[0] / view.intrinsics[0])

    def among(self, chosen: NDArray[np.intp]) -> Link:
        """The same for some of its pixels alone, by their flat indices."""
        return Link(self._view, self._source, self.pixels.among(chosen))

    def solve(self, inverse_depth: Array) -> Array:
        """Return what the search converges to from a guess; guesses that leave the keyframe stay where they left it."""
        first = self._next_guess(inverse_depth)
        second = self._next_guess(first)
        step, change = first - inverse_depth, second - first
        bend = change - step
        bend[np.abs(bend) < 1e-7] = np.inf
        limit = first - step * change / bend
        sound = (limit >= 0) & (limit < 2 * np.maximum(first, inverse_depth) + np.float32(0.01))
        return _chosen(limit, sound, second)

    def surface(self, inverse_depth: Array, search: bool = False, colors: bool = True) -> Surface:
        """Return the surface points behind guesses, after one step of the search where it is asked for."""
        guess = self._next_guess(inverse_depth) if search else inverse_depth
        u, v, one_over = self._project(guess)
        found, beside = self._depth_at(u, v)
        one_over_z = np.reciprocal(cv2.max(self._returned(2, u, v, found), NEAR_Z))
        x = self._returned(0, u, v, found)
        x *= one_over_z
        x -= self.pixels.columns
        y = self._returned(1, u, v, found)
        y *= one_over_z
        y -= self.pixels.rows
        error = np.maximum(np.abs(x, out=x), np.abs(y, out=y), out=x)
        found *= one_over_z
        one_over *= self._zoom
        color = _sample(self._source.color, u, v, cv2.INTER_LINEAR, 0.0) if colors else self._source.color
        return Surface(found, error, one_over, beside, color)

    def crossings(self, near: Array, far: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """March along the rays from `near` over `far` to infinity.

        Returns:
            Inverse depths before and after which rays first pass behind what the keyframe saw, and those of the last time;
            NOTHING where they never do.
        """
        span = far - near
        before, gap_before = near, self._gap(near, cv2.INTER_NEAREST)
        first_front, first_back, last_front, last_back = (np.full_like(near, NOTHING) for _ in range(4))
        for n in range(1, MARCH_STEPS + 1):
            at_infinity = n == MARCH_STEPS
            inverse = np.zeros_like(near) if at_infinity else cv2.scaleAdd(span, n / (MARCH_STEPS - 1), near)
            gap = self._gap(inverse, cv2.INTER_NEAREST)
            passes = (gap_before > 0) & (gap <= 0)
            fresh = passes & (first_front < 0)
            for value, to, where in (
                (before, first_front, fresh),
                (inverse, first_back, fresh),
                (before, last_front, passes),
                (inverse, last_back, passes),
            ):
                cv2.copyTo(value, where.view(np.uint8), to)
            before, gap_before = inverse, gap
        return (first_front, first_back), (last_front, last_back)

    def narrowed(self, front: Array, back: Array) -> Array:
        """Two steps of regula falsi between points in front of a surface and points behind it; NOTHING where front is."""
        gap_front, gap_back = self._gap(front, cv2.INTER_LINEAR), self._gap(back, cv2.INTER_LINEAR)
        middle = _between(front, gap_front, back, gap_back)
        gap = self._gap(middle, cv2.INTER_LINEAR)
        in_front = gap > 0
        middle = _between(
            _chosen(middle, in_front, front),
            _chosen(gap, in_front, gap_front),
            _chosen(back, in_front, middle),
            _chosen(gap_back, in_front, gap),
        )
        middle[(front < 0) | np.isnan(middle)] = NOTHING
        return middle

    def _project(self, inverse_depth: Array) -> tuple[Array, Array, Array]:
        """Where points at an inverse depth along the rays fall in the keyframe, and their depth in the view over that in
        the keyframe."""
        far, offset = self._far, self._offset
        one_over = cv2.scaleAdd(inverse_depth, offset[2], far[2])
        one_over = np.reciprocal(cv2.max(one_over, NEAR_Z))
        u = cv2.scaleAdd(inverse_depth, offset[0], far[0])
        u *= one_over
        v = cv2.scaleAdd(inverse_depth, offset[1], far[1])
        v *= one_over
        return u, v, one_over

    def _depth_at(self, u: Array, v: Array) -> tuple[Array, Mask]:
        """What the keyframe saw there, and where it could not be interpolated."""
        found = _sample(self._source.smooth, u, v, cv2.INTER_LINEAR, NAN)
        beside = np.isnan(found)
        nearest = _sample(self._source.depth, u, v, cv2.INTER_NEAREST, NAN)
        cv2.copyTo(nearest, beside.view(np.uint8), found)
        return found, beside

    def _returned(self, row: int, u: Array, v: Array, found: Array) -> Array:
        """One homogeneous coordinate in the view of what the keyframe saw."""
        a, b, c = self._return[row]
        return cv2.scaleAdd(found, -self._return_offset[row], cv2.addWeighted(u, a, v, b, c))

    def _next_guess(self, inverse_depth: Array) -> Array:
        u, v, _ = self._project(inverse_depth)
        found, _ = self._depth_at(u, v)
        found /= cv2.max(self._returned(2, u, v, found), NEAR_Z)
        cv2.copyTo(inverse_depth, np.isnan(found).view(np.uint8), found)
        return found

    def _gap(self, inverse_depth: Array, how: int) -> Array:
        """How far points lie in front of what the keyframe saw, in its inverse depth, 1/m; NaN outside."""
        u, v, one_over = self._project(inverse_depth)
        one_over *= inverse_depth
        one_over -= _sample(self._source.depth, u, v, how, NAN)
        return one_over


def _matrices(intrinsics: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intrinsics as a matrix to pixel indices, whose centres are whole numbers, and its inverse, [3, 3]."""
    fx, fy, cx, cy = intrinsics.tolist()
    cx, cy = cx - 0.5, cy - 0.5
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.array(
        [[1 / fx, 0, -cx / fx], [0, 1 / fy, -cy / fy], [0, 0, 1]]
    )


def _plane(row: Array, pixels: Pixels) -> Array:
    return row[0] * pixels.columns + (row[1] * pixels.rows + row[2])


def _chosen(values: Array, where: Mask, others: Array) -> Array:
    """`np.where`, in a tenth of its time where the mask is ragged."""
    return cv2.copyTo(values, where.view(np.uint8), others.copy())


def _between(a: Array, gap_a: Array, b: Array, gap_b: Array) -> Array:
    return b + (a - b) * np.clip(gap_b / np.minimum(gap_b - gap_a, np.float32(-1e-9)), 0.0, 1.0)


def _sample(image: NDArray, u: Array, v: Array, how: int, border: float) -> NDArray:
    return cv2.remap(image, u, v, how, borderMode=cv2.BORDER_CONSTANT, borderValue=(border,) * 4)


def split(inverse_depth: Array) -> tuple[Array, Array]:
    """Take the near and the far side of every silhouette a pixel wider on both sides, [H, W] each; equal elsewhere."""
    beside = cv2.dilate(silhouettes(inverse_depth).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    near = _chosen(nearest_around(inverse_depth), beside, inverse_depth)
    return near, _chosen(farthest_around(inverse_depth), beside, inverse_depth)


def farthest_around(inverse_depth: Array, size: int = 3) -> Array:
    """Take the farthest depth of each neighbourhood of `size` pixels, [H, W]."""
    return np.asarray(cv2.erode(inverse_depth, np.ones((size, size), np.uint8)), np.float32)


def nearest_around(inverse_depth: Array, size: int = 3) -> Array:
    """Take the nearest depth of each neighbourhood of `size` pixels, [H, W]."""
    return np.asarray(cv2.dilate(inverse_depth, np.ones((size, size), np.uint8)), np.float32)
