"""Arithmetic of float32 images in OpenCV, which is several times as fast as numpy where masks or scalars are involved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import Array

Mask = NDArray[np.bool_]

FAR_AWAY = np.float32(100.0)
"""Stands for no surface where the smallest inverse depth is looked for."""
NEAREST, LINEAR = cv2.INTER_NEAREST, cv2.INTER_LINEAR


def add_scaled(image: Array, factor: float, other: Array) -> Array:
    """Return `factor * image + other`."""
    return np.asarray(cv2.scaleAdd(image, factor, other), np.float32)


def at_least(image: Array, least: float) -> Array:
    """Return the larger of each value and `least`."""
    return np.asarray(cv2.max(image, cast("Any", least)), np.float32)


def at_most(image: Array, most: float) -> Array:
    """Return the smaller of each value and `most`."""
    return np.asarray(cv2.min(image, cast("Any", most)), np.float32)


def overwrite(image: Array, where: Mask, values: Array) -> Array:
    """Write the values of another image where a mask is set, in place, and return the image."""
    return np.asarray(cv2.copyTo(values, where.view(np.uint8), image), np.float32)


def chosen(values: Array, where: Mask, others: Array) -> Array:
    """Return `values` where a mask is set, and `others` elsewhere."""
    return overwrite(others.copy(), where, values)


def weighted(image: NDArray[Any], weight: Array) -> Array:
    """Multiply an image of four channels by one weight a pixel."""
    return np.asarray(cv2.multiply(image, cv2.merge([weight] * 4), dtype=cv2.CV_32F), np.float32)


def colors_of(image: NDArray[Any]) -> NDArray[Any]:
    """Red, green and blue of an image of four channels, [H, W, 3]."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB))


def channel(image: Array, number: int) -> Array:
    """One channel of an image, [H, W]."""
    return np.asarray(cv2.extractChannel(image, number), np.float32)


def resized(image: NDArray[Any], size: tuple[int, int], how: int) -> NDArray[Any]:
    """Resize to (width, height)."""
    return np.asarray(cv2.resize(image, size, interpolation=how))


def enlarged(smooth: Array, stepped: Array, apart: Mask, size: tuple[int, int]) -> Array:
    """Enlarge to (width, height): `smooth` with what lies between its pixels, but `stepped` without, where `apart` is set."""
    parts = (resized(part, size, NEAREST) for part in (apart.view(np.uint8), stepped))
    return overwrite(resized(smooth, size, LINEAR), *parts)


def sample(image: NDArray[Any], u: Array, v: Array, how: int, border: float) -> NDArray[Any]:
    """Sample an image at pixel indices, [H, W]; `border` outside."""
    found = cv2.remap(image, u, v, how, borderMode=cv2.BORDER_CONSTANT, borderValue=(border,) * 4)
    return np.asarray(found)


def farthest_around(inverse_depth: Array, size: int = 3) -> Array:
    """Take the farthest depth of each neighbourhood of `size` pixels, [H, W]."""
    return np.asarray(cv2.erode(inverse_depth, np.ones((size, size), np.uint8)), np.float32)


def nearest_around(inverse_depth: Array, size: int = 3) -> Array:
    """Take the nearest depth of each neighbourhood of `size` pixels, [H, W]."""
    return np.asarray(cv2.dilate(inverse_depth, np.ones((size, size), np.uint8)), np.float32)


def filled_from_farthest(inverse_depth: Array, sizes: Sequence[int]) -> Array:
    """Fill what is negative with the farthest depth around, from ever larger neighbourhoods, then with infinity, [H, W].

    Args:
        sizes: Sides of the neighbourhoods, in pixels, one after another.
    """
    for size in sizes:
        empty = inverse_depth < 0
        if not empty.any():
            return inverse_depth
        around = farthest_around(np.where(empty, FAR_AWAY, inverse_depth), size)
        inverse_depth = np.where(empty & (around < FAR_AWAY), around, inverse_depth).astype(np.float32)
    return np.maximum(inverse_depth, np.float32(0.0))


def far_side(inverse_depth: Array, size: int = 3) -> Mask:
    """Find pixels whose depth is nearer to the farthest than to the nearest of their neighbourhood, [H, W]."""
    middle = np.float32(0.5) * (nearest_around(inverse_depth, size) + farthest_around(inverse_depth, size))
    return inverse_depth < middle
