"""Colour of what the rays hit, run by run along each row: the same rules as `holodeck.renderer` and `holodeck.sky`."""

from __future__ import annotations

import numpy as np
from numba import njit

BOX, CYLINDER, SPHERE, CONE = 0, 1, 2, 3
PLAIN, BANDS, STRIPES, CHECKER, WINDOWS, LIT_WINDOWS, TRIM = 0, 1, 2, 3, 4, 5, 6
GROUND, SKY = -1, -2
ZERO, ONE, TWO, HALF = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
TONES = np.float32(4.0)
TILT_X, TILT_Y, TILT_Z = np.float32(0.6), np.float32(-0.5), np.float32(-0.35)
TILT_SHARE = np.float32(0.12)
CAP_M = np.float32(1e-3)
SMALL = np.float32(1e-6)
CALM_PERIODS, CALM_LIT = np.float32(16.0), np.float32(0.7)
LIT_SHARE = 115
NEAR_LEVEL_M, MIDDLE_LEVEL_M = np.float32(9.0), np.float32(24.0)
HALO_START, HALO_WIDTH = np.float32(0.75), np.float32(0.25)
TURN = np.float32(2 * np.pi)
SUN, HORIZON, ZENITH, SUN_COLOR, HILLS = 0, 3, 6, 9, 12
FOG_M, AMBIENT, HALO, SUN_COSINE, STRIPES_COUNT, HILL_SINE = 15, 16, 17, 18, 19, 20
"""Positions in the packed sky: five triples, then single numbers; a hill sine of -2 means no hills."""
FOG_DOUBLINGS = np.float32(64.0)


@njit(cache=True, nogil=True, error_model="numpy")
def color_rows(
    kind, low, high, paint, pattern, params, sky, phases, ground, ground_place, origin, rays, depth, hit, out
):
    """Colour every sample.

    Args:
        kind, low, high, pattern, params: As in ShapeArrays; paint: its colors, [N, 4, 3].
        sky: [21] float32; phases: of the hills, [3] float32.
        ground: The painted ground, finest first, each [G, G, 3]; ground_place: low x, low z, side in metres, [3] float32.
        origin: Of the rays, [3] float32; rays, depth, hit: As `casting.cast` wrote them.
        out: Written: RGB in [0, 1], [3, H, 2, W / 2]: even columns, then odd columns of each row.
    """
    height, width = depth.shape
    color = np.empty((3, width), np.float32)
    clear = np.empty(width, np.float32)
    for row in range(height):
        x, y, z = rays[0, row], rays[1, row], rays[2, row]
        start = 0
        while start < width:
            n, end = hit[row, start], start + 1
            while end < width and hit[row, end] == n:
                end += 1
            run = slice(start, end)
            dx, dy, dz, t, rgb = x[run], y[run], z[run], depth[row, run], color[:, run]
            if n == SKY:
                _sky_run(sky, phases, dx, dy, dz, rgb)
            elif n == GROUND:
                _ground_run(ground, ground_place, origin, dx, dz, t, rgb)
            elif kind[n] == BOX:
                _box_run(low[n], high[n], paint[n], pattern[n], params[n], n, sky, origin, dx, dy, dz, t, rgb)
            else:
                _round_run(
                    kind[n],
                    low[n],
                    high[n],
                    paint[n],
                    pattern[n],
                    params[n],
                    n,
                    sky,
                    origin,
                    dx,
                    dy,
                    dz,
                    t,
                    rgb,
                )
            start = end
        _clear_row(x, y, z, depth[row], hit[row], sky[FOG_M], clear)
        for channel in range(3):
            horizon = sky[HORIZON + channel]
            _fog_row(color[channel], clear, horizon, out[channel, row, 0], out[channel, row, 1])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _clear_row(x, y, z, depth, hit, fog_m, clear):
    """Share of a surface's own colour that the fog leaves: exp(-(distance / fog_m) ** 1.5), 1 for the sky."""
    for i in range(len(clear)):
        far = depth[i] * np.sqrt(x[i] * x[i] + y[i] * y[i] + z[i] * z[i]) / fog_m
        part = min(far * np.sqrt(far) / FOG_DOUBLINGS, ONE)
        # exp(-p) by its series for a small p, then squared six times.
        value = ONE - part * (
            ONE
            - part
            * (
                np.float32(1 / 2)
                - part * (np.float32(1 / 6) - part * (np.float32(1 / 24) - part * np.float32(1 / 120)))
            )
        )
        value *= value
        value *= value
        value *= value
        value *= value
        value *= value
        value *= value
        clear[i] = ONE if hit[i] == SKY else value


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _fog_row(color, clear, horizon, even, odd):
    for i in range(len(even)):
        even[i] = horizon + clear[2 * i] * (color[2 * i] - horizon)
        odd[i] = horizon + clear[2 * i + 1] * (color[2 * i + 1] - horizon)


