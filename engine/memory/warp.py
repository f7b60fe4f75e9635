"""The way from the pixels of a view into a keyframe and back: where a ray meets what the keyframe saw.

A point at some inverse depth along a ray is projected into the keyframe, whose depth there says where the surface is; what the
view makes of that surface point is the next guess (fixed-point image warping, after Bowles et al., "Iterative Image Warping",
2012). Aitken's rule takes the steps to their limit, and a march along the ray finds surfaces that no guess is near to.

Where no depth is known, arrays hold NaN.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.images import (
    LINEAR,
    NEAREST,
    Array,
    Mask,
    add_scaled,
    at_least,
    chosen,
    overwrite,
    sample,
)
from engine.memory.kernels import LinkRecord, link_record, loaded
from engine.memory.sources import NAN, NOTHING, Pixels, Source, View

TOLERANCE_PX = 0.6
"""Greatest distance of a surface point's projection from the pixel's centre."""
MARCH_TOLERANCE_PX = 2 * TOLERANCE_PX
"""The same where a ray is marched."""
NEAR_Z = 1e-3
"""Points nearer to a camera's plane, or behind it, are projected as if they were there: far outside of the picture."""
MARCH_STEPS = 8
"""Points of a ray that are tried between the nearest and the farthest depth it may have."""
ENLARGED = np.float32(0.4)
"""Pixels of a keyframe per pixel of a view, below which what is mixed into those beside silhouettes is seen as a line."""


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
    depth d on G (u, v, 1) - d g of the view, both homogeneous. Where kernels were compiled they are asked; they are twins of
    what stands here.
    """

    def __init__(self, view: View, source: Source, pixels: Pixels) -> None:
        self._source, self.pixels = source, pixels
        turn = source.c2w[:3, :3].T @ view.c2w[:3, :3]
        shift = source.c2w[:3, :3].T @ (view.c2w[:3, 3] - source.c2w[:3, 3])
        (to_pixels, to_rays), (to_view_pixels, view_rays) = source.matrices, view.matrices
        back = to_view_pixels @ turn.T
        self._there, self._offset = to_pixels @ turn @ view_rays, to_pixels @ shift
        self._back, self._back_offset = back @ to_rays, back @ shift
        self._zoom = np.float32(source.intrinsics[0] / view.intrinsics[0])

    def at(self, pixels: Pixels) -> Link:
        """The same for other pixels of the view."""
        other = copy(self)
        other.pixels = pixels
        other.__dict__.pop("_far", None)
        return other

    @cached_property
    def record(self) -> LinkRecord:
        """What the kernels take; it lives no longer than the source."""
        matrices = self._there, self._offset, self._back, self._back_offset
        height, width = self._source.depth.shape
        return link_record(self._source.addresses, (width, height), matrices, float(self._zoom))

    @cached_property
    def _far(self) -> list[Array]:
        """Homogeneous coordinates in the keyframe of what is infinitely far, three of each pixel."""
        return [_plane(row, self.pixels) for row in self._there.astype(np.float32)]

    def solve(self, inverse_depth: Array) -> Array:
        """Return what the search converges to from a guess; guesses that leave the keyframe stay where they left it."""
        kernels = loaded()
        if kernels is not None:
            return kernels.solve(self.record, self.pixels.flat, inverse_depth)
        first = self.step(inverse_depth)
        second = self.step(first)
        step, change = first - inverse_depth, second - first
        bend = np.asarray(change - step, np.float32)
        overwrite(bend, np.abs(bend) < 1e-7, np.full_like(bend, np.inf))
        limit = np.asarray(first - step * change / bend, np.float32)
        sound = (limit >= 0) & (limit < 2 * np.maximum(first, inverse_depth) + np.float32(0.01))
        return chosen(limit, sound, second)

    def step(self, inverse_depth: Array) -> Array:
        """Return the next guess of the search; guesses that leave the keyframe stay."""
        u, v, _ = self._project(inverse_depth)
        found, _ = self._depth_at(u, v)
        found /= at_least(self._returned(2, u, v, found), NEAR_Z)
        overwrite(found, np.isnan(found), inverse_depth)
        return found

    def verified(self, guess: Array, tolerance_px: float, not_beside: bool = False) -> Array:
        """Inverse depth of the surface points behind guesses that project into their pixels; NOTHING elsewhere.

        Args:
            not_beside: Leave out what is seen beside a silhouette of the keyframe.
        """
        kernels = loaded()
        if kernels is not None:
            return kernels.verified(self.record, self.pixels.flat, guess, tolerance_px, not_beside)
        surface = self.surface(guess, search=True, colors=False)
        sound = (surface.error_px < tolerance_px) & (guess >= 0)
        if not_beside:
            sound &= ~surface.beside_silhouette
        return overwrite(np.full_like(guess, NOTHING), sound, surface.inverse_depth)

    def march(self, nearest: Array, farthest: Array) -> Array:
        """Inverse depth of the nearest surface between two bounds that the keyframe shows, NOTHING where it shows none."""
        kernels = loaded()
        if kernels is not None:
            return kernels.march(
                self.record, self.pixels.flat, nearest, farthest, MARCH_STEPS, MARCH_TOLERANCE_PX
            )
        first, last = self._crossings(nearest, farthest)
        found = self.verified(self._narrowed(*first), MARCH_TOLERANCE_PX)
        again = np.flatnonzero(first[0] != last[0])
        if len(again):
            # Few rays pass behind something twice.
            part = self.at(self.pixels.among(again))
            bounds = (part.pixels.take(bound) for bound in last)
            second = part.verified(part._narrowed(*bounds), MARCH_TOLERANCE_PX)
            part.pixels.put(found, np.maximum(part.pixels.take(found), second))
        return found

    def surface(self, inverse_depth: Array, search: bool = False, colors: bool = True) -> Surface:
        """Return the surface points behind guesses, after one step of the search where it is asked for."""
        guess = self.step(inverse_depth) if search else inverse_depth
        u, v, one_over = self._project(guess)
        found, beside = self._depth_at(u, v)
        one_over_z = np.reciprocal(at_least(self._returned(2, u, v, found), NEAR_Z))
        x = self._returned(0, u, v, found)
        x *= one_over_z
        x -= self.pixels.columns
        y = self._returned(1, u, v, found)
        y *= one_over_z
        y -= self.pixels.rows
        error = np.maximum(np.abs(x, out=x), np.abs(y, out=y), out=x)
        found *= one_over_z
        one_over *= self._zoom
        if not colors:
            return Surface(found, error, one_over, beside, self._source.color)
        # Between pixels on either side of a silhouette there is no colour: it is taken where the depth was.
        for position in (u, v):
            overwrite(position, beside, np.rint(position))
        color = sample(self._source.color, u, v, LINEAR, 0.0)
        self._clear(color, u, v, beside & (one_over < ENLARGED))
        return Surface(found, error, one_over, beside, color)

    def _clear(self, color: NDArray[np.uint8], u: Array, v: Array, where: Mask) -> None:
        """Take colours from the keyframe's clear ones where they are asked for, in place."""
        chosen = np.flatnonzero(where)
        if not len(chosen):
            return
        clear = self._source.clear_color
        rows, columns = (
            np.clip(position.reshape(-1)[chosen], 0, side - 1).astype(np.intp)
            for position, side in zip((v, u), clear.shape[:2], strict=True)
        )
        color.reshape(-1, 4)[chosen] = clear[rows, columns]

    def _crossings(self, near: Array, far: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """March along the rays from `near` over `far` to infinity.

        Returns:
            Inverse depths before and after which rays first pass behind what the keyframe saw, and those of the last time;
            NOTHING where they never do.
        """
        span = far - near
        before, gap_before = near, self._gap(near, NEAREST)
        first_front, first_back, last_front, last_back = (np.full_like(near, NOTHING) for _ in range(4))
        for n in range(1, MARCH_STEPS + 1):
            at_infinity = n == MARCH_STEPS
            inverse = np.zeros_like(near) if at_infinity else add_scaled(span, n / (MARCH_STEPS - 1), near)
            gap = self._gap(inverse, NEAREST)
            passes = (gap_before > 0) & (gap <= 0)
            fresh = passes & (first_front < 0)
            for to, where, value in (
                (first_front, fresh, before),
                (first_back, fresh, inverse),
                (last_front, passes, before),
                (last_back, passes, inverse),
            ):
                overwrite(to, where, value)
            before, gap_before = inverse, gap
        return (first_front, first_back), (last_front, last_back)

    def _narrowed(self, front: Array, back: Array) -> Array:
        """Two steps of regula falsi between points in front of a surface and points behind it; NOTHING where front is."""
        gap_front, gap_back = self._gap(front, LINEAR), self._gap(back, LINEAR)
        middle = _between(front, gap_front, back, gap_back)
        gap = self._gap(middle, LINEAR)
        in_front = gap > 0
        middle = _between(
            chosen(middle, in_front, front),
            chosen(gap, in_front, gap_front),
            chosen(back, in_front, middle),
            chosen(gap_back, in_front, gap),
        )
        middle[(front < 0) | np.isnan(middle)] = NOTHING
        return middle

    def _project(self, inverse_depth: Array) -> tuple[Array, Array, Array]:
        """Where points at an inverse depth along the rays fall in the keyframe, and their depth in the view over that in
        the keyframe."""
        far, offset = self._far, self._offset
        one_over = add_scaled(inverse_depth, offset[2], far[2])
        one_over = np.reciprocal(at_least(one_over, NEAR_Z))
        u = add_scaled(inverse_depth, offset[0], far[0])
        u *= one_over
        v = add_scaled(inverse_depth, offset[1], far[1])
        v *= one_over
        return u, v, one_over

    def _depth_at(self, u: Array, v: Array) -> tuple[Array, Mask]:
        """What the keyframe saw there, and where it could not be interpolated."""
        found = sample(self._source.smooth, u, v, LINEAR, NAN)
        beside = np.isnan(found)
        nearest = sample(self._source.depth, u, v, NEAREST, NAN)
        overwrite(found, beside, nearest)
        return found, beside

    def _returned(self, row: int, u: Array, v: Array, found: Array) -> Array:
        """One homogeneous coordinate in the view of what the keyframe saw."""
        a, b, c = self._back[row]
        plane = np.asarray(cv2.addWeighted(u, a, v, b, c), np.float32)
        return add_scaled(found, -self._back_offset[row], plane)

    def _gap(self, inverse_depth: Array, how: int) -> Array:
        """How far points lie in front of what the keyframe saw, in its inverse depth, 1/m; NaN outside."""
        u, v, one_over = self._project(inverse_depth)
        one_over *= inverse_depth
        one_over -= sample(self._source.depth, u, v, how, NAN)
        return one_over


def _plane(row: Array, pixels: Pixels) -> Array:
    return row[0] * pixels.columns + (row[1] * pixels.rows + row[2])


def _between(a: Array, gap_a: Array, b: Array, gap_b: Array) -> Array:
    share = np.clip(gap_b / np.minimum(gap_b - gap_a, np.float32(-1e-9)), np.float32(0.0), np.float32(1.0))
    return np.asarray(b + (a - b) * share, np.float32)
