"""Rendering: rays are cast and what they hit is coloured by sunlight, patterns, painted ground and fog.

Samples are coloured shape by shape, so that paint and light are plain numbers and only positions are arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from holodeck.raycast import GROUND, SKY, SUPERSAMPLING, Rays, cast
from holodeck.shapes import Kind, Pattern, ShapeArrays
from holodeck.sky import Sky

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

LENS_BLUR_PX = 0.8
"""Standard deviation of the low-pass filter, which like any camera's keeps thin edges from crawling."""
TONES = 4
"""Steps of light on round shapes: flat steps keep the image bold."""
_TILT = np.array([0.6, -0.5, -0.35])
"""Faces turned from the sun still differ a little from each other, so that every edge stays visible."""


@dataclass(frozen=True)
class Surface:
    """Light and ground of a place."""

    sky: Sky
    ground: tuple[Array, ...]
    """The painted ground from above, finest first, each [G, G, 3] RGB in [0, 1]; each level a quarter of the one before."""
    ground_low: tuple[float, float]
    """World (x, z) of the ground image's first corner, metres."""
    ground_size_m: float


@dataclass
class Hits:
    """The samples that hit one shape, P of them: world position and depth."""

    x: Array
    y: Array
    z: Array
    depth: Array


def render(
    shapes: ShapeArrays,
    surface: Surface,
    c2w: NDArray[np.float64],
    intrinsics: Array,
    width: int,
    height: int,
) -> NDArray[np.uint8]:
    """Render the scene from one camera.

    Args:
        c2w: Camera-to-world, OpenCV axes, metres, [4, 4].
        intrinsics: fx, fy, cx, cy in pixels, [4].

    Returns:
        RGB, [height, width, 3].
    """
    rays, depth, hit = cast(shapes, c2w, intrinsics, width, height)
    color = _shade(shapes, surface, rays, depth, hit)
    soft = cv2.GaussianBlur(color, (0, 0), LENS_BLUR_PX * SUPERSAMPLING)
    small = cv2.resize(soft, (width, height), interpolation=cv2.INTER_AREA)
    return (np.clip(small, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _shade(shapes: ShapeArrays, surface: Surface, rays: Rays, depth: Array, hit: NDArray[np.int16]) -> Array:
    """Colour every sample: RGB in [0, 1], [H, W, 3]."""
    dx, dy, dz = rays.x.ravel(), rays.y.ravel(), rays.z.ravel()
    flat_hit, flat_depth = hit.ravel(), depth.ravel()
    out = np.empty((flat_hit.size, 3), np.float32)
    order = np.argsort(flat_hit, kind="stable")
    ids, starts = np.unique(flat_hit[order], return_index=True)
    for n, chosen in zip(ids.tolist(), np.split(order, starts[1:]), strict=True):
        x, y, z, t = dx[chosen], dy[chosen], dz[chosen], flat_depth[chosen]
        length = np.sqrt(x * x + y * y + z * z)
        if n == SKY:
            out[chosen] = surface.sky.shade((np.stack([x, y, z], 1) / length[:, None]).astype(np.float32))
            continue
        origin = rays.origin
        hits = Hits(origin[0] + t * x, origin[1] + t * y, origin[2] + t * z, t)
        color = _ground_color(surface, hits) if n == GROUND else _shape_color(shapes, surface.sky, n, hits)
        clear = np.exp(-((t * length / surface.sky.fog_m) ** 1.5))[:, None]
        horizon = np.array(surface.sky.horizon, np.float32)
        color -= horizon
        color *= clear
        color += horizon
        out[chosen] = color
    return out.reshape(*hit.shape, 3)


def _ground_color(surface: Surface, hits: Hits) -> Array:
    """Sample the painted ground at a level that fits the pixel's footprint."""
    color = np.empty((len(hits.x), 3), np.float32)
    level = np.digitize(hits.depth, (9.0, 24.0))
    for n, picture in enumerate(surface.ground):
        chosen = np.flatnonzero(level == n)
        if not chosen.size:
            continue
        scale = picture.shape[0] / surface.ground_size_m
        # cv2.remap takes at most 32767 columns, so the list of points is folded into rows.
        rows = -(-len(chosen) // 256)
        maps = np.zeros((2, rows * 256), np.float32)
        maps[0, : len(chosen)] = (hits.x[chosen] - surface.ground_low[0]) * scale - 0.5
        maps[1, : len(chosen)] = (hits.z[chosen] - surface.ground_low[1]) * scale - 0.5
        maps = np.clip(maps, 0.0, float(picture.shape[0] - 1)).reshape(2, rows, 256)
        sampled = cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR)
        color[chosen] = sampled.reshape(-1, 3)[: len(chosen)]
    return color


def _shape_color(shapes: ShapeArrays, sky: Sky, n: int, hits: Hits) -> Array:
    """Paint times light for the samples of shape n, [P, 3]."""
    is_box = shapes.kind[n] == Kind.BOX
    brightness, across, up = (_box_light if is_box else _round_light)(shapes, sky, n, hits)
    share, third = _pattern_share(shapes, n, across, hits)
    palette = shapes.colors[n]
    color = palette[0] + share[:, None] * (palette[1] - palette[0])
    glow = shapes.params[n, 3]
    brightness += glow * (1.0 - brightness)
    if third is not None:
        color[third] = palette[2]
        brightness[third] = 1.0
    color[up] = palette[3]
    color *= brightness[:, None]
    return color


def _light(sky: Sky, cosine: Array, tilt: Array) -> Array:
    """Brightness from the cosine to the sun and the edge-keeping tilt."""
    return np.asarray(sky.ambient + 0.12 * tilt + (1.0 - sky.ambient) * np.clip(cosine, 0.0, 1.0), np.float32)


def _box_light(shapes: ShapeArrays, sky: Sky, n: int, hits: Hits) -> tuple[Array, Array, Mask]:
    """Brightness [P], horizontal surface coordinate of the patterns [P] in metres, and which samples face up."""
    centre, half = (shapes.low[n] + shapes.high[n]) / 2, (shapes.high[n] - shapes.low[n]) / 2
    rx, ry, rz = (
        (hits.x - centre[0]) / half[0],
        (hits.y - centre[1]) / half[1],
        (hits.z - centre[2]) / half[2],
    )
    ax, ay, az = np.abs(rx), np.abs(ry), np.abs(rz)
    on_x = (ax >= ay) & (ax >= az)
    on_y = (ay > ax) & (ay >= az)
    sun = sky.sun_direction()
    brightness = np.empty_like(rx)
    for axis, mask, relative in ((0, on_x, rx), (1, on_y, ry), (2, ~(on_x | on_y), rz)):
        signs = np.array([-1.0, 1.0], np.float32)
        brightness[mask] = _light(sky, signs * sun[axis], signs * _TILT[axis])[
            (relative[mask] > 0).astype(int)
        ]
    across = np.where(on_x, hits.z, hits.x)
    return brightness, across, on_y & (ry < 0)


def _round_light(shapes: ShapeArrays, sky: Sky, n: int, hits: Hits) -> tuple[Array, Array, Mask]:
    """The same for a cylinder, cone or sphere; light comes in flat tones."""
    centre, half = (shapes.low[n] + shapes.high[n]) / 2, (shapes.high[n] - shapes.low[n]) / 2
    nx, ny, nz = hits.x - centre[0], hits.y - centre[1], hits.z - centre[2]
    across = np.arctan2(nx, nz) * half[0]
    kind = shapes.kind[n]
    up = np.zeros(nx.shape, bool)
    if kind == Kind.CYLINDER:
        up = ny < 1e-3 - half[1]
        capped = np.abs(ny) > half[1] - 1e-3
        nx, nz = np.where(capped, 0.0, nx), np.where(capped, 0.0, nz)
        ny = np.where(capped, np.sign(ny), 0.0)
    elif kind == Kind.CONE:
        ny = -np.hypot(nx, nz) * half[0] / (2 * half[1])
    scale = 1.0 / np.maximum(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-6)
    nx, ny, nz = nx * scale, ny * scale, nz * scale
    sun = sky.sun_direction()
    cosine = np.ceil((nx * sun[0] + ny * sun[1] + nz * sun[2]) * TONES) / TONES
    tilt = np.round((nx * _TILT[0] + ny * _TILT[1] + nz * _TILT[2]) * TONES) / TONES
    return _light(sky, cosine, tilt), across, up


def _pattern_share(shapes: ShapeArrays, n: int, across: Array, hits: Hits) -> tuple[Array, Mask | None]:
    """Share of the second colour in [0, 1], [P], and where the third shines.

    A pattern finer than a few pixels fades to its mean, so that far walls stay calm.
    """
    pattern = shapes.pattern[n]
    if pattern == Pattern.PLAIN:
        return np.zeros_like(across), None
    period, period_v, duty = (float(v) for v in shapes.params[n, :3])
    height = -hits.y
    if pattern == Pattern.TRIM:
        return (height < period_v * duty).astype(np.float32), None
    u, v = across / period, height / period_v
    fu, fv = u - np.floor(u), v - np.floor(v)
    window: Mask | None = None
    if pattern == Pattern.BANDS:
        share, mean, finest = fv < duty, duty, period_v
    elif pattern == Pattern.STRIPES:
        share, mean, finest = fu < duty, duty, period
    elif pattern == Pattern.CHECKER:
        share, mean, finest = (np.floor(u) + np.floor(v)) % 2 < 0.5, 0.5, min(period, period_v)
    else:
        window = (np.abs(fu - 0.5) < duty / 2) & (np.abs(fv - 0.5) < duty / 2)
        share, mean, finest = window, duty * duty, min(period, period_v)
    calm = np.clip(hits.depth / (finest * 16.0) - 1.0, 0.0, 1.0)
    blended = share.astype(np.float32)
    blended += calm * (mean - blended)
    if pattern != Pattern.LIT_WINDOWS or window is None:
        return blended, None
    column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    # Three large primes scatter neighbouring cells; whole numbers give every window the same light in every frame.
    scattered = (column * 73856093 ^ row * 19349663 ^ n * 83492791) * 2654435761 >> 16 & 255
    return blended, window & (scattered < 115) & (calm < 0.7)