@njit(cache=True, nogil=True, error_model="numpy")
def _sky_run(sky, phases, x, y, z, color):
    halo, sun_cosine, stripes, hill = sky[HALO], sky[SUN_COSINE], sky[STRIPES_COUNT], sky[HILL_SINE]
    for i in range(len(x)):
        scale = ONE / np.sqrt(x[i] * x[i] + y[i] * y[i] + z[i] * z[i])
        dx, dy, dz = x[i] * scale, y[i] * scale, z[i] * scale
        if -dy < hill and -dy < _hill_profile(dx, dz, hill, phases):
            for channel in range(3):
                color[channel, i] = sky[HILLS + channel]
            continue
        cosine = dx * sky[SUN] + dy * sky[SUN + 1] + dz * sky[SUN + 2]
        if cosine > sun_cosine:
            for channel in range(3):
                color[channel, i] = sky[SUN_COLOR + channel]
            continue
        blend = np.sqrt(min(max(-dy, ZERO), ONE))
        if stripes > ZERO:
            blend = np.floor(blend * stripes) / stripes
        glow = min(max((cosine - HALO_START) / HALO_WIDTH, ZERO), ONE)
        glow = halo * glow * glow
        for channel in range(3):
            base = sky[HORIZON + channel] + blend * (sky[ZENITH + channel] - sky[HORIZON + channel])
            color[channel, i] = base + glow * (sky[SUN_COLOR + channel] - base)


@njit(cache=True, nogil=True, error_model="numpy")
def _hill_profile(x, z, hill, phases):
    """Sine of the hills' elevation in a direction; `hill` is the sine of the greatest."""
    turn = np.arctan2(x, z) / TURN
    total = ZERO
    for n in range(3):
        count = np.float32(5) if n == 0 else np.float32(8) if n == 1 else np.float32(13)
        share = np.float32(0.5) if n == 0 else np.float32(0.3) if n == 1 else np.float32(0.2)
        wave = turn * count + phases[n]
        total += share * abs(TWO * (wave - np.floor(wave)) - ONE)
    return hill * total


@njit(cache=True, nogil=True, error_model="numpy")
def _ground_run(ground, ground_place, origin, x, z, depth, color):
    """Sample the painted ground bilinearly at a level that fits the pixel's footprint."""
    for i in range(len(x)):
        t = depth[i]
        picture = ground[0] if t < NEAR_LEVEL_M else ground[1] if t < MIDDLE_LEVEL_M else ground[2]
        side = picture.shape[0]
        scale, last = np.float32(side) / ground_place[2], np.float32(side - 1)
        u = min(max((origin[0] + t * x[i] - ground_place[0]) * scale - HALF, ZERO), last)
        v = min(max((origin[2] + t * z[i] - ground_place[1]) * scale - HALF, ZERO), last)
        column, row = min(int(u), side - 2), min(int(v), side - 2)
        right, down = u - np.float32(column), v - np.float32(row)
        for channel in range(3):
            a, b = picture[row, column, channel], picture[row, column + 1, channel]
            c, d = picture[row + 1, column, channel], picture[row + 1, column + 1, channel]
            upper, lower = a + right * (b - a), c + right * (d - c)
            color[channel, i] = upper + down * (lower - upper)


@njit(cache=True, nogil=True, error_model="numpy")
def _light(ambient, cosine, tilt):
    return ambient + TILT_SHARE * tilt + (ONE - ambient) * min(max(cosine, ZERO), ONE)


@njit(cache=True, nogil=True, error_model="numpy")
def _box_run(low, high, paint, pattern, params, n, sky, origin, x, y, z, depth, color):
    ambient = sky[AMBIENT]
    middle_x, middle_y, middle_z = (
        (low[0] + high[0]) / TWO,
        (low[1] + high[1]) / TWO,
        (low[2] + high[2]) / TWO,
    )
    half_x, half_y, half_z = (high[0] - low[0]) / TWO, (high[1] - low[1]) / TWO, (high[2] - low[2]) / TWO
    for i in range(len(x)):
        t = depth[i]
        px, py, pz = origin[0] + t * x[i], origin[1] + t * y[i], origin[2] + t * z[i]
        rx, ry, rz = (px - middle_x) / half_x, (py - middle_y) / half_y, (pz - middle_z) / half_z
        ax, ay, az = abs(rx), abs(ry), abs(rz)
        across, up = px, False
        if ax >= ay and ax >= az:
            sign = ONE if rx > ZERO else -ONE
            brightness, across = _light(ambient, sign * sky[SUN], sign * TILT_X), pz
        elif ay > ax and ay >= az:
            sign = ONE if ry > ZERO else -ONE
            brightness, up = _light(ambient, sign * sky[SUN + 1], sign * TILT_Y), ry < ZERO
        else:
            sign = ONE if rz > ZERO else -ONE
            brightness = _light(ambient, sign * sky[SUN + 2], sign * TILT_Z)
        _paint(paint, pattern, params, n, across, -py, t, brightness, up, color, i)


