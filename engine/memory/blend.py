"""Colours and depths of several keyframes put together into one picture, and what fills its gaps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.images import LINEAR, Array, at_least, at_most, overwrite, resized, weighted
from engine.memory.kernels import MAX_SURFACES, NOT_BESIDE, SEARCH, SOLVE, Rules, loaded
from engine.memory.sources import NOTHING
from engine.memory.warp import ENLARGED, TOLERANCE_PX, Link, Surface

LEAST_SCALE = 1 / 3
"""Pixels of a keyframe per pixel of the view, down to which that distance is measured in the larger of the two."""
BEHIND = np.float32(0.75)
"""Points whose inverse depth is less than this share of what is known to stand there are hidden by it."""
SAME_SURFACE = np.float32(0.97)
"""Points whose inverse depth is at least this share of the nearest one's are of the same surface."""
FAR = np.float32(0.02)
"""Inverse depth, 1/m, at which a pixel counts a quarter of what the sky does when holes are filled."""
LEAST_PIXELS = 200
"""Fewer pixels than this are not worth a look into another keyframe, where that takes a dozen calls."""
GAP_LEVELS = 5
"""Sizes of cells, 1 to 16 pixels, in which far surfaces count more."""
LEAST_WEIGHT, LEAST_COVERAGE = 1e-6, 1e-3
"""Of a cell, below which it is filled from larger ones: there, and in larger cells."""
RULES = Rules(TOLERANCE_PX, LEAST_SCALE, SAME_SURFACE, ENLARGED)
"""What of these the kernels are told."""


def blend(
    links: Sequence[Link],
    guesses: Sequence[Array],
    least: Array,
    *,
    solve: bool = False,
    search: bool = True,
    not_beside: bool = False,
) -> tuple[Array, Array]:
    """Blend the surfaces that several keyframes show to the same pixels, where they are of each pixel's nearest one.

    Args:
        links: The pixels seen from at least one keyframe.
        guesses: One or more inverse depths for each pixel to search from.
        least: Inverse depth of what hides everything behind it, of the same shape.
        solve: Take guesses to where the search converges first.
        search: Take one step of the search.
        not_beside: Leave out what keyframes show beside their silhouettes.

    Returns:
        Red, green, blue and inverse depth [H, W, 4], 0 where nothing is shown, and where something is, 0 or 1 [H, W].
    """
    kernels = loaded()
    if kernels is not None and len(links) * len(guesses) <= MAX_SURFACES:
        how = SOLVE * solve | SEARCH * search | NOT_BESIDE * not_beside
        records = [link.record for link in links]
        return kernels.blend(records, links[0].pixels.flat, guesses, least, how, RULES)
    parts = []
    for link in links:
        for guess in guesses:
            surface = link.surface(link.solve(guess) if solve else guess, search=search)
            error = projection_error(surface)
            sound = (error < TOLERANCE_PX) & (surface.inverse_depth >= least)
            if not_beside:
                sound &= ~surface.beside_silhouette
            depth = overwrite(np.full(least.shape, NOTHING), sound, surface.inverse_depth)
            parts.append((depth, _weight(surface, error), surface.color))
    return _weighted_mean(parts)


def first_shown(links: Sequence[Link], guess: Array) -> tuple[NDArray[np.uint8], Array]:
    """Return what the first keyframe shows that shows anything near to a guess, for each pixel.

    Returns:
        RGB and a fourth byte, [H, W, 4], and inverse depth, 1/m, [H, W], NOTHING where none shows anything.
    """
    kernels = loaded()
    if kernels is not None and links:
        return kernels.look([link.record for link in links], links[0].pixels.flat, guess, RULES)
    color, depth = np.zeros((*guess.shape, 4), np.uint8), np.full(guess.shape, NOTHING)
    open_ = np.arange(guess.size)
    for link in links:
        if len(open_) < LEAST_PIXELS:
            break
        pixels = link.pixels.among(open_)
        some = link.at(pixels)
        # Here two steps are as good as the limit that `solve` estimates from them, and sounder.
        surface = some.surface(some.step(some.step(pixels.take(guess))), search=True)
        shown = pixels.unfolded(projection_error(surface)) < TOLERANCE_PX
        found = open_[shown]
        color.reshape(-1, 4)[found] = pixels.unfolded(surface.color)[shown]
        depth.reshape(-1)[found] = pixels.unfolded(surface.inverse_depth)[shown]
        open_ = open_[~shown]
    return color, depth


def projection_error(surface: Surface) -> Array:
    """How far points project from their pixels, [H, W], to be held against TOLERANCE_PX; NaN where there is no point."""
    # Where pixels of the keyframe are larger than those of the view, projections lie farther apart.
    return surface.error_px * at_most(at_least(surface.scale, LEAST_SCALE), 1.0)


def _weight(surface: Surface, error: Array) -> Array:
    """How much the surface points of a keyframe count, [H, W]."""
    scale = surface.scale
    # Weights fall with the fourth power of how much finer or coarser the keyframe is.
    weight = np.minimum(scale, np.reciprocal(at_least(scale, 1e-3)))
    weight *= weight
    weight *= weight
    weight *= np.float32(1.0) - surface.beside_silhouette * np.float32(0.9)
    weight += np.float32(1e-4)
    weight *= np.float32(1.05) - at_most(error * np.float32(1 / TOLERANCE_PX), 1.0)
    return weight


def _weighted_mean(parts: Sequence[tuple[Array, Array, NDArray[np.uint8]]]) -> tuple[Array, Array]:
    """Average inverse depths, NOTHING where there are none, and colours by their weights, those of the nearest surface alone."""
    least = np.maximum.reduce([depth for depth, _, _ in parts]) * SAME_SURFACE
    least -= np.float32(0.002)
    image = np.zeros((*least.shape, 4), np.float32)
    total, inverse = np.zeros_like(least), np.zeros_like(least)
    for depth, weight, color in parts:
        counted = overwrite(np.zeros_like(weight), depth > least, weight)
        image += weighted(color, counted)
        total += counted
        counted *= depth
        inverse += counted
    image[..., 3] = inverse
    known = (total > 0).astype(np.float32)
    return weighted(image, known / at_least(total, 1e-9)), known


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
