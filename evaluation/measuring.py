"""Everything that one rollout is measured by: likeness by horizon, revisits, drift, the camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from evaluation.baselines import first_frame_repeated, first_frame_reprojected, previous_frame_repeated
from evaluation.camera_following import BLUR_PX, CameraFollowing, follow_camera
from evaluation.drift import SETTLED_S, Drift, measure_drift
from evaluation.image_metrics import Measure
from evaluation.revisit import Revisits, score_revisits
from evaluation.rollouts import Frames, Progress, Rollout
from holodeck import Place

HORIZONS_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
SAMPLE_S = 1.0
"""Between the frames that the mean over a whole film is taken of."""
MODEL, REPROJECTED, PREVIOUS, REPEATED, CEILING = (
    "model",
    "first frame, reprojected",
    "previous frame repeated",
    "first frame repeated",
    "autoencoder",
)
"""The films held against the truth."""
TRUTH, BLURRED = "true frames", "true frames, blurred"
"""What the recovery of poses is checked on."""
PARTS = ("revisit", "drift", "camera")
"""Measures of whole films; all others compare two pictures."""

Scores = dict[str, dict[str, float]]
"""By film, then by measure."""


@dataclass(frozen=True)
class Horizon:
    """Likeness to the truth at one time after the start."""

    seconds: float
    scores: Scores


@dataclass(frozen=True)
class RolloutScores:
    """What one rollout came to."""

    world: str
    track: str
    seed: int
    seconds: float
    horizons: tuple[Horizon, ...]
    settled: Scores
    """Mean from 1 s to the end."""
    revisit: Revisits | None
    drift: dict[str, Drift] | None
    camera: dict[str, CameraFollowing] | None


def films_of(rollout: Rollout) -> dict[str, Frames]:
    """The model's film and those it is held beside, each [F, H, W, 3]."""
    truth = rollout.truth
    films = {
        MODEL: rollout.generated,
        REPROJECTED: first_frame_reprojected(truth[0], rollout.c2w, rollout.intrinsics),
        PREVIOUS: previous_frame_repeated(truth, rollout.frames_per_chunk),
        REPEATED: first_frame_repeated(truth),
    }
    if rollout.reconstructed is not None:
        films[CEILING] = rollout.reconstructed
    return films


def measure_rollout(
    rollout: Rollout,
    place: Place,
    track: str,
    seed: int,
    measures: Sequence[Measure],
    parts: Sequence[str] = PARTS,
    progress: Progress | None = None,
) -> RolloutScores:
    """Measure a rollout through a place.

    Args:
        parts: Which of PARTS to measure besides.
        progress: Told how many frames have been located.
    """
    films, fps, last = films_of(rollout), rollout.fps, rollout.num_frames - 1
    reached = {s: n for s in HORIZONS_S if (n := round(s * fps)) <= last}
    settled = range(round(SETTLED_S * fps), last + 1, max(1, round(SAMPLE_S * fps)))
    long_enough = last >= (SETTLED_S + 2) * fps
    steady = {name: films[name] for name in (MODEL, CEILING) if name in films}
    return RolloutScores(
        world=rollout.world,
        track=track,
        seed=seed,
        seconds=last / fps,
        horizons=tuple(
            Horizon(s, _likeness(films, rollout.truth, [n], measures)) for s, n in reached.items()
        ),
        settled=_likeness(films, rollout.truth, settled, measures),
        revisit=_revisits(rollout, measures) if "revisit" in parts else None,
        drift={name: measure_drift(rollout.truth, film, fps) for name, film in steady.items()}
        if "drift" in parts and long_enough
        else None,
        camera=_camera(rollout, place, progress) if "camera" in parts else None,
    )


def _likeness(
    films: dict[str, Frames], truth: Frames, picks: Sequence[int], measures: Sequence[Measure]
) -> Scores:
    """Mean of every measure over the picked frames of every film; empty where none is picked."""
    if not len(picks):
        return {}
    return {
        name: {m.name: float(np.mean([m.compare(truth[n], film[n]) for n in picks])) for m in measures}
        for name, film in films.items()
    }


def _revisits(rollout: Rollout, measures: Sequence[Measure]) -> Revisits:
    films = {MODEL: rollout.generated, TRUTH: rollout.truth}
    return score_revisits(films, rollout.c2w, rollout.fps, measures)


def _camera(rollout: Rollout, place: Place, progress: Progress | None) -> dict[str, CameraFollowing]:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), BLUR_PX) for frame in rollout.truth])
    films = {MODEL: rollout.generated, TRUTH: rollout.truth, BLURRED: blurred}
    return follow_camera(rollout, place, films, progress)
