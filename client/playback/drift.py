"""The drift meter: how far generated pictures have come from the first ones, by their statistics alone.

Four numbers are taken of the last frame of every chunk, sampled to about MAX_COLUMNS columns, from the channels and
from luma y = 0.299 R + 0.587 G + 0.114 B, in [0, 1]:

    brightness  mean of y
    contrast    standard deviation of y
    colour      mean over the pixels of max(R, G, B) - min(R, G, B)
    detail      mean of |dy/du| + |dy/dv| between neighbouring pixels

With r_i the mean of number i over the first REFERENCE_CHUNKS chunks, s_i its mean over the last RECENT_CHUNKS and e_i
a floor below which a difference is noise,

    drift = sqrt(1/4 sum_i ln((s_i + e_i) / (r_i + e_i))^2)

0 is as in the beginning, 0.7 means that all four have doubled or halved. A walk from a bright square into a dark
alley moves it too: it says how different the pictures are, not whose fault that is.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REFERENCE_CHUNKS = 8
RECENT_CHUNKS = 16
NAMES = ("brightness", "contrast", "colour", "detail")
FLOORS = np.array([0.02, 0.01, 0.02, 0.002])
MAX_COLUMNS = 80
"""So many tell blurred from sharp, and cost the client thread a millisecond or two a chunk at any size."""


@dataclass(frozen=True)
class Drift:
    """What the meter reads."""

    value: float
    most: str
    """Which of the four numbers has changed most."""
    factor: float
    """By how much, as a multiple of what it was."""


class DriftMeter:
    """Reads the drift of one walk."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Take the next chunks for the first: another world or walk begins."""
        self._reference: list[NDArray[np.float64]] = []
        self.forget_recent()

    def forget_recent(self) -> None:
        """Forget what was seen lately, but not how the walk began: it goes on elsewhere."""
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=RECENT_CHUNKS)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Measure the last frame of the next chunk, [H, W, 3]."""
        numbers = statistics(frame)
        if len(self._reference) < REFERENCE_CHUNKS:
            self._reference.append(numbers)
        self._recent.append(numbers)

    def read(self) -> Drift | None:
        """Return the drift by now; None until the first chunks are complete."""
        if len(self._reference) < REFERENCE_CHUNKS or not self._recent:
            return None
        first, last = np.mean(self._reference, axis=0), np.mean(self._recent, axis=0)
        logs = np.log((last + FLOORS) / (first + FLOORS))
        most = int(np.argmax(np.abs(logs)))
        return Drift(float(np.sqrt(np.mean(logs**2))), NAMES[most], math.exp(float(logs[most])))


def statistics(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the four numbers of a frame, [4], of [H, W, 3] RGB."""
    stride = max(1, frame.shape[1] // MAX_COLUMNS)
    pixels = frame[::stride, ::stride].astype(np.float32) / 255.0
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = pixels.max(-1) - pixels.min(-1)
    detail = np.abs(np.diff(luma, axis=1)).mean() + np.abs(np.diff(luma, axis=0)).mean()
    return np.array([luma.mean(), luma.std(), colour.mean(), detail], np.float64)
