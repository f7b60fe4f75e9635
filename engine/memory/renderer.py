"""What a camera sees of a spatial memory: colour, coverage and inverse depth.

For a chunk, points of the keyframes are rendered into coarse cells. They say which keyframes to look into, and between which
depths to march along the rays of an anchor camera, which sees what all frames of the chunk see. The anchor's depth gives each
frame two guesses, one on the near and one on the far side of silhouettes, which every selected keyframe corrects. The nearest
point that truly projects into a pixel wins, and colours are blended over the keyframes that agree about it.

Everything is a function of the keyframes and the cameras alone, bit for bit, whatever was rendered before and on however many
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.machine.hardware import num_cores
from engine.memory.anchor import anchor_depth, beside_nearer
from engine.memory.blend import BEHIND, blend, fill
from engine.memory.images import (
    Array,
    channel,
    chosen,
    colors_of,
    enlarged,
    farthest_around,
    nearest_around,
    overwrite,
)
from engine.memory.keyframes import Keyframe
from engine.memory.rendering import MemoryRendering
from engine.memory.selection import (
    MAX_FILLERS,
    MAX_SELECTED,
    coarse_depth,
    find_candidates,
    rank_keyframes,
)
from engine.memory.sources import NOTHING, Pixels, Source, View, silhouettes, split
from engine.memory.warp import TOLERANCE_PX, Link

ANCHOR_SCALE, ANCHOR_MARGIN = 0.5, 1.5
"""The anchor has half the resolution of the frames and one and a half times their field of view."""
LEAST_THREADS, MOST_THREADS = 2, 4
"""Frames of a chunk, and keyframes of its anchor, are worked on as many at a time as there are cores, within these."""
MAX_SOURCES = 3 * (MAX_SELECTED + MAX_FILLERS) // 2
"""Keyframes that are kept ready to be sampled: those of a chunk, and some of those before. Each takes 4 MB at 512x512."""
LARGEST_RECYCLED_BYTES = 31 << 20
"""Just under the largest mmap threshold of glibc."""
EDGE_PX = 3
"""Side of the square around a pixel whose nearest and farthest surface it may show."""
LEAST_CONTRAST = 6.0
"""Levels of a colour channel between the pixels of that square, below which a silhouette is not to be seen."""
POINTS_WITHIN = np.array([(-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375)], np.float32)
"""Offsets in pixels, right and down, of the points that a pixel at a silhouette is the mean of: a rotated grid."""
LEAST_POINTS = 2
"""Of them that must show something."""
FIRST_GUESS = 0.02
"""Inverse depth from which a frame's own is searched in the anchor's, 1/m."""
LEAST_SHIFT_PX = 2.0
"""How far the nearest thing must shift between anchor and frame, at half the frame's resolution, to be searched for from near."""
DEPTH = 3
"""Channel of inverse depth in images of colour and depth."""
CRACK_PX = 3
"""Open pixels are closed from surfaces that show within this square around them."""


class MemoryRenderer:
    """Renders a list of keyframes that may grow."""

    def __init__(self, keyframes: Sequence[Keyframe] = ()) -> None:
        self.keyframes: list[Keyframe] = []
        self._poses = np.empty((0, 4, 4), np.float32)
        self._sources: dict[Keyframe, Source] = {}
        self._pool = ThreadPoolExecutor(max(LEAST_THREADS, min(MOST_THREADS, num_cores())), "memory")
        # glibc gives arrays of such sizes back to the system, and faults their pages in again, until one as large as this was
        # freed; that took more than half of the time.
        np.empty(LARGEST_RECYCLED_BYTES, np.uint8)
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
        candidates = [self.keyframes[n] for n in find_candidates(anchor, self._poses[:num_keyframes])]
        list(self._pool.map(Keyframe.make_ready, [k for k in candidates if not k.is_ready]))
        coarse = coarse_depth(anchor, [keyframe.points for keyframe in candidates])
        ranked = [candidates[n] for n in rank_keyframes(anchor, coarse.looked_for, candidates)]
        sources = self._prepared(ranked)
        selected, others = sources[:MAX_SELECTED], sources[MAX_SELECTED:]
        depth, fillers = anchor_depth(anchor, coarse, selected, others, self._pool)
        guides = [Source.of_depth(anchor, part) for part in split(depth)]
        # Whoever stands still sees the same in all frames.
        keys = [(view.c2w.tobytes(), view.intrinsics.tobytes()) for view in views]
        distinct = dict(zip(keys, views, strict=True))
        rendered = self._pool.map(partial(_render_frame, guides, selected, fillers), distinct.values())
        frames = dict(zip(distinct, rendered, strict=True))
        color, coverage, inverse_depth = (
            np.stack(part) for part in zip(*(frames[key] for key in keys), strict=True)
        )
        return MemoryRendering(color, coverage, inverse_depth, list(zip(ranked, sources, strict=True)))

    def _prepared(self, keyframes: Sequence[Keyframe]) -> list[Source]:
        """Make keyframes ready to be sampled; those of the last chunks are still."""
        new = [keyframe for keyframe in keyframes if keyframe not in self._sources]
        made = dict(zip(new, self._pool.map(Source.of_keyframe, new), strict=True))
        used = {keyframe: self._sources.pop(keyframe, None) or made[keyframe] for keyframe in keyframes}
        kept = list(self._sources.items())[max(0, len(self._sources) + len(used) - MAX_SOURCES) :]
        self._sources = {**dict(kept), **used}
        return list(used.values())


