"""Colour of what the rays hit: sunlight by face, patterns, painted ground, fog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from holodeck.shapes import Kind, Pattern, ShapeArrays
from holodeck.sky import Sky

if TYPE_CHECKING:
    from holodeck.renderer import Rays

Array = NDArray[np.float32]

TONES = 4
"""Steps of light on round shapes: flat steps keep the picture bold."""


@dataclass(frozen=True)
class Surface:
    """Light and ground of a place."""

    sky: Sky
    ground: tuple[Array, ...]
    """The painted ground from above, finest first, each [G, G, 3] RGB in [0, 1]; each level a quarter of the one before."""
    ground_low: tuple[float, float]
    """World (x, z) of the ground picture's first corner, metres."""
    ground_size_m: float


def shade(shapes: ShapeArrays, surface: Surface, rays: Rays, depth: Array, hit: NDArray[np.int16]) -> Array:
    """Colour every sample: RGB in [0, 1], [H, W, 3]."""
    flat_hit, flat_depth = hit.ravel(), depth.ravel()
    direction = np.stack([rays.x.ravel(), rays.y.ravel(), rays.z.ravel()], 1)
    length = np.sqrt(np.einsum("pc,pc->p", direction, direction))
    out = np.empty_like(direction)
    sky = np.flatnonzero(flat_hit == -2)
    out[sky] = surface.sky.shade(direction[sky] / length[sky, None])
    ground = np.flatnonzero(flat_hit == -1)
    if ground.size:
        point = rays.origin + flat_depth[ground, None] * direction[ground]
        out[ground] = _ground_color(surface, point, flat_depth[ground])
    solid = np.flatnonzero(flat_hit >= 0)
    if solid.size:
        point = rays.origin + flat_depth[solid, None] * direction[solid]
        out[solid] = _shape_color(shapes, surface.sky, flat_hit[solid], point, flat_depth[solid])
    seen = np.flatnonzero(flat_hit >= -1)
    clear = np.exp(-((flat_depth[seen] * length[seen] / surface.sky.fog_m) ** 1.5))[:, None]
    horizon = np.array(surface.sky.horizon, np.float32)
    out[seen] = horizon + clear * (out[seen] - horizon)
    return out.reshape(*hit.shape, 3)


def _ground_color(surface: Surface, point: Array, depth: Array) -> Array:
    """Sample the painted ground at a level that fits the pixel's footprint."""
    color = np.empty((len(point), 3), np.float32)
    level = np.digitize(depth, (9.0, 24.0))
    for n, picture in enumerate(surface.ground):
        chosen = np.flatnonzero(level == n)
        if not chosen.size:
            continue
        scale = picture.shape[0] / surface.ground_size_m
        u = (point[chosen, 0] - surface.ground_low[0]) * scale - 0.5
        v = (point[chosen, 2] - surface.ground_low[1]) * scale - 0.5
        # cv2.remap takes at most 32767 columns, so the list of points is folded into rows.
        rows = -(-len(chosen) // 256)
        maps = np.zeros((2, rows * 256), np.float32)
        maps[0, : len(chosen)], maps[1, : len(chosen)] = u, v
        limit = float(picture.shape[0] - 1)
        maps = np.clip(maps, 0.0, limit).reshape(2, rows, 256)
        sampled = cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR)
        color[chosen] = sampled.reshape(-1, 3)[: len(chosen)]
    return color


def _shape_color(shapes: ShapeArrays, sky: Sky, ids: NDArray[np.int16], point: Array, depth: Array) -> Array:
    normal, across = _normals(shapes, ids, point)
    sun = sky.sun_direction().astype(np.float32)
    light = normal @ sun
    is_round = shapes.kind[ids] != Kind.BOX
    light = np.where(is_round, np.ceil(light * TONES) / TONES, light)
    # Faces turned from the sun still differ a little from each other, so that every edge stays visible.
    away = 0.12 * (normal @ np.array([0.6, -0.5, -0.35], np.float32))
    brightness = sky.ambient + away + (1.0 - sky.ambient) * np.clip(light, 0.0, 1.0)
    up = normal[:, 1] < np.where(is_round, -0.999, -0.5)
    share, third = _pattern_share(shapes, ids, across, -point[:, 1], depth)
    palette = shapes.colors[ids]
    color = palette[:, 0] + share[:, None] * (palette[:, 1] - palette[:, 0])
    color = np.where(third[:, None], palette[:, 2], color)
    color = np.where(up[:, None], palette[:, 3], color)
    glow = np.maximum(shapes.params[ids, 3], third.astype(np.float32))
    return color * (brightness + glow * (1.0 - brightness))[:, None]