@njit(cache=True, nogil=True, error_model="numpy")
def _round_run(kind, low, high, paint, pattern, params, n, sky, origin, x, y, z, depth, color):
    ambient = sky[AMBIENT]
    middle_x, middle_y, middle_z = (
        (low[0] + high[0]) / TWO,
        (low[1] + high[1]) / TWO,
        (low[2] + high[2]) / TWO,
    )
    radius, half_y = (high[0] - low[0]) / TWO, (high[1] - low[1]) / TWO
    turns = pattern in (STRIPES, CHECKER, WINDOWS, LIT_WINDOWS)
    for i in range(len(x)):
        t = depth[i]
        py = origin[1] + t * y[i]
        nx, ny, nz = origin[0] + t * x[i] - middle_x, py - middle_y, origin[2] + t * z[i] - middle_z
        across = np.arctan2(nx, nz) * radius if turns else ZERO
        up = False
        if kind == CYLINDER:
            up = ny < CAP_M - half_y
            if abs(ny) > half_y - CAP_M:
                nx, nz, ny = ZERO, ZERO, (ONE if ny > ZERO else -ONE)
            else:
                ny = ZERO
        elif kind == CONE:
            ny = -np.sqrt(nx * nx + nz * nz) * radius / (TWO * half_y)
        scale = ONE / max(np.sqrt(nx * nx + ny * ny + nz * nz), SMALL)
        nx, ny, nz = nx * scale, ny * scale, nz * scale
        cosine = np.ceil((nx * sky[SUN] + ny * sky[SUN + 1] + nz * sky[SUN + 2]) * TONES) / TONES
        tilt = np.floor((nx * TILT_X + ny * TILT_Y + nz * TILT_Z) * TONES + HALF) / TONES
        _paint(paint, pattern, params, n, across, -py, t, _light(ambient, cosine, tilt), up, color, i)


@njit(cache=True, nogil=True, error_model="numpy")
def _paint(paint, pattern, params, n, across, height, depth, brightness, up, color, i):
    """Write paint times light for sample i of shape n."""
    share, shines = ZERO, False
    if pattern != PLAIN:
        share, shines = _pattern_share(pattern, params, n, across, height, depth)
    brightness += params[3] * (ONE - brightness)
    if shines:
        brightness = ONE
    for channel in range(3):
        value = paint[0, channel] + share * (paint[1, channel] - paint[0, channel])
        if shines:
            value = paint[2, channel]
        if up:
            value = paint[3, channel]
        color[channel, i] = value * brightness


@njit(cache=True, nogil=True, error_model="numpy")
def _pattern_share(pattern, params, n, across, height, depth):
    """Share of the second colour, and whether the third shines."""
    period, period_v, duty = params[0], params[1], params[2]
    if pattern == TRIM:
        return (ONE if height < period_v * duty else ZERO), False
    u, v = across / period, height / period_v
    column, row = np.floor(u), np.floor(v)
    fu, fv = u - column, v - row
    if pattern == BANDS:
        inside, mean, finest = fv < duty, duty, period_v
    elif pattern == STRIPES:
        inside, mean, finest = fu < duty, duty, period
    elif pattern == CHECKER:
        inside, mean, finest = (np.int64(column) + np.int64(row)) & 1 == 0, HALF, min(period, period_v)
    else:
        inside = abs(fu - HALF) < duty / TWO and abs(fv - HALF) < duty / TWO
        mean, finest = duty * duty, min(period, period_v)
    calm = min(max(depth / (finest * CALM_PERIODS) - ONE, ZERO), ONE)
    share = ONE if inside else ZERO
    share += calm * (mean - share)
    if pattern != LIT_WINDOWS or not inside or calm >= CALM_LIT:
        return share, False
    scattered = (
        np.int64(column) * 73856093 ^ np.int64(row) * 19349663 ^ np.int64(n) * 83492791
    ) * 2654435761 >> 16 & 255
    return share, scattered < LIT_SHARE
