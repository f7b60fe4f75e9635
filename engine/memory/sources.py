"""What is warped: views, the pixels of one, and keyframes as they are sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.images import Array, Mask, chosen, far_side, farthest_around, nearest_around
from engine.memory.kernels import address, loaded
from engine.memory.keyframes import Keyframe

NOTHING = np.float32(-1.0)
"""Stands for no surface where inverse depths are given."""
NAN = float("nan")
CLEAR_FROM = sorted(
    ((down, right) for down in range(-2, 3) for right in range(-2, 3) if down or right),
    key=lambda offset: offset[0] ** 2 + offset[1] ** 2,
)
"""Offsets in pixels, the nearest first, of where a clear colour is looked for."""
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

    @cached_property
    def matrices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of `pixel_matrices`."""
        return pixel_matrices(self.intrinsics)

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
    """[H, W, 4], RGB and a byte that only makes sampling faster. On the far side of silhouettes it is that of the surface."""
    clear_color: NDArray[np.uint8]
    """The same, clear on the near side too."""
    depth: Array
    """Inverse depth, 1/m, [H, W]."""
    smooth: Array
    """The same, NaN beside silhouettes too, where depths must not be interpolated."""

    @cached_property
    def matrices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of `pixel_matrices`."""
        return pixel_matrices(self.intrinsics)

    @cached_property
    def addresses(self) -> tuple[int, int, int, int]:
        """Where smooth and plain depth, colour and clear colour lie in memory."""
        return address(self.smooth), address(self.depth), address(self.color), address(self.clear_color)

    @classmethod
    def of_keyframe(cls, keyframe: Keyframe) -> Source:
        return cls.of_picture(keyframe.color, keyframe.inverse_depth, keyframe.c2w, keyframe.intrinsics)

    @classmethod
    def of_picture(
        cls, picture: NDArray[np.uint8], depth: Array, c2w: NDArray[np.float64], intrinsics: Array
    ) -> Source:
        """Take RGB [H, W, 3] and inverse depth [H, W], negative where it is unknown; the depth is changed in place."""
        beside = silhouettes(depth)
        smooth = np.where(beside, np.float32(NAN), depth)
        color = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), np.uint8)
        clear = _clear(color, depth, beside)
        depth[depth < 0] = NAN
        return cls(c2w, intrinsics, color, clear, depth, smooth)

    @classmethod
    def of_depth(cls, view: View, inverse_depth: Array) -> Source:
        """Make one without colours."""
        smooth = np.where(silhouettes(inverse_depth), np.float32(NAN), inverse_depth)
        blank = np.zeros((1, 1, 4), np.uint8)
        return cls(view.c2w, view.intrinsics, blank, blank, inverse_depth, smooth)


def pixel_matrices(intrinsics: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intrinsics as a matrix to pixel indices, whose centres are whole numbers, and its inverse, [3, 3]."""
    fx, fy, cx, cy = intrinsics.tolist()
    cx, cy = cx - 0.5, cy - 0.5
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.array(
        [[1 / fx, 0, -cx / fx], [0, 1 / fy, -cy / fy], [0, 0, 1]]
    )


