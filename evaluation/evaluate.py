"""An evaluation: rollouts measured by likeness over time, revisits, drift and the camera; its files are whole at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from engine.files.atomic import replacing
from engine.files.bundle import Bundle
from engine.files.world import World
from engine.session.opening import RefinerMode, open_session
from engine.session.protocol import Session
from evaluation.baselines import BLURRED, CEILING, MODEL, TRUTH, videos_of
from evaluation.camera_following import BLUR_PX, SPACING_S, CameraFollowing, follow_camera
from evaluation.consistency import SETTLED_S, Revisits, measure_drift, score_revisits
from evaluation.image_metrics import OPENERS, Measure, open_measures
from evaluation.rollouts import (
    HELD_OUT_SEED,
    Frames,
    Progress,
    Reconstruct,
    Rollout,
    TrackMaker,
    began_with_one_picture,
    num_chunks,
    place_of,
    roll_out,
)
from evaluation.scores import EvaluationReport, Horizon, RolloutScores, Scores, as_markdown, contact_sheet
from evaluation.worlds import depth_error, fitting_worlds, reconstruct
from holodeck import Place
from holodeck.walks import walk
from model.vae.guided import GuidedAutoencoder

PARTS = ("revisit", "drift", "camera")
"""Measures of whole videos; all others compare two pictures."""

METRICS = (*OPENERS, *PARTS)
PICTURE_METRICS = ("psnr", "gmsd")
"""Measured at the end of a training: they need no library and no time to speak of."""
SHEET_WALKS = 2
"""Rollouts of a world that its contact sheet shows."""


def track_maker(kind: str) -> TrackMaker:
    """Return what lays tracks of a kind: `walks`, `simple` or `hard`; the last two need SciPy."""
    if kind == "walks":
        return walk
    from evaluation.benchmark_tracks import hard_track, simple_track

    return {"simple": simple_track, "hard": hard_track}[kind]


@dataclass(frozen=True)
class EvaluationPlan:
    """What to measure, and how much of it."""

    tracks: str
    """Name of the kind of tracks."""
    lay_track: TrackMaker
    worlds: tuple[tuple[World, Place], ...]
    """Each with the place that is its truth."""
    walks: int = 1
    """Tracks per world."""
    seconds: float = 60.0
    metrics: tuple[str, ...] = METRICS
    first_seed: int = HELD_OUT_SEED
    places: str = "learned"

    def __post_init__(self) -> None:
        unknown = set(self.metrics) - set(METRICS)
        if unknown:
            raise ValueError(
                f"there is no metric {', '.join(sorted(unknown))}; choose from {', '.join(METRICS)}"
            )
        if not 0 < self.seconds <= 3600:
            raise ValueError(f"a rollout lasts up to 3600 seconds, got {self.seconds:g}")
        if not self.worlds:
            raise ValueError("there is no world to measure; name one with --world")

    @property
    def num_rollouts(self) -> int:
        return self.walks * len(self.worlds)

    def num_steps(self, fps: float, frames_per_chunk: int) -> int:
        """Steps that the progress of the whole is counted in: chunks made and frames located."""
        chunks = num_chunks(self.seconds, fps, frames_per_chunk)
        located = int(chunks * frames_per_chunk / round(SPACING_S * fps)) if "camera" in self.metrics else 0
        return self.num_rollouts * (chunks + located)


def evaluate(
    bundle: Bundle,
    plan: EvaluationPlan,
    folder: Path,
    reconstruct: Reconstruct | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    refiner: RefinerMode = "off",
    open_world: Callable[[World], Session] | None = None,
) -> EvaluationReport:
    """Measure a bundle.

    After every rollout `folder` holds the tables so far (`scores.md`, `scores.json`) and a contact sheet per world, truth above
    and generated below; each file is whole at any moment.

    Args:
        reconstruct: Encodes and decodes a video, for the autoencoder's ceiling.
        progress: Told how many of `num_steps` steps are done.
        notice: Told, once each, what cannot be measured here and why.
        refiner: Whether its refiner, where it has one, refines every chunk.
        open_world: Opens the sessions that are measured, where those are not the bundle's own.
    """
    open_world = open_world or partial(open_session, bundle=bundle, refiner=refiner)
    measures, missing = open_measures([name for name in plan.metrics if name in OPENERS])
    parts = [name for name in plan.metrics if name in PARTS]
    for reason in missing:
        (notice or (lambda _: None))(reason)
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[RolloutScores] = []
    depth_errors: dict[str, float] = {}
    counter = _Counter(progress)
    report = None
    for world, place in plan.worlds:
        if began_with_one_picture(world):
            depth_errors[world.name] = depth_error(world, place)
        session = open_world(world)
        try:
            shown: list[Frames] = []
            for seed in range(plan.first_seed, plan.first_seed + plan.walks):
                rollout = _roll_out(session, place, plan, seed, reconstruct, counter)
                scores.append(
                    measure_rollout(rollout, place, plan.tracks, seed, measures, parts, counter.within)
                )
                counter.settle()
                names = [measure.name for measure in measures]
                report = _report(bundle, plan, names, missing, scores, depth_errors)
                shown += [rollout.truth, videos_of(rollout)[MODEL]] if len(shown) < 2 * SHEET_WALKS else []
                _write(report, folder)
                contact_sheet(shown, rollout.fps, folder / f"{world.name}.png")
        finally:
            session.close()
    assert report is not None, "a plan has at least one rollout"
    return report


def evaluate_worlds(
    bundle: Bundle,
    worlds: Path,
    report: Path,
    autoencoder: GuidedAutoencoder,
    walks: int = 3,
    seconds: float = 15.0,
    metrics: tuple[str, ...] = PICTURE_METRICS,
    progress: Callable[[float], None] | None = None,
) -> EvaluationReport:
    """Measure every world of a folder that fits a bundle on held-out walks; see `evaluate`.

    Args:
        progress: Told which share is done.
    """
    found = tuple((world, place_of(world)) for world in fitting_worlds(bundle.spec.weights_sha256, worlds))
    plan = EvaluationPlan("walks", walk, found, walks, seconds, metrics)
    num_steps = plan.num_steps(bundle.spec.fps, bundle.spec.chunk_size * bundle.spec.temporal_stride)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done / num_steps)

    return evaluate(bundle, plan, report, partial(reconstruct, autoencoder), tell)


def _report(
    bundle: Bundle,
    plan: EvaluationPlan,
    measures: Sequence[str],
    missing: Sequence[str],
    scores: Sequence[RolloutScores],
    depth_errors: Mapping[str, float],
) -> EvaluationReport:
    """What is known so far."""
    return EvaluationReport(
        bundle=bundle.spec.name,
        weights_sha256=bundle.spec.weights_sha256,
        tracks=plan.tracks,
        seconds=plan.seconds,
        places=plan.places,
        measures=tuple(measures),
        missing=tuple(missing),
        rollouts=tuple(scores),
        num_planned=plan.num_rollouts,
        depth_errors=dict(depth_errors),
    )


class _Counter:
    """Adds up the steps of works that each count from one."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done, self._inside = progress, 0, 0

    def within(self, done: int) -> None:
        self._inside = done
        if self._progress is not None:
            self._progress(self._done + done)

    def settle(self) -> None:
        """End a work; the next counts from one again."""
        self._done, self._inside = self._done + self._inside, 0


