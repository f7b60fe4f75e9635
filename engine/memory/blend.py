"""Colours and depths of several keyframes put together into one picture, and what fills its gaps."""

from __future__ import annotations

import cv2
import numpy as np

from engine.memory.images import LINEAR, Array, at_least, at_most, overwrite, resized, weighted
from engine.memory.sources import NOTHING, Pixels
from engine.memory.warp import Surface

TOLERANCE_PX = 0.6
"""Greatest distance of a surface point's projection from the pixel's centre."""
LEAST_SCALE = 1 / 3
"""Pixels of a keyframe per pixel of the view, down to which that distance is measured in the larger of the two."""
BEHIND = np.float32(0.75)
"""Points whose inverse depth is less than this share of what is known to stand there are hidden by it."""
SAME_SURFACE = np.float32(0.97)
"""Points whose inverse depth is at least this share of the nearest one's are of the same surface."""
FAR = np.float32(0.02)
"""Inverse depth, 1/m, at which a pixel counts a quarter of what the sky does when holes are filled."""
GAP_LEVELS = 5
"""Sizes of cells, 1 to 16 pixels, in which far surfaces count more."""
LEAST_WEIGHT, LEAST_COVERAGE = 1e-6, 1e-3
"""Of a cell, below which it is filled from larger ones: there, and in larger cells."""


def projection_error(surface: Surface) -> Array:
    """How far points project from their pixels, [H, W], to be held against TOLERANCE_PX; NaN where there is no point."""
    # Where pixels of the keyframe are larger than those of the view, projections lie farther apart.
    return surface.error_px * at_most(at_least(surface.scale, LEAST_SCALE), 1.0)


class Blend:
    """Surface points of keyframes, blended where they are of each pixel's nearest surface."""

    def __init__(self, least: Array) -> None:
        """`least`: inverse depth of what hides everything behind it, [H, W]."""
        self.nearest = np.full(least.shape, NOTHING)
        self._least = least
        self._parts: list[tuple[Array, Array, Surface]] = []
        self._merged: tuple[Blend, Pixels] | None = None

    def add(self, surface: Surface) -> None:
        """Take in what one keyframe shows."""
        scale = surface.scale
        error = projection_error(surface)
        # Weights fall with the fourth power of how much finer or coarser the keyframe is.
        weight = np.minimum(scale, np.reciprocal(at_least(scale, 1e-3)))
        weight *= weight
        weight *= weight
        weight *= np.float32(1.0) - surface.beside_silhouette * np.float32(0.9)
        weight += np.float32(1e-4)
        weight *= np.float32(1.05) - at_most(error * np.float32(1 / TOLERANCE_PX), 1.0)
        sound = error < TOLERANCE_PX
        sound &= surface.inverse_depth >= self._least
        depth = overwrite(np.full_like(weight, NOTHING), sound, surface.inverse_depth)
        np.maximum(self.nearest, depth, out=self.nearest)
        self._parts.append((depth, weight, surface))

    def merge(self, other: Blend, where: Pixels) -> None:
        """Take in what another blend has of some pixels."""
        other.nearest = np.maximum(where.take(self.nearest), other.nearest)
        where.put(self.nearest, other.nearest)
        self._merged = other, where

    def sums(self) -> tuple[Array, Array]:
        """Weighted sums of red, green, blue and inverse depth [H, W, 4], and of the weights [H, W]."""
        least = self.nearest * SAME_SURFACE
        least -= np.float32(0.002)
        height, width = least.shape
        color = np.zeros((height, width, 4), np.float32)
        total, depth = np.zeros_like(least), np.zeros_like(least)
        for inverse, weight, surface in self._parts:
            counted = overwrite(np.zeros_like(weight), (inverse > least), weight)
            color += weighted(surface.color, counted)
            total += counted
            counted *= inverse
            depth += counted
        color[..., 3] = depth
        return color, total

    def result(self) -> tuple[Array, Array]:
        """Red, green, blue and inverse depth [H, W, 4], 0 where nothing is shown, and where something is, 0 or 1 [H, W]."""
        color, total = self.sums()
        if self._merged is not None:
            other, where = self._merged
            for part, extra in zip((color, total), other.sums(), strict=True):
                where.put(part, where.take(part) + extra)
        known = (total > 0).astype(np.float32)
        share = known / at_least(total, 1e-9)
        return weighted(color, share), known


def fill(image: Array, coverage: Array) -> Array:
    """Fill what is not covered smoothly from around it, by averages over ever larger cells.

    In small cells what is farther off counts more: gaps open where something in front hid what is behind it.

    Args:
        image: Red, green, blue and inverse depth, [H, W, 4], 0 where not covered.
        coverage: [H, W], 0 or 1.
    """
    if coverage.min() > 0:
        return image
    share = FAR / (image[..., 3] + FAR)
    weight = np.asarray(coverage * share * share, np.float32)
    levels = _pyramid(image, coverage)
    levels[:GAP_LEVELS] = _pyramid(weighted(image, weight), weight, GAP_LEVELS)
    total, weight = levels[-1]
    below = np.zeros_like(total) + total.sum((0, 1)) / max(float(weight.sum()), 1e-6)
    for level, (total, weight) in reversed(list(enumerate(levels))):
        below = resized(below, weight.shape[::-1], LINEAR)
        least = LEAST_WEIGHT if level < GAP_LEVELS else LEAST_COVERAGE
        mean = weighted(total, np.reciprocal(at_least(weight, least)))
        overwrite(below, weight > least, mean)
    return below


def _pyramid(total: Array, weight: Array, most: int | None = None) -> list[tuple[Array, Array]]:
    """Weighted sums [H, W, 4] and weights [H, W] over cells of 1, 2, 4 ... pixels."""
    levels = [(total, weight)]
    while min(weight.shape) > 2 and len(levels) != most:
        height, width = weight.shape
        size = ((width + 1) // 2, (height + 1) // 2)
        total, weight = (resized(part, size, cv2.INTER_AREA) for part in levels[-1])
        levels.append((total, weight))
    return levels