def _render_frame(
    guides: Sequence[Source], selected: Sequence[Source], fillers: Sequence[Source], view: View
) -> tuple[NDArray[np.uint8], Array, Array]:
    """Render one frame: colour [H, W, 3], coverage and inverse depth [H, W]."""
    image = np.zeros((view.height, view.width, 4), np.float32)
    coverage = np.zeros((view.height, view.width), np.float32)
    if selected:
        image, coverage = _shown(guides, selected, fillers, view)
    filled = fill(image, coverage)
    color = np.asarray(cv2.convertScaleAbs(filled))
    return colors_of(color), coverage, channel(filled, DEPTH)


def _shown(
    guides: Sequence[Source], selected: Sequence[Source], fillers: Sequence[Source], view: View
) -> tuple[Array, Array]:
    """Red, green, blue and inverse depth [H, W, 4] of what at least one keyframe shows, and where it shows any [H, W]."""
    near, far = _guesses(view, guides)
    pixels, least = Pixels.of_view(view), BEHIND * far
    links = [Link(view, source, pixels) for source in selected]
    image, coverage = blend(links, [near], least)
    doubtful = np.flatnonzero(np.abs(near - far) > 0.02 * near + 1e-4)
    if len(doubtful):
        some = pixels.among(doubtful)
        found = blend(_at(links, some), [some.take(near), some.take(far)], some.take(least))
        _put(image, coverage, some, found)
    if fillers:
        _fill_open(image, coverage, (near, far), [Link(view, source, pixels) for source in fillers], least)
    _fill_cracks(image, coverage, links)
    _extend_surfaces(image, coverage, links)
    _smooth_edges(image, coverage, links)
    return image, coverage


def _at(links: Sequence[Link], pixels: Pixels) -> list[Link]:
    return [link.at(pixels) for link in links]


def _put(image: Array, coverage: Array, pixels: Pixels, found: tuple[Array, Array]) -> None:
    """Write what was found for some pixels into the picture."""
    for part, values in zip((image, coverage), found, strict=True):
        pixels.put(part, values)


def _fill_open(
    image: Array, coverage: Array, guesses: Sequence[Array], links: Sequence[Link], least: Array
) -> None:
    """Fill pixels that are still open from keyframes that were not looked into yet, in place.

    Args:
        image: Red, green, blue and inverse depth, [H, W, 4].
        coverage: [H, W].
        guesses: Inverse depths to search from, [H, W] each.
        least: Of what is found, [H, W].
    """
    open_pixels = np.flatnonzero((coverage == 0) & (guesses[0] >= 0))
    if len(open_pixels):
        pixels = links[0].pixels.among(open_pixels)
        starts = [pixels.take(guess) for guess in guesses]
        found = blend(_at(links, pixels), starts, pixels.take(least), solve=True, search=False)
        _put(image, coverage, pixels, found)