def _roll_out(
    session: Session,
    place: Place,
    plan: EvaluationPlan,
    seed: int,
    reconstruct: Reconstruct | None,
    counter: _Counter,
) -> Rollout:
    length = session.frames_per_chunk
    frames = 1 + length * num_chunks(plan.seconds, session.fps, length)
    poses = plan.lay_track(place, frames, round(session.fps), seed)
    rollout = roll_out(session, place, poses, seed, reconstruct, counter.within)
    counter.settle()
    return rollout


def _write(report: EvaluationReport, folder: Path) -> None:
    with replacing(folder / "scores.json") as file:
        file.write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    with replacing(folder / "scores.md") as file:
        file.write_text(as_markdown(report) + "\n")


HORIZONS_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
SAMPLE_S = 1.0
"""Between the frames that the mean over a whole video is taken of."""


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
    videos, fps, last = videos_of(rollout), rollout.fps, rollout.num_frames - 1
    reached = {s: n for s in HORIZONS_S if (n := round(s * fps)) <= last}
    settled = range(round(SETTLED_S * fps), last + 1, max(1, round(SAMPLE_S * fps)))
    long_enough = last >= (SETTLED_S + 2) * fps
    steady = {name: videos[name] for name in (MODEL, CEILING) if name in videos}
    return RolloutScores(
        world=rollout.world,
        track=track,
        seed=seed,
        seconds=last / fps,
        horizons=tuple(
            Horizon(s, _likeness(videos, rollout.truth, [n], measures)) for s, n in reached.items()
        ),
        settled=_likeness(videos, rollout.truth, settled, measures),
        revisit=_revisits(rollout, measures) if "revisit" in parts else None,
        drift={name: measure_drift(rollout.truth, video, fps) for name, video in steady.items()}
        if "drift" in parts and long_enough
        else None,
        camera=_camera(rollout, place, progress) if "camera" in parts else None,
    )


def _likeness(
    videos: dict[str, Frames], truth: Frames, picks: Sequence[int], measures: Sequence[Measure]
) -> Scores:
    """Mean of every measure over the picked frames of every video; empty where none is picked."""
    if not len(picks):
        return {}
    return {
        name: {m.name: float(np.mean([m.compare(truth[n], video[n]) for n in picks])) for m in measures}
        for name, video in videos.items()
    }


def _revisits(rollout: Rollout, measures: Sequence[Measure]) -> Revisits:
    videos = {MODEL: rollout.generated, TRUTH: rollout.truth}
    return score_revisits(videos, rollout.c2w, rollout.fps, measures)


def _camera(rollout: Rollout, place: Place, progress: Progress | None) -> dict[str, CameraFollowing]:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), BLUR_PX) for frame in rollout.truth])
    videos = {MODEL: rollout.generated, TRUTH: rollout.truth, BLURRED: blurred}
    return follow_camera(rollout, place, videos, progress)
