"""Consistency of a video over time: drift against the truth, and frames of one place seen again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.image_metrics import Measure, psnr
from evaluation.poses.alignment import rotation_angles_deg
from evaluation.rollouts import Frames, Poses

NEAR_M, NEAR_DEG = 0.5, 20.0
"""Two poses are one place within both, as in SANA-WM's benchmark."""
LEAST_ABSENCE_S = 2.0
"""Between the frames of a pair; the camera must have been elsewhere meanwhile."""
STEP_S = 0.5
"""Between the frames that pairs are made of."""
MAX_PAIRS = 60


@dataclass(frozen=True)
class Revisits:
    """Mean likeness of the pairs of a video."""

    num_pairs: int
    scores: dict[str, dict[str, float]]
    """By video, then by measure; empty where no place was visited twice."""


def revisit_pairs(c2w: Poses, fps: float, max_pairs: int = MAX_PAIRS) -> NDArray[np.int64]:
    """Find pairs of frames, the camera gone in between, that see the same place again, [P, 2].

    A frame is paired with the closest of its returns, so that a pair differs by little more than what the model forgot; where
    there are too many pairs, they are spread evenly.

    Args:
        c2w: Camera-to-world, metres, [F, 4, 4].
    """
    step = max(1, round(STEP_S * fps))
    picks = np.arange(0, len(c2w), step)
    poses = c2w[picks]
    distance = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1)
    angle = rotation_angles_deg(poses[:, None], poses[None])
    near = (distance < NEAR_M) & (angle < NEAR_DEG)
    pairs = []
    for i in range(len(picks)):
        first_left = next((j for j in range(i + 1, len(picks)) if not near[i, j]), len(picks))
        earliest = max(first_left, i + round(LEAST_ABSENCE_S * fps / step))
        returns = earliest + np.flatnonzero(near[i, earliest:])
        if len(returns):
            apart = distance[i, returns] / NEAR_M + angle[i, returns] / NEAR_DEG
            pairs.append((picks[i], picks[returns[apart.argmin()]]))
    found = np.array(pairs, np.int64).reshape(-1, 2)
    if len(found) <= max_pairs:
        return found
    return found[np.linspace(0, len(found) - 1, max_pairs).round().astype(int)]


def score_revisits(
    videos: dict[str, Frames], c2w: Poses, fps: float, measures: Sequence[Measure]
) -> Revisits:
    """Compare the two frames of every pair within each video.

    The truth is among the videos, since poses that differ by up to 0.5 m and 20 degrees do not see quite the same.
    """
    pairs = revisit_pairs(c2w, fps)
    if not len(pairs):
        return Revisits(0, {})
    scores = {
        name: {m.name: float(np.mean([m.compare(video[i], video[j]) for i, j in pairs])) for m in measures}
        for name, video in videos.items()
    }
    return Revisits(len(pairs), scores)


WINDOW_S = 10.0
"""Of the first and of the last window, as in SANA-WM's benchmark; a video too short for two has halves."""
SETTLED_S = 1.0
"""The first window begins here: what comes before still lives on the given frame."""


@dataclass(frozen=True)
class Window:
    """Means over one stretch of a video."""

    psnr_db: float
    sharpness: float
    """Mean gradient magnitude over that of the truth: 1 as sharp, 0 a blank."""
    colour_offset: float
    """Distance of the mean colour from the truth's, grey levels."""


@dataclass(frozen=True)
class Drift:
    """The two ends of a video beside each other."""

    first: Window
    last: Window
    worst_second_db: float
    """Lowest mean PSNR of any second after the first: a collapse would show here."""

    @property
    def loss_db(self) -> float:
        """PSNR lost from the first window to the last; below zero where the end is the better."""
        return self.first.psnr_db - self.last.psnr_db


def measure_drift(truth: Frames, video: Frames, fps: float) -> Drift:
    """Compare a video's ends, both [F, H, W, 3].

    Raises:
        ValueError: The video is too short to have two ends.
    """
    start = round(SETTLED_S * fps)
    length = min(round(WINDOW_S * fps), (len(truth) - start) // 2)
    if length < round(fps):
        raise ValueError(f"drift takes a video of {SETTLED_S + 2:g} s or more; ask for more seconds")
    # Every second frame tells as much in half the time.
    scores = np.array([psnr(truth[n], video[n]) for n in range(start, len(truth), 2)])
    second = max(1, round(fps / 2))
    means = [scores[n : n + second].mean() for n in range(0, len(scores) - second + 1, second)]
    first = _window(truth[start : start + length : 2], video[start : start + length : 2])
    last = _window(truth[-length::2], video[-length::2])
    return Drift(first, last, float(min(means)))


def _window(truth: Frames, video: Frames) -> Window:
    likeness = np.mean([psnr(a, b) for a, b in zip(truth, video, strict=True)])
    offset = truth.reshape(len(truth), -1, 3).mean(1) - video.reshape(len(video), -1, 3).mean(1)
    return Window(
        psnr_db=float(likeness),
        sharpness=sharpness(video) / max(sharpness(truth), 1e-6),
        colour_offset=float(np.linalg.norm(offset, axis=1).mean()),
    )


def sharpness(video: Frames) -> float:
    """Mean magnitude of the brightness gradient."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in video]
    slopes = [np.hypot(cv2.Sobel(g, -1, 1, 0), cv2.Sobel(g, -1, 0, 1)).mean() for g in grey]
    return float(np.mean(slopes))
