"""A whole evaluation: every world along every track, measured, with tables and sheets that are whole at any moment."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.files.atomic import replacing
from engine.files.bundle import Bundle
from engine.files.world import World
from engine.session.opening import open_session
from engine.session.protocol import Session
from evaluation.camera_following import SPACING_S
from evaluation.image_metrics import OPENERS, REMEDY, open_measures
from evaluation.measuring import MODEL, PARTS, RolloutScores, films_of, measure_rollout
from evaluation.rollouts import (
    HELD_OUT_SEED,
    Frames,
    Progress,
    Rollout,
    TrackMaker,
    num_chunks,
    roll_out,
)
from evaluation.sheets import contact_sheet
from evaluation.table import EvaluationReport, as_markdown
from holodeck import Place

METRICS = (*OPENERS, *PARTS)
SHEET_WALKS = 2
"""Rollouts of a world that its contact sheet shows."""


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
    reconstruct: Callable[[Frames], Frames] | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> EvaluationReport:
    """Measure a bundle.

    After every rollout `folder` holds the tables so far (`scores.md`, `scores.json`) and a contact sheet per world, truth above
    and generated below; each file is whole at any moment.

    Args:
        reconstruct: Encodes and decodes a film, for the autoencoder's ceiling.
        progress: Told how many of `num_steps` steps are done.
        notice: Told, once each, what cannot be measured here and why.
    """
    measures, missing = open_measures([name for name in plan.metrics if name in OPENERS])
    parts = [name for name in plan.metrics if name in PARTS]
    if "camera" in parts and importlib.util.find_spec("skimage") is None:
        parts.remove("camera")
        missing.append(f"aligning camera poses needs scikit-image, which is not installed; {REMEDY}")
    for reason in missing:
        (notice or (lambda _: None))(reason)
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[RolloutScores] = []
    counter = _Counter(progress)
    report = None
    for world, place in plan.worlds:
        session = open_session(world, bundle)
        try:
            shown: list[Frames] = []
            for seed in range(plan.first_seed, plan.first_seed + plan.walks):
                rollout = _roll_out(session, place, plan, seed, reconstruct, counter)
                scores.append(
                    measure_rollout(rollout, place, plan.tracks, seed, measures, parts, counter.within)
                )
                counter.settle()
                report = _report(bundle, plan, [measure.name for measure in measures], missing, scores)
                shown += [rollout.truth, films_of(rollout)[MODEL]] if len(shown) < 2 * SHEET_WALKS else []
                _write(report, folder)
                contact_sheet(shown, rollout.fps, folder / f"{world.name}.png")
        finally:
            session.close()
    assert report is not None, "a plan has at least one rollout"
    return report


def _report(
    bundle: Bundle,
    plan: EvaluationPlan,
    measures: Sequence[str],
    missing: Sequence[str],
    scores: Sequence[RolloutScores],
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
    reconstruct: Callable[[Frames], Frames] | None,
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