def _fill_cracks(image: Array, coverage: Array, links: Sequence[Link]) -> None:
    """Fill open pixels from the surfaces that show around them, in place."""
    near, far = _surroundings(channel(image, DEPTH), coverage, CRACK_PX)
    open_pixels = np.flatnonzero((coverage == 0) & (near >= 0))
    if len(open_pixels):
        pixels = links[0].pixels.among(open_pixels)
        starts = [pixels.take(near), pixels.take(far)]
        # Colours beside silhouettes are mixed with those of the other side.
        found = blend(_at(links, pixels), starts, BEHIND * starts[1], not_beside=True)
        _put(image, coverage, pixels, found)


def _extend_surfaces(image: Array, coverage: Array, links: Sequence[Link]) -> None:
    """Let what stands in front reach as far as the keyframes show it, in place: guesses from the anchor's pixels end too soon.

    Args:
        image: Red, green, blue and inverse depth, [H, W, 4].
        coverage: [H, W].
    """
    depth = overwrite(channel(image, DEPTH), coverage == 0, np.full_like(coverage, NOTHING))
    near, beside = beside_nearer(depth)
    if not len(beside):
        return
    pixels = links[0].pixels.among(beside)
    least = np.float32(1.05) * pixels.take(depth)
    found, known = blend(_at(links, pixels), [pixels.take(near)], least, solve=True)
    found, shown = pixels.unfolded(found), pixels.unfolded(known) > 0
    image.reshape(-1, 4)[beside[shown]] = found[shown]
    coverage.reshape(-1)[beside[shown]] = 1


def _smooth_edges(image: Array, coverage: Array, links: Sequence[Link]) -> None:
    """Give pixels at silhouettes the mean colour of several points within them, as a camera does, in place.

    Args:
        image: Red, green, blue and inverse depth, [H, W, 4].
    """
    depth, color = channel(image, DEPTH), colors_of(image)
    beside = cv2.dilate(silhouettes(depth).view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    edges = np.flatnonzero(beside & (coverage > 0))
    contrast = (nearest_around(color) - farthest_around(color)).reshape(-1, 3)[edges]
    edges = edges[np.maximum.reduce(contrast.T) > LEAST_CONTRAST]
    if not len(edges):
        return
    points = links[0].pixels.points_within(edges, POINTS_WITHIN)
    near, far = (points.take(side) for side in _surroundings(depth, coverage, EDGE_PX))
    found, shows = (points.unfolded(part) for part in blend(_at(links, points), [near, far], BEHIND * far))
    count = shows.reshape(len(POINTS_WITHIN), -1).sum(0)
    total = found[:, :3].reshape(len(POINTS_WITHIN), -1, 3).sum(0)
    enough = count >= LEAST_POINTS
    image.reshape(-1, 4)[edges[enough], :3] = total[enough] / count[enough, None]


def _surroundings(depth: Array, coverage: Array, size: int) -> tuple[Array, Array]:
    """Nearest and farthest inverse depth around each pixel, NOTHING where nothing shows there, [H, W] each."""
    is_open = coverage == 0
    near, far = (chosen(np.full_like(depth, blank), is_open, depth) for blank in (NOTHING, np.inf))
    return nearest_around(near, size), farthest_around(far, size)


def _guesses(view: View, guides: Sequence[Source]) -> tuple[Array, Array]:
    """Near and far guesses of a frame's inverse depth from those of the chunk's anchor, [H, W] each."""
    half = view.scaled(0.5, view.width // 2, view.height // 2)
    pixels, size, found = Pixels.of_view(half), (view.width, view.height), []
    for guide, side in zip(guides, (0, 1), strict=True):
        link = Link(half, guide, pixels)
        guess = link.solve(link.solve(np.full((half.height, half.width), FIRST_GUESS, np.float32)))
        nearest = guide.depth.max()
        shift_px = half.intrinsics[0] * np.linalg.norm(view.position - guide.c2w[:3, 3]) * nearest
        if shift_px > LEAST_SHIFT_PX:
            guess = _nearest(link, guess, nearest)
        sides = split(guess)
        found.append(enlarged(guess, sides[side], sides[0] != sides[1], size))
    return found[0], found[1]


def _nearest(link: Link, guess: Array, nearest: np.float32) -> Array:
    """Replace guesses by nearer surfaces that also project into their pixels.

    From far away the search passes by a near thing whose edge stands elsewhere in the anchor. Beside the anchor's own silhouettes
    nothing is taken: there depth is that of either side.
    """
    found = link.verified(link.solve(link.solve(np.full_like(guess, nearest))), TOLERANCE_PX, not_beside=True)
    return np.maximum(guess, found)
