"""Rays to pixels, row by row: first hits by the same arithmetic as `holodeck.raycast`, then lens blur and reduction."""

from __future__ import annotations

import numpy as np
from numba import njit

BOX, CYLINDER, SPHERE = 0, 1, 2
GROUND, SKY = -1, -2
NEAR_M, FAR_M = np.float32(0.02), np.float32(1e6)
TINY = np.float32(1e-7)
LEAST_SQUARE = np.float32(1e-9)
TAPS = 16
"""Length of the filter in samples; pixel X is the weighted sum of samples 2 X - 7 to 2 X + 8, mirrored at the borders."""
PAD = 4
ZERO, ONE, HALF, BYTE = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(255.0)


@njit(cache=True, nogil=True, error_model="numpy")
def cast(kind, low, high, rectangles, order, c2w, intrinsics, supersampling, rays, depth, hit):
    """Cast all rays of a camera.

    Args:
        kind: [N] int8; low, high: [N, 3] float32, metres.
        rectangles: (left, top, right, bottom) in samples, [N, 4]; order: visible shapes, near to far.
        c2w: [4, 4] float64; intrinsics: [4] float64.
        rays, depth, hit: Written: [3, H, W] float32 world directions per unit of depth, [H, W] float32 metres, [H, W] int32.
    """
    height, width = depth.shape
    origin = c2w[:3, 3].astype(np.float32)
    inverse = np.empty((3, width), np.float32)
    for row in range(height):
        v = ((row + 0.5) / supersampling - intrinsics[3]) / intrinsics[1]
        for axis in range(3):
            offset = c2w[axis, 1] * v + c2w[axis, 2]
            _ray_row(c2w[axis, 0], offset, intrinsics, supersampling, rays[axis, row], inverse[axis])
        _ground_row(origin[1], rays[1, row], depth[row], hit[row])
        for n in order:
            if row < rectangles[n, 1] or row >= rectangles[n, 3]:
                continue
            left, right = rectangles[n, 0], rectangles[n, 2]
            if kind[n] == BOX:
                _box_row(
                    low[n],
                    high[n],
                    origin,
                    inverse[0, left:right],
                    inverse[1, left:right],
                    inverse[2, left:right],
                    depth[row, left:right],
                    hit[row, left:right],
                    n,
                )
            else:
                _round_row(
                    kind[n],
                    low[n],
                    high[n],
                    origin,
                    rays[:, row, left:right],
                    depth[row, left:right],
                    hit[row, left:right],
                    n,
                )


