"""Scores of an evaluation, and the tables and contact sheets that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.files.atomic import replacing
from evaluation.baselines import (
    BLENDED,
    CEILING,
    MODEL,
    ORACLE,
    PREVIOUS,
    REMEMBERED,
    REPEATED,
    REPROJECTED,
    TRUTH,
)
from evaluation.camera_following import CameraFollowing
from evaluation.consistency import Drift, Revisits
from evaluation.rollouts import Frames

VIDEOS = (MODEL, REMEMBERED, BLENDED, ORACLE, REPROJECTED, PREVIOUS, REPEATED, CEILING)
TITLES = {
    "psnr": "PSNR, dB, higher is better",
    "ssim": "SSIM, higher is better",
    "gmsd": "GMSD, lower is better",
    "flip": "FLIP, lower is better",
    "lpips": "LPIPS, lower is better",
}
DIGITS = {"psnr": 1}
"""Decimals of a measure; three where none are named."""


Scores = dict[str, dict[str, float]]
"""By video, then by measure."""


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


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that was measured of one bundle."""

    bundle: str
    weights_sha256: str
    tracks: str
    seconds: float
    places: str
    """"learned", "unseen", or "unseen, exactly measured" where the depth of their first pictures was known."""
    measures: tuple[str, ...]
    missing: tuple[str, ...]
    """One sentence for each measure that could not be taken."""
    rollouts: tuple[RolloutScores, ...]
    num_planned: int
    """Rollouts of the whole evaluation; more than there are while it is under way."""
    depth_errors: dict[str, float] = field(default_factory=dict)
    """Of worlds that began with one picture: how far the depth it was told is off, see `worlds.depth_error`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return asdict(self)


def as_markdown(report: EvaluationReport) -> str:
    """Format a report as Markdown tables."""
    worlds = list(dict.fromkeys(r.world for r in report.rollouts))
    done = "" if len(report.rollouts) == report.num_planned else f" of {report.num_planned} planned"
    lines = [
        f"{report.bundle} ({report.weights_sha256[:8]}) on {report.places} places: {', '.join(worlds)}; "
        f"{len(report.rollouts)} rollouts{done} of {report.seconds:g} s along {report.tracks} tracks.",
        *(f"Not measured: {reason}." for reason in report.missing),
        *_depth_line(report.depth_errors),
    ]
    for measure in report.measures:
        lines += ["", *_by_horizon(report.rollouts, measure)]
    if any(r.settled for r in report.rollouts):
        lines += ["", *_by_world(report.rollouts, worlds, report.measures)]
    for table in (_revisit_table, _drift_table, _camera_table):
        rows = table(report.rollouts)
        lines += ["", *rows] if rows else []
    return "\n".join(lines)


def _depth_line(errors: Mapping[str, float]) -> list[str]:
    if not errors:
        return []
    each = ", ".join(f"{world} {100 * error:.1f} %" for world, error in errors.items())
    mean = 100 * float(np.mean(list(errors.values())))
    return [f"Depth of the first pictures, median relative error: {mean:.1f} % in the mean ({each})."]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table."""
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _videos_shown(rollouts: Sequence[RolloutScores]) -> list[str]:
    """The videos that any rollout has, in the tables' order."""
    shown = {video for r in rollouts for h in r.horizons for video in h.scores}
    return [video for video in VIDEOS if video in shown]


def _by_horizon(rollouts: Sequence[RolloutScores], measure: str) -> list[str]:
    times = list(dict.fromkeys(h.seconds for r in rollouts for h in r.horizons))
    videos = _videos_shown(rollouts)
    rows = []
    for seconds in times:
        at = [h.scores for r in rollouts for h in r.horizons if h.seconds == seconds]
        rows.append([f"{seconds:g} s", *(_mean(at, video, measure) for video in videos)])
    if settled := [r.settled for r in rollouts if r.settled]:
        rows.append(["mean from 1 s on", *(_mean(settled, video, measure) for video in videos)])
    return table((TITLES[measure], *videos), rows)


