"""The depth of a chunk's anchor camera: rays are marched through what a few keyframes show, between the coarse depths."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.memory.blend import BEHIND, TOLERANCE_PX
from engine.memory.images import NEAREST, Array, farthest_around, nearest_around, overwrite, resized
from engine.memory.selection import CELL, CoarseDepth
from engine.memory.sources import NOTHING, Pixels, Source, View
from engine.memory.warp import Link

EXTENSION_PX = 5
"""Beside its silhouettes a surface is looked for within this square around a pixel."""


def anchor_depth(
    anchor: View, coarse: CoarseDepth, selected: Sequence[Source], others: Sequence[Source], pool: Executor
) -> tuple[Array, list[Source]]:
    """Search the inverse depth of the anchor's pixels, and what fills the pixels that the selected keyframes leave open.

    Returns:
        Inverse depth [H, W], the coarse one where no keyframe has any, and those of the others that fill anything.
    """
    inner, near, far = (
        _enlarged(cells, anchor) for cells in (farthest_around(coarse.solid), coarse.near, coarse.far)
    )
    nearest, farthest = near * np.float32(1.25), far * np.float32(0.75)
    everything = Pixels.of_view(anchor)
    march = partial(_march, nearest=nearest, farthest=farthest)
    best = np.full((anchor.height, anchor.width), NOTHING)
    for found in pool.map(march, [Link(anchor, source, everything) for source in selected]):
        np.maximum(best, found, out=best)
    _extend_anchor(anchor, best, selected)
    # What is seen behind the middle of something near is seen through it, from where it does not stand in the way.
    least, expected = BEHIND * inner, BEHIND * _enlarged(coarse.solid, anchor)
    best[best < least] = NOTHING
    fillers: list[Source] = []
    for source in others:
        doubtful = np.flatnonzero(best < expected)
        if not len(doubtful):
            break
        pixels = everything.among(doubtful)
        found = march(Link(anchor, source, pixels))
        found[found < pixels.take(least)] = NOTHING
        before = pixels.take(best)
        pixels.put(best, np.maximum(before, found))
        if np.count_nonzero(pixels.unfolded(found > before)) > 4:
            fillers.append(source)
    return np.where(best < 0, np.maximum(far, inner), best), fillers


def _extend_anchor(anchor: View, best: Array, sources: Sequence[Source]) -> None:
    """Let what stands in front reach as far as the keyframes show it, in place.

    Where a ray passes behind a silhouette for a short way alone, the march steps over it.

    Args:
        best: Inverse depth of the anchor's pixels, NOTHING where none is known, [H, W].
    """
    near, beside = beside_nearer(best)
    if not len(beside):
        return
    pixels = Pixels.of_view(anchor).among(beside)
    guess, extended = pixels.take(near), pixels.take(best)
    for source in sources:
        link = Link(anchor, source, pixels)
        np.maximum(extended, _verified(link, link.solve(guess)), out=extended)
    pixels.put(best, extended)


def beside_nearer(depth: Array) -> tuple[Array, NDArray[np.intp]]:
    """Nearest inverse depth around each pixel, [H, W], and the flat indices of pixels that are clearly behind it."""
    near = nearest_around(depth, EXTENSION_PX)
    return near, np.flatnonzero(near > np.float32(1.1) * depth + np.float32(0.02))


def _enlarged(cells: Array, view: View) -> Array:
    """Values of cells for the pixels of a view, [H, W]."""
    size = (cells.shape[1] * CELL, cells.shape[0] * CELL)
    large = resized(cells, size, NEAREST)
    return np.ascontiguousarray(large[: view.height, : view.width], np.float32)


def _march(link: Link, nearest: Array, farthest: Array) -> Array:
    """Inverse depth of the nearest surface that a keyframe shows to each pixel, NOTHING where it shows none.

    `nearest` and `farthest` bound it; they are of the whole view.
    """
    first, last = link.crossings(link.pixels.take(nearest), link.pixels.take(farthest))
    found = _verified(link, link.narrowed(*first))
    again = np.flatnonzero(first[0] != last[0])
    if len(again):
        # Few rays pass behind something twice.
        part = link.among(again)
        second = _verified(part, part.narrowed(*(part.pixels.take(bound) for bound in last)))
        part.pixels.put(found, np.maximum(part.pixels.take(found), second))
    return found


def _verified(link: Link, guess: Array) -> Array:
    """Inverse depth of the surface points behind guesses that project into their pixels; NOTHING elsewhere."""
    surface = link.surface(guess, search=True, colors=False)
    sound = (surface.error_px < 2 * TOLERANCE_PX) & (guess >= 0)
    return overwrite(np.full_like(guess, NOTHING), sound, surface.inverse_depth)