@njit(cache=True, nogil=True, error_model="numpy")
def pixel_depth(depth, hit, centred, out):
    """Reduce 2 x 2 samples to a pixel.

    Args:
        depth, hit: [2 H, 2 W].
        centred: Whether to give the depth at the pixel's centre (the harmonic mean over the samples of the nearest surface,
            exact for planes) instead of the nearest sample's.
        out: Written, [H, W] float32.
    """
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            nearest, surface = FAR_M, np.int32(SKY)
            for n in range(4):
                t = depth[2 * row + n // 2, 2 * column + n % 2]
                if t < nearest:
                    nearest, surface = t, hit[2 * row + n // 2, 2 * column + n % 2]
            if centred and nearest < FAR_M:
                total, count = ZERO, ZERO
                for n in range(4):
                    if hit[2 * row + n // 2, 2 * column + n % 2] == surface:
                        total += ONE / depth[2 * row + n // 2, 2 * column + n % 2]
                        count += ONE
                nearest = count / total
            out[row, column] = nearest


@njit(cache=True, nogil=True, error_model="numpy")
def _ray_row(slope, offset, intrinsics, supersampling, out, inverse):
    for i in range(len(out)):
        u = ((i + 0.5) / supersampling - intrinsics[2]) / intrinsics[0]
        value = np.float32(slope * u + offset)
        value = TINY if abs(value) < TINY else value
        out[i] = value
        inverse[i] = ONE / value


@njit(cache=True, nogil=True, error_model="numpy")
def _ground_row(level, down, depth, hit):
    for i in range(len(depth)):
        t = -level / down[i]
        seen = (level < ZERO) & (t > NEAR_M)
        depth[i] = t if seen else FAR_M
        hit[i] = GROUND if seen else SKY


@njit(cache=True, nogil=True, error_model="numpy")
def _box_row(low, high, origin, inverse_x, inverse_y, inverse_z, depth, hit, n):
    """Slab test of one axis-aligned box along one row."""
    x0, x1 = low[0] - origin[0], high[0] - origin[0]
    y0, y1 = low[1] - origin[1], high[1] - origin[1]
    z0, z1 = low[2] - origin[2], high[2] - origin[2]
    shape = np.int32(n)
    for i in range(len(depth)):
        xa, xb = x0 * inverse_x[i], x1 * inverse_x[i]
        ya, yb = y0 * inverse_y[i], y1 * inverse_y[i]
        za, zb = z0 * inverse_z[i], z1 * inverse_z[i]
        near = max(min(xa, xb), max(min(ya, yb), min(za, zb)))
        far = min(max(xa, xb), min(max(ya, yb), max(za, zb)))
        better = (near < far) & (near > NEAR_M) & (near < depth[i])
        depth[i] = near if better else depth[i]
        hit[i] = shape if better else hit[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _round_row(kind, low, high, origin, rays, depth, hit, n):
    """Quadric test of one cylinder, cone or sphere along one row."""
    radius = (high[0] - low[0]) / np.float32(2)
    ox = origin[0] - (low[0] + high[0]) / np.float32(2)
    oz = origin[2] - (low[2] + high[2]) / np.float32(2)
    # A quadric is a dx^2 + b dx ... with the vertical terms weighted: 1 for a sphere, 0 for a cylinder, -slope^2 for a cone.
    weight, oy, size = ZERO, ZERO, radius * radius
    if kind == SPHERE:
        weight, oy = ONE, origin[1] - (low[1] + high[1]) / np.float32(2)
    elif kind != CYLINDER:
        slope = radius / (high[1] - low[1])
        weight, oy, size = -slope * slope, origin[1] - low[1], ZERO
    square = ox * ox + oz * oz + weight * oy * oy - size
    is_cone, shape, level = (kind != SPHERE) & (kind != CYLINDER), np.int32(n), origin[1]
    for i in range(len(depth)):
        dx, dy, dz = rays[0, i], rays[1, i], rays[2, i]
        a = dx * dx + dz * dz + weight * dy * dy
        b = ox * dx + oz * dz + weight * oy * dy
        under = b * b - a * square
        root = np.sqrt(max(under, ZERO))
        a = LEAST_SQUARE if abs(a) < LEAST_SQUARE else a
        best = depth[i]
        t = (-b - root) / a
        y = level + t * dy
        good = (under > ZERO) & (y >= low[1]) & (y <= high[1]) & (t > NEAR_M) & (t < best)
        best = t if good else best
        t = (-b + root) / a
        y = level + t * dy
        good = is_cone & (under > ZERO) & (y >= low[1]) & (y <= high[1]) & (t > NEAR_M) & (t < best)
        best = t if good else best
        if kind != SPHERE:
            best = _cap(high[1], level, ox, oz, dx, dy, dz, radius, best)
            if not is_cone:
                best = _cap(low[1], level, ox, oz, dx, dy, dz, radius, best)
        hit[i] = shape if best < depth[i] else hit[i]
        depth[i] = best


@njit(cache=True, nogil=True, error_model="numpy")
def _cap(cap, level, ox, oz, dx, dy, dz, radius, best):
    """The nearer of `best` and the hit with a horizontal disc."""
    t = (cap - level) / dy
    x, z = ox + t * dx, oz + t * dz
    good = (x * x + z * z <= radius * radius) & (t > NEAR_M) & (t < best)
    return t if good else best


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def reduce(color, weights, out):
    """Filter samples to pixels.

    Args:
        color: RGB in [0, 1], [3, 2 H, 2, W]: even columns, then odd columns of each row of samples.
        weights: [TAPS] float32, symmetric.
        out: Written, [H, W, 3] uint8.
    """
    height, width, _ = out.shape
    samples = 2 * height
    line = np.empty(2 * width, np.float32)
    even, odd = np.empty(width + 2 * PAD, np.float32), np.empty(width + 2 * PAD, np.float32)
    total = np.empty(width, np.float32)
    for row in range(height):
        for channel in range(3):
            line[:] = ZERO
            for tap in range(TAPS // 2):
                first, last = 2 * row - 7 + tap, 2 * row + 8 - tap
                first = -first if first < 0 else first
                last = 2 * samples - 2 - last if last >= samples else last
                _add_pair(weights[tap], color[channel, first].ravel(), color[channel, last].ravel(), line)
            _pad(line, even, odd)
            _across(even, odd, weights, total)
            for i in range(width):
                out[row, i, channel] = np.uint8(min(max(total[i], ZERO), ONE) * BYTE + HALF)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _add_pair(weight, first, second, line):
    for i in range(len(line)):
        line[i] += weight * (first[i] + second[i])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _pad(line, even, odd):
    """Copy the even and the odd columns and mirror them about the first and the last sample."""
    width = len(line) // 2
    even[PAD : PAD + width] = line[:width]
    odd[PAD : PAD + width] = line[width:]
    for k in range(1, PAD + 1):
        even[PAD - k] = line[k]
        odd[PAD - k] = line[width + k - 1]
    for k in range(PAD):
        even[PAD + width + k] = line[width - 1 - k]
        odd[PAD + width + k] = line[2 * width - 2 - k]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _across(even, odd, weights, total):
    for i in range(len(total)):
        value = ZERO
        for j in range(TAPS // 2):
            value += weights[2 * j] * odd[i + j] + weights[2 * j + 1] * even[i + 1 + j]
        total[i] = value
