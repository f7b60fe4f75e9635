"""Whether a place is still there when one comes back: pairs of frames of a film from almost the same pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.camera_following import rotation_angles_deg
from evaluation.image_metrics import Measure
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
    """Mean likeness of the pairs of a film."""

    num_pairs: int
    scores: dict[str, dict[str, float]]
    """By film, then by measure; empty where no place was visited twice."""


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


def score_revisits(films: dict[str, Frames], c2w: Poses, fps: float, measures: Sequence[Measure]) -> Revisits:
    """Compare the two frames of every pair within each film.

    The truth is among the films, since poses that differ by up to 0.5 m and 20 degrees do not see quite the same.
    """
    pairs = revisit_pairs(c2w, fps)
    if not len(pairs):
        return Revisits(0, {})
    scores = {
        name: {m.name: float(np.mean([m.compare(film[i], film[j]) for i, j in pairs])) for m in measures}
        for name, film in films.items()
    }
    return Revisits(len(pairs), scores)
