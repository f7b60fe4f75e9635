"""The depth of a chunk's anchor camera: rays are marched through what a few keyframes show, between the coarse depths."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from engine.memory.blend import BEHIND
from engine.memory.images import NEAREST, Array, farthest_around, nearest_around, resized
from engine.memory.selection import CELL, CoarseDepth
from engine.memory.sources import NOTHING, Pixels, Source, View
from engine.memory.warp import MARCH_TOLERANCE_PX, Link

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
    best = np.full((anchor.height, anchor.width), NOTHING)
    links = [Link(anchor, source, everything) for source in selected]
    for found in pool.map(lambda link: link.march(nearest, farthest), links):
        np.maximum(best, found, out=best)
    _extend_anchor(best, everything, links)
    # What is seen behind the middle of something near is seen through it, from where it does not stand in the way.
    least, expected = BEHIND * inner, BEHIND * _enlarged(coarse.solid, anchor)
    best[best < least] = NOTHING
    fillers: list[Source] = []
    for source in others:
        doubtful = np.flatnonzero(best < expected)
        if not len(doubtful):
            break
        pixels = everything.among(doubtful)
        found = Link(anchor, source, pixels).march(pixels.take(nearest), pixels.take(farthest))
        found[found < pixels.take(least)] = NOTHING
        before = pixels.take(best)
        pixels.put(best, np.maximum(before, found))
        if np.count_nonzero(pixels.unfolded(found > before)) > 4:
            fillers.append(source)
    return np.where(best < 0, np.maximum(far, inner), best), fillers


def _extend_anchor(best: Array, everything: Pixels, links: Sequence[Link]) -> None:
    """Let what stands in front reach as far as the keyframes show it, in place.

    Where a ray passes behind a silhouette for a short way alone, the march steps over it.

    Args:
        best: Inverse depth of the anchor's pixels, NOTHING where none is known, [H, W].
    """
    near, beside = beside_nearer(best)
    if not len(beside):
        return
    pixels = everything.among(beside)
    guess, extended = pixels.take(near), pixels.take(best)
    for link in links:
        some = link.at(pixels)
        np.maximum(extended, some.verified(some.solve(guess), MARCH_TOLERANCE_PX), out=extended)
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
