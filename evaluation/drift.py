"""Whether a film decays while it goes on: likeness to the truth, sharpness and colour at its beginning and at its end."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from evaluation.image_metrics import psnr
from evaluation.rollouts import Frames

WINDOW_S = 10.0
"""Of the first and of the last window, as in SANA-WM's benchmark; a film too short for two has halves."""
SETTLED_S = 1.0
"""The first window begins here: what comes before still lives on the given frame."""


@dataclass(frozen=True)
class Window:
    """Means over one stretch of a film."""

    psnr_db: float
    sharpness: float
    """Mean gradient magnitude over that of the truth: 1 as sharp, 0 a blank."""
    colour_offset: float
    """Distance of the mean colour from the truth's, grey levels."""


@dataclass(frozen=True)
class Drift:
    """The two ends of a film beside each other."""

    first: Window
    last: Window
    worst_second_db: float
    """Lowest mean PSNR of any second after the first: a collapse would show here."""

    @property
    def loss_db(self) -> float:
        """PSNR lost from the first window to the last; below zero where the end is the better."""
        return self.first.psnr_db - self.last.psnr_db


def measure_drift(truth: Frames, film: Frames, fps: float) -> Drift:
    """Compare a film's ends, both [F, H, W, 3].

    Raises:
        ValueError: The film is too short to have two ends.
    """
    start = round(SETTLED_S * fps)
    length = min(round(WINDOW_S * fps), (len(truth) - start) // 2)
    if length < round(fps):
        raise ValueError(f"drift takes a film of {SETTLED_S + 2:g} s or more; ask for more seconds")
    # Every second frame tells as much in half the time.
    scores = np.array([psnr(truth[n], film[n]) for n in range(start, len(truth), 2)])
    second = max(1, round(fps / 2))
    means = [scores[n : n + second].mean() for n in range(0, len(scores) - second + 1, second)]
    first = _window(truth[start : start + length : 2], film[start : start + length : 2])
    last = _window(truth[-length::2], film[-length::2])
    return Drift(first, last, float(min(means)))


def _window(truth: Frames, film: Frames) -> Window:
    likeness = np.mean([psnr(a, b) for a, b in zip(truth, film, strict=True)])
    offset = truth.reshape(len(truth), -1, 3).mean(1) - film.reshape(len(film), -1, 3).mean(1)
    return Window(
        psnr_db=float(likeness),
        sharpness=sharpness(film) / max(sharpness(truth), 1e-6),
        colour_offset=float(np.linalg.norm(offset, axis=1).mean()),
    )


def sharpness(film: Frames) -> float:
    """Mean magnitude of the brightness gradient."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in film]
    slopes = [np.hypot(cv2.Sobel(g, -1, 1, 0), cv2.Sobel(g, -1, 0, 1)).mean() for g in grey]
    return float(np.mean(slopes))
