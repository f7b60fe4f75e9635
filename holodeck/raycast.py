"""Ray caster: exact first hits of pinhole rays with boxes, cylinders, cones, spheres and the ground.

Every shape is intersected only inside the rectangle its bounding box projects to, and a depth buffer keeps the nearest hit. Depth
is measured along the optical axis. Pixel (column u, row v) covers [u, u + 1] x [v, v + 1] in the units of the intrinsics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holodeck.shapes import Kind, ShapeArrays

Array = NDArray[np.float32]

GROUND, SKY = -1, -2
"""Ids of hits that are no shape."""
SUPERSAMPLING = 2
"""Rays per pixel along each side."""
NEAR_M = 0.02
"""Hits closer than this are ignored."""
FAR_M = 1e6
_EDGES = [(i, i | 1 << a) for i in range(8) for a in range(3) if not i >> a & 1]


@dataclass
class Rays:
    """One ray per sample, in world axes; depth t along a ray is depth along the optical axis."""

    origin: Array
    """[3], metres."""
    x: Array
    """[H, W]: world direction per unit of depth, x part; likewise y, z."""
    y: Array
    z: Array

    @classmethod
    def of_camera(cls, c2w: NDArray[np.float64], intrinsics: Array, width: int, height: int) -> Rays:
        """Cast rays through the centres of SUPERSAMPLING^2 cells per pixel."""
        fx, fy, cx, cy = (float(v) for v in intrinsics)
        u = ((np.arange(width * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - cx) / fx
        v = ((np.arange(height * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - cy) / fy
        rotation = c2w[:3, :3]
        x, y, z = (
            (rotation[a, 0] * u[None] + (rotation[a, 1] * v + rotation[a, 2])[:, None]).astype(np.float32)
            for a in range(3)
        )
        for part in (x, y, z):
            part[np.abs(part) < 1e-7] = 1e-7
        return cls(c2w[:3, 3].astype(np.float32), x, y, z)


def cast(
    shapes: ShapeArrays, c2w: NDArray[np.float64], intrinsics: Array, width: int, height: int
) -> tuple[Rays, Array, NDArray[np.int16]]:
    """Cast all rays of a camera.

    Args:
        c2w: Camera-to-world, OpenCV axes, metres, [4, 4].
        intrinsics: fx, fy, cx, cy in pixels, [4].

    Returns:
        The rays, the depth of each first hit, and what was hit, one for each of SUPERSAMPLING^2 samples per pixel.
    """
    rays = Rays.of_camera(c2w, intrinsics, width, height)
    depth = np.full(rays.x.shape, FAR_M, np.float32)
    hit = np.full(rays.x.shape, SKY, np.int16)
    if rays.origin[1] < 0:
        _cast_ground(rays, depth, hit)
    inverse = (1.0 / rays.x, 1.0 / rays.y, 1.0 / rays.z)
    rectangles, order = sample_rectangles(shapes, c2w, intrinsics, width, height)
    for n in order:
        left, top, right, bottom = rectangles[n]
        window = (slice(top, bottom), slice(left, right))
        if shapes.kind[n] == Kind.BOX:
            _cast_box(shapes.low[n], shapes.high[n], n, rays.origin, inverse, depth, hit, window)
        else:
            _cast_round(shapes, n, rays, depth, hit, window)
    return rays, depth, hit


def nearest_depth(
    shapes: ShapeArrays, c2w: NDArray[np.float64], intrinsics: Array, width: int, height: int
) -> Array:
    """Measure the depth of the nearest surface in every pixel, along the optical axis, metres; FAR_M where there is sky.

    Arguments as for `cast`.

    Returns:
        [height, width].
    """
    _, depth, _ = cast(shapes, c2w, intrinsics, width, height)
    return depth.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).min((1, 3))


def _cast_ground(rays: Rays, depth: Array, hit: NDArray[np.int16]) -> None:
    t = -rays.origin[1] / rays.y
    down = t > NEAR_M
    np.copyto(depth, t, where=down)
    hit[down] = GROUND


def sample_rectangles(
    shapes: ShapeArrays, c2w: NDArray[np.float64], intrinsics: Array, width: int, height: int
) -> tuple[NDArray[np.int64], list[int]]:
    """Find the sample rectangle of every shape and the visible shapes from near to far.

    Returns:
        (left, top, right, bottom) per shape, [N, 4], and indices of those that can be seen.
    """
    rotation, origin = c2w[:3, :3], c2w[:3, 3]
    camera = (shapes.corners - origin.astype(np.float32)) @ rotation.astype(np.float32)
    starts, ends = camera[:, [e[0] for e in _EDGES]], camera[:, [e[1] for e in _EDGES]]
    span = ends[..., 2] - starts[..., 2]
    share = (NEAR_M - starts[..., 2]) / np.where(np.abs(span) < 1e-9, 1e-9, span)
    crossing = starts + share[..., None] * (ends - starts)
    crosses = (starts[..., 2] > NEAR_M) != (ends[..., 2] > NEAR_M)
    points = np.concatenate([camera, crossing], 1)
    valid = np.concatenate([camera[..., 2] > NEAR_M, crosses], 1)
    depth = np.maximum(points[..., 2], NEAR_M)
    fx, fy, cx, cy = (float(v) for v in intrinsics)
    u = (points[..., 0] / depth * fx + cx) * SUPERSAMPLING
    v = (points[..., 1] / depth * fy + cy) * SUPERSAMPLING
    limits = np.array([width, height, width, height]) * SUPERSAMPLING
    bounds = np.stack(
        [
            np.where(valid, u, np.inf).min(1) - 1,
            np.where(valid, v, np.inf).min(1) - 1,
            np.where(valid, u, -np.inf).max(1) + 2,
            np.where(valid, v, -np.inf).max(1) + 2,
        ],
        1,
    )
    bounds = np.clip(bounds, 0, limits).astype(np.int64)
    seen = (bounds[:, 0] < bounds[:, 2]) & (bounds[:, 1] < bounds[:, 3]) & valid.any(1)
    nearest = np.where(valid, depth, np.inf).min(1)
    visible = np.flatnonzero(seen)
    return bounds, visible[np.argsort(nearest[visible])].tolist()


def _cast_box(low, high, n, origin, inverse, depth, hit, window) -> None:
    """Slab test of one axis-aligned box inside its rectangle."""
    near = np.full_like(depth[window], NEAR_M)
    far = np.full_like(near, FAR_M)
    for axis in range(3):
        slope = inverse[axis][window]
        first, second = (low[axis] - origin[axis]) * slope, (high[axis] - origin[axis]) * slope
        np.maximum(near, np.minimum(first, second), out=near)
        np.minimum(far, np.maximum(first, second), out=far)
    better = (near < far) & (near > NEAR_M) & (near < depth[window])
    np.copyto(depth[window], near, where=better)
    np.copyto(hit[window], np.int16(n), where=better)


def _cast_round(
    shapes: ShapeArrays, n: int, rays: Rays, depth: Array, hit: NDArray[np.int16], window
) -> None:
    """Quadric test of one cylinder, cone or sphere inside its rectangle."""
    dx, dy, dz = rays.x[window], rays.y[window], rays.z[window]
    low, high = shapes.low[n], shapes.high[n]
    radius = (high[0] - low[0]) / 2
    ox, oz = rays.origin[0] - (low[0] + high[0]) / 2, rays.origin[2] - (low[2] + high[2]) / 2
    kind = shapes.kind[n]
    if kind == Kind.SPHERE:
        oy = rays.origin[1] - (low[1] + high[1]) / 2
        a, b, c = (
            dx * dx + dy * dy + dz * dz,
            ox * dx + oy * dy + oz * dz,
            ox * ox + oy * oy + oz * oz - radius**2,
        )
    elif kind == Kind.CYLINDER:
        a, b, c = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - radius**2
    else:
        slope = radius / (high[1] - low[1])
        oy = rays.origin[1] - low[1]
        a = dx * dx + dz * dz - slope**2 * dy * dy
        b = ox * dx + oz * dz - slope**2 * oy * dy
        c = ox * ox + oz * oz - slope**2 * oy * oy
    root = b * b - a * c
    real = root > 0
    root = np.sqrt(np.maximum(root, 0))
    a = np.where(np.abs(a) < 1e-9, 1e-9, a)
    roots = ((-b - root) / a, (-b + root) / a) if kind == Kind.CONE else ((-b - root) / a,)
    for t in roots:
        y = rays.origin[1] + t * dy
        _keep(t, real & (y >= low[1]) & (y <= high[1]), n, depth, hit, window)
    if kind != Kind.SPHERE:
        for level in (low[1], high[1]) if kind == Kind.CYLINDER else (high[1],):
            t = (level - rays.origin[1]) / dy
            inside = (ox + t * dx) ** 2 + (oz + t * dz) ** 2 <= radius**2
            _keep(t, inside, n, depth, hit, window)


def _keep(t: Array, valid: NDArray[np.bool_], n: int, depth: Array, hit: NDArray[np.int16], window) -> None:
    better = valid & (t > NEAR_M) & (t < depth[window])
    np.copyto(depth[window], t, where=better)
    np.copyto(hit[window], np.int16(n), where=better)
