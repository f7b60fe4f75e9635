"""Compiled renderer: colour and depth of a place in one pass, much faster than `holodeck.renderer`, which stays the definition.

It needs Numba, from the extra `train`. One call uses one thread and holds no lock; callers run threads or processes.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import cv2
import numpy as np
from numpy.typing import NDArray

from holodeck.place import Place
from holodeck.raycast import SUPERSAMPLING, sample_rectangles
from holodeck.renderer import LENS_BLUR_PX
from holodeck.sky import Sky

LEAST_SIDE_PX = 8
"""Smaller pictures are narrower than the lens filter."""


def render_rgbd(
    place: Place,
    c2w: NDArray[np.float64],
    intrinsics: NDArray[np.float32],
    width: int,
    height: int,
    centred_depth: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Render colour and depth of a place.

    Args:
        c2w: Camera-to-world, OpenCV axes, metres, [4, 4].
        intrinsics: fx, fy, cx, cy in pixels, pixel u spans [u, u + 1], [4].
        centred_depth: Give the depth of the nearest surface at the pixel's centre instead of at the nearest of its samples.

    Returns:
        RGB, [height, width, 3], as `Place.render`, and depth along the optical axis in metres, [height, width], as
        `Place.depth`: raycast.FAR_M where there is sky.

    Raises:
        ValueError: The picture is too small, or Numba is missing.
    """
    if min(width, height) < LEAST_SIDE_PX:
        raise ValueError(f"{width}x{height} is too small; render at least {LEAST_SIDE_PX}x{LEAST_SIDE_PX}")
    kernels = _kernels()
    shapes = place.arrays
    c2w, lens = np.ascontiguousarray(c2w, np.float64), np.asarray(intrinsics, np.float64)
    rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
    rectangles, order = sample_rectangles(shapes, c2w, intrinsics, width, height)
    rays = np.empty((3, rows, columns), np.float32)
    depth, hit = np.empty((rows, columns), np.float32), np.empty((rows, columns), np.int32)
    kernels.cast(
        shapes.kind,
        shapes.low,
        shapes.high,
        rectangles,
        np.array(order, np.int64),
        c2w,
        lens,
        SUPERSAMPLING,
        rays,
        depth,
        hit,
    )
    color = _color_samples(place, c2w[:3, 3], rays, depth, hit)
    picture, pixels = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.float32)
    kernels.reduce(color, _lens_weights(), picture)
    kernels.pixel_depth(depth, hit, centred_depth, pixels)
    return picture, pixels


def _color_samples(
    place: Place,
    origin: NDArray[np.float64],
    rays: NDArray[np.float32],
    depth: NDArray[np.float32],
    hit: NDArray[np.int32],
) -> NDArray[np.float32]:
    """Colour every sample, [3, rows, SUPERSAMPLING, width]: the columns of each row by their place in a pixel."""
    shapes, surface = place.arrays, place.surface
    rows, columns = depth.shape
    color = np.empty((3, rows, SUPERSAMPLING, columns // SUPERSAMPLING), np.float32)
    _kernels().color_rows(
        shapes.kind,
        shapes.low,
        shapes.high,
        shapes.colors,
        shapes.pattern,
        shapes.params,
        _sky_values(surface.sky),
        surface.sky.hill_phases().astype(np.float32),
        surface.ground,
        np.array([*surface.ground_low, surface.ground_size_m], np.float32),
        origin.astype(np.float32),
        rays,
        depth,
        hit,
        color,
    )
    return color


def _sky_values(sky: Sky) -> NDArray[np.float32]:
    """Pack what the kernel needs of a sky; the order is that of `holodeck.kernels.coloring`'s SKY_ constants."""
    values = np.concatenate(
        [
            sky.sun_direction(),
            sky.horizon,
            sky.zenith,
            sky.sun_color,
            sky.hills if sky.hills is not None else sky.horizon,
            [
                sky.fog_m,
                sky.ambient,
                sky.halo,
                np.cos(np.radians(sky.sun_radius_deg)),
                sky.stripes,
                np.sin(np.radians(sky.hill_height_deg)) if sky.hills is not None else -2.0,
            ],
        ]
    )
    return values.astype(np.float32)


@cache
def _lens_weights() -> NDArray[np.float32]:
    """Gaussian of the lens over samples, then the mean of the two samples of a pixel, in one filter, [16]."""
    gaussian = cv2.getGaussianKernel(15, LENS_BLUR_PX * SUPERSAMPLING)[:, 0]
    return np.convolve(gaussian, [0.5, 0.5]).astype(np.float32)


@cache
def _kernels() -> SimpleNamespace:
    """Import the kernels on first use, so that this module can be imported without Numba."""
    try:
        from holodeck.kernels import casting, coloring
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise ValueError(
            "the compiled renderer needs Numba, which is not installed; in a clone run pip install -e '.[train]'"
        ) from error
    return SimpleNamespace(
        cast=casting.cast,
        pixel_depth=casting.pixel_depth,
        color_rows=coloring.color_rows,
        reduce=casting.reduce,
    )