def _by_world(rollouts: Sequence[RolloutScores], worlds: Sequence[str], measures: Sequence[str]) -> list[str]:
    rows = []
    videos = _videos_shown(rollouts) if "psnr" in measures else []
    for world in worlds:
        settled = [r.settled for r in rollouts if r.world == world and r.settled]
        cells = [_mean(settled, video, "psnr") for video in videos]
        others = [_mean(settled, MODEL, m) for m in measures if m != "psnr"]
        rows.append([world, *cells, *others])
    heads = [f"{video}, dB" for video in videos]
    return table(("mean from 1 s on", *heads, *(f"{m} of model" for m in measures if m != "psnr")), rows)


def _revisit_table(rollouts: Sequence[RolloutScores]) -> list[str]:
    found = [r.revisit for r in rollouts if r.revisit is not None and r.revisit.num_pairs]
    if not found:
        return []
    measures = list(next(iter(found[0].scores.values())))
    scores = [revisit.scores for revisit in found]
    rows = [[video, *(_mean(scores, video, m) for m in measures)] for video in (MODEL, TRUTH)]
    pairs = sum(revisit.num_pairs for revisit in found)
    return table((f"revisits, {pairs} pairs", *measures), rows)


def _drift_table(rollouts: Sequence[RolloutScores]) -> list[str]:
    found = [r.drift for r in rollouts if r.drift is not None]
    rows = []
    for video in (MODEL, CEILING):
        drifts = [drift[video] for drift in found if video in drift]
        if not drifts:
            continue
        ends = [[getattr(d, end) for d in drifts] for end in ("first", "last")]
        rows.append(
            [
                video,
                *(f"{_average(end, lambda w: w.psnr_db):.1f} dB" for end in ends),
                f"{np.mean([d.loss_db for d in drifts]):+.1f} dB",
                f"{min(d.worst_second_db for d in drifts):.1f} dB",
                " -> ".join(f"{_average(end, lambda w: w.sharpness):.2f}" for end in ends),
                " -> ".join(f"{_average(end, lambda w: w.colour_offset):.1f}" for end in ends),
            ]
        )
    heads = ("drift", "first window", "last window", "lost", "worst second", "sharpness", "colour offset")
    return table(heads, rows) if rows else []


def _camera_table(rollouts: Sequence[RolloutScores]) -> list[str]:
    found = [r.camera for r in rollouts if r.camera is not None]
    rows = []
    for video in found[0] if found else ():
        each = [camera[video] for camera in found]
        share = sum(c.num_located for c in each) / max(1, sum(c.num_frames for c in each))
        cells = [f"{100 * share:.0f} %"]
        for kind in ("aligned", "as_is"):
            errors = [getattr(c, kind) for c in each if getattr(c, kind) is not None]
            for name, digits in (("rotation_deg", 2), ("translation_m", 3), ("matrix", 3)):
                cells.append(
                    f"{_average(errors, lambda e, n=name: getattr(e, n)):.{digits}f}" if errors else ""
                )
        rows.append([video, *cells])
    heads = ("RotErr, deg", "TransErr, m", "CamMC")
    columns = ("camera", "located", *heads, *(f"{head}, unaligned" for head in heads))
    return table(columns, rows) if rows else []


def _average(items: Sequence[Any], value: Callable[[Any], float]) -> float:
    return float(np.mean([value(item) for item in items]))


def _mean(scores: Sequence[Scores], video: str, measure: str) -> str:
    """Format the mean over rollouts; empty where the video or the measure is in none."""
    values = [s[video][measure] for s in scores if measure in s.get(video, {})]
    return f"{np.mean(values):.{DIGITS.get(measure, 3)}f}" if values else ""


SHEET_HORIZONS_S = (0.25, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


def contact_sheet(
    videos: Sequence[Frames],
    fps: float,
    path: Path,
    scale: float = 1.5,
    horizons_s: Sequence[float] = SHEET_HORIZONS_S,
) -> None:
    """Write a PNG; one row per video [F, H, W, 3], its frames at the horizons that all reach."""
    length = min(map(len, videos))
    picks = [frame for seconds in horizons_s if (frame := round(seconds * fps)) < length] or [length - 1]
    rows = [np.concatenate([video[n] for n in picks], 1) for video in videos]
    sheet = cv2.resize(np.concatenate(rows, 0), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    ok, encoded = cv2.imencode(".png", sheet[..., ::-1])
    assert ok, "a uint8 picture always encodes"
    with replacing(path) as file:
        file.write_bytes(encoded.tobytes())