class Pixels:
    """All pixels of a view, or some of other pixels as a list, folded into rows."""

    def __init__(
        self, columns: Array, rows: Array, folded: NDArray[np.intp] | None = None, count: int = 0
    ) -> None:
        self.columns, self.rows = columns, rows
        self._folded, self._count = folded, count

    @classmethod
    def of_view(cls, view: View) -> Pixels:
        return _all_pixels(view.width, view.height)

    def among(self, chosen: NDArray[np.intp]) -> Pixels:
        """Some of these, at least one, by their flat indices."""
        num_rows = -(-len(chosen) // LIST_WIDTH)
        padding = np.repeat(chosen[-1:], num_rows * LIST_WIDTH - len(chosen))
        folded = np.concatenate([chosen, padding]).reshape(num_rows, LIST_WIDTH)
        columns, rows = (positions.reshape(-1)[folded] for positions in self.flat)
        return Pixels(columns, rows, folded, len(chosen))

    def points_within(self, chosen: NDArray[np.intp], offsets: Array) -> Pixels:
        """Several points within each of some pixels, [K * N]: all pixels with the first offset, then with the second.

        Args:
            chosen: Flat indices, [N], at least one.
            offsets: From a pixel's centre, right and down, in pixels, [K, 2].
        """
        pixels = self.among(np.tile(chosen, len(offsets)))
        for positions, shift in zip((pixels.columns, pixels.rows), offsets.T, strict=True):
            positions.reshape(-1)[: pixels._count] += np.repeat(shift, len(chosen))
        return pixels

    @cached_property
    def flat(self) -> tuple[Array, Array]:
        """Columns and rows of each, without gaps in memory, of one shape."""
        columns, rows = np.broadcast_arrays(self.columns, self.rows)
        return np.ascontiguousarray(columns), np.ascontiguousarray(rows)

    def unfolded(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of a list, [N] or [N, C]."""
        return values.reshape(-1, *values.shape[2:])[: self._count]

    def take(self, image: Array) -> Array:
        """Their values in an image of what they were chosen among."""
        return image if self._folded is None else image.reshape(-1, *image.shape[2:])[self._folded]

    def put(self, image: NDArray, values: NDArray) -> None:
        """Write their values into an image [H, W] or [H, W, C] of what they were chosen among."""
        assert self._folded is not None
        channels = image.shape[2:]
        index = self._folded.reshape(-1)[: self._count]
        image.reshape(-1, *channels)[index] = self.unfolded(values)


@lru_cache(maxsize=8)
def _all_pixels(width: int, height: int) -> Pixels:
    """The pixels of pictures of one size; the frames of a walk have two or three."""
    columns = np.arange(width, dtype=np.float32)[None]
    return Pixels(columns, np.arange(height, dtype=np.float32)[:, None])


def silhouettes(inverse_depth: Array) -> Mask:
    """Find pixels beside a jump of depth that neither neighbour's slope explains, [H, W]."""
    kernels = loaded()
    if kernels is not None:
        return kernels.silhouettes(inverse_depth)
    found = np.zeros(inverse_depth.shape, bool)
    for along in (0, 1):
        depth, mark = (inverse_depth, found) if along else (inverse_depth.T, found.T)
        step = np.abs(depth[:, 1:] - depth[:, :-1])
        around = step.copy()
        if step.shape[1] > 1:
            np.maximum(step[:, :-2], step[:, 2:], out=around[:, 1:-1])
            np.maximum(step[:, :1], step[:, 1:2], out=around[:, :1])
            np.maximum(step[:, -1:], step[:, -2:-1], out=around[:, -1:])
        jump = step > 2.0 * around + 0.003
        mark[:, :-1] |= jump
        mark[:, 1:] |= jump
    return found


def _clear(color: NDArray[np.uint8], inverse_depth: Array, beside: Mask) -> NDArray[np.uint8]:
    """Give pixels beside silhouettes the colour of the nearest pixel of the same surface: those on the far side in place.

    What stands on the other side is mixed into theirs, and would be seen as a thin line wherever another camera sees past it.

    Args:
        color: [H, W, 4].
        beside: Pixels on either side of a silhouette, [H, W].

    Returns:
        The same with pixels on both sides cleared.
    """
    cleared, kernels = color.copy(), loaded()
    if kernels is not None:
        kernels.clear(color, cleared, inverse_depth, beside, np.array(CLEAR_FROM, np.int32))
        return cleared
    height, width = inverse_depth.shape
    row, column = np.nonzero(beside)
    own = inverse_depth[row, column]
    for down, right in CLEAR_FROM:
        there = np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)
        alike = np.abs(inverse_depth[there] - own) < 0.05 * own + np.float32(0.002)
        clear = alike & ~beside[there]
        cleared[row[clear], column[clear]] = color[there[0][clear], there[1][clear]]
        row, column, own = row[~clear], column[~clear], own[~clear]
    behind = beside & far_side(inverse_depth)
    color[behind] = cleared[behind]
    return cleared


def split(inverse_depth: Array) -> tuple[Array, Array]:
    """Take the near and the far side of every silhouette a pixel wider on both sides, [H, W] each; equal elsewhere."""
    beside = cv2.dilate(silhouettes(inverse_depth).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    near = chosen(nearest_around(inverse_depth), beside, inverse_depth)
    return near, chosen(farthest_around(inverse_depth), beside, inverse_depth)
