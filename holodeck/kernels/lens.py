"""Lens blur and reduction of samples to pixels in one separable filter."""

from __future__ import annotations

import numpy as np
from numba import njit

TAPS = 16
"""Length of the filter in samples; pixel X is the weighted sum of samples 2 X - 7 to 2 X + 8, mirrored at the borders."""
PAD = 4
ZERO, ONE, HALF, BYTE = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(255.0)


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