def _normals(shapes: ShapeArrays, ids: NDArray[np.int16], point: Array) -> tuple[Array, Array]:
    """Outward unit normals [P, 3], and the horizontal surface coordinate of the patterns [P], metres."""
    low, high = shapes.low[ids], shapes.high[ids]
    centre, half = (low + high) / 2, (high - low) / 2
    offset = point - centre
    relative = offset / half
    axis = np.abs(relative).argmax(1)
    rows = np.arange(len(ids))
    normal = np.zeros_like(offset)
    normal[rows, axis] = np.sign(relative[rows, axis])
    across = np.where(axis == 0, point[:, 2], point[:, 0])
    kind = shapes.kind[ids]
    curved = np.flatnonzero(kind != Kind.BOX)
    if curved.size:
        normal[curved] = _round_normals(kind[curved], offset[curved], half[curved])
        angle = np.arctan2(offset[curved, 0], offset[curved, 2])
        across[curved] = angle * half[curved, 0]
    return normal, across


def _round_normals(kind: NDArray[np.int8], offset: Array, half: Array) -> Array:
    normal = offset.copy()
    upright = kind != Kind.SPHERE
    normal[upright, 1] = 0.0
    lean = kind == Kind.CONE
    normal[lean, 1] = -np.hypot(offset[lean, 0], offset[lean, 2]) * half[lean, 0] / (2 * half[lean, 1])
    cap = (kind == Kind.CYLINDER) & (np.abs(np.abs(offset[:, 1]) - half[:, 1]) < 1e-3)
    normal[cap] = 0.0
    normal[cap, 1] = np.sign(offset[cap, 1])
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)


def _pattern_share(
    shapes: ShapeArrays, ids: NDArray[np.int16], across: Array, height: Array, depth: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Share of the second colour in [0, 1] and whether the third shines, both [P].

    A pattern finer than about three pixels fades to its mean, so that far walls stay calm.
    """
    pattern = shapes.pattern[ids]
    period, period_v, duty = shapes.params[ids, 0], shapes.params[ids, 1], shapes.params[ids, 2]
    u, v = across / period, height / period_v
    fu, fv = u - np.floor(u), v - np.floor(v)
    band = fv < duty
    stripe = fu < duty
    checker = (np.floor(u) + np.floor(v)) % 2 < 0.5
    margin = (1.0 - duty) / 2
    window = (np.abs(fu - 0.5) < 0.5 - margin) & (np.abs(fv - 0.5) < 0.5 - margin)
    trim = height < period_v * duty
    share = np.select(
        [pattern == p for p in (Pattern.BANDS, Pattern.STRIPES, Pattern.CHECKER, Pattern.TRIM)],
        [band, stripe, checker, trim],
        window & (pattern >= Pattern.WINDOWS),
    ).astype(np.float32)
    share[pattern == Pattern.PLAIN] = 0.0
    mean = np.where(pattern >= Pattern.WINDOWS, duty * duty, np.where(pattern == Pattern.CHECKER, 0.5, duty))
    finest = np.minimum(np.where(pattern == Pattern.BANDS, 1e3, period), np.where(pattern == Pattern.STRIPES, 1e3, period_v))
    fades = (pattern != Pattern.PLAIN) & (pattern != Pattern.TRIM)
    calm = np.where(fades, np.clip(depth / (finest * 16.0) - 1.0, 0.0, 1.0), 0.0)
    share += calm * (mean - share)
    cell = np.sin(np.floor(u) * 12.9898 + np.floor(v) * 78.233 + ids * 3.7) * 43758.547
    lit = (pattern == Pattern.LIT_WINDOWS) & window & (cell - np.floor(cell) < 0.45) & (calm < 0.7)
    return share, lit
