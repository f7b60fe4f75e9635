"""The report page of an annotation: kept and rejected clips with frames and paths, scores beside their bounds; one HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.files.atomic import replacing
from training.data.annotation.annotate import Annotation, AnnotationPlan
from training.data.annotation.filters import Range, count_reasons
from training.data.annotation.results import ClipResult, camera_path, picture_path, read_camera, read_seconds
from training.report.html_parts import table
from training.report.page import STYLE

REPORT_FILE = "report.html"
MOST_SHOWN = 200
"""Clips with pictures, of kept and of rejected ones each."""
BINS = 24
ENDS = ("first_frame", "last_frame")
"""Scores that say where a clip was cut; no histogram of them tells anything."""
CHART_WIDTH, CHART_HEIGHT = 300, 120
PATH_SIDE = 130
CLIP_STYLE = """
.clip { display: grid; grid-template-columns: 140px 1fr; gap: 1rem; margin: 0 0 1rem; padding-top: .6rem;
  border-top: 1px solid #e4e0d8 }
.clip p { margin: .2rem 0; font-size: 13px } .why { color: #c1553b }
"""


def write_report(plan: AnnotationPlan, done: Annotation) -> Path:
    """Write the page into the set's folder; returns the file."""
    kept = [clip for clip in done.clips if clip.kept]
    rejected = [clip for clip in done.clips if not clip.kept]
    bounds = {**plan.settings.judge.bounds, **plan.settings.judge.camera}
    parts = [
        *_in_short(plan, done, kept, rejected),
        *_histograms(done.clips, bounds),
        *_clips("Kept", kept, plan.folder),
        *_clips("Rejected", rejected, plan.folder),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Flaneur: an annotation</title><style>{STYLE}{CLIP_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    path = plan.folder / REPORT_FILE
    with replacing(path) as file:
        file.write_text(page, encoding="utf-8")
    return path


def _in_short(
    plan: AnnotationPlan, done: Annotation, kept: Sequence[ClipResult], rejected: Sequence[ClipResult]
) -> Iterator[str]:
    seconds = sum(clip.end_s - clip.start_s for clip in kept)
    scales = sorted({clip.scale_from for clip in kept if clip.scale_from})
    yield "<h1>An annotation</h1>"
    yield table(
        ("", ""),
        [
            ("kept", f"{len(kept)} clips, {seconds:.0f} s"),
            ("rejected", str(len(rejected))),
            ("in archives", str(done.archived)),
            ("scale from", ", ".join(scales) or "nothing kept"),
        ],
    )
    if reasons := count_reasons(clip.reasons for clip in rejected):
        yield "<h2>Why clips were rejected</h2>"
        yield table(("reason", "clips"), [(name, str(count)) for name, count in reasons.items()], [1])
    if done.left_out:
        yield "<h2>Left out</h2>"
        yield table(("what", "why"), [(item.name, item.reason) for item in done.left_out])
    took = [read_seconds(plan.folder, clip.key) for clip in done.clips]
    if steps := list(dict.fromkeys(step for each in took for step in each.wall_s)):
        yield "<h2>Seconds a clip</h2>"
        rows = []
        for step in steps:
            wall = [each.wall_s[step] for each in took if step in each.wall_s]
            cpu = [each.cpu_s[step] for each in took if step in each.cpu_s]
            rows.append((step, f"{np.mean(wall):.1f}", f"{np.mean(cpu):.1f}", str(len(wall))))
        yield table(("step", "by the clock", "of a core", "clips"), rows, [1, 2, 3])


def _histograms(clips: Sequence[ClipResult], bounds: Mapping[str, Range]) -> Iterator[str]:
    names = [n for n in dict.fromkeys(n for clip in clips for n in clip.scores) if n not in ENDS]
    if not names:
        return
    yield "<h2>Scores</h2><p class=quiet>Shaded: what is kept.</p><div class=charts>"
    for name in names:
        values = np.array([clip.scores[name] for clip in clips if name in clip.scores])
        yield f"<figure>{histogram(values, bounds.get(name))}<figcaption>{html.escape(name)}</figcaption></figure>"
    yield "</div>"


def histogram(values: NDArray[np.float64], kept: Range | None) -> str:
    """Draw how values are spread as an SVG element, the kept range behind them."""
    low, high = float(values.min()), float(values.max())
    if kept is not None:
        # A far bound would squeeze all values into one bar; it is only shown where it is near.
        reach = max(high - low, abs(high)) or kept[1] - kept[0]
        low, high = min(low, max(kept[0], low - reach)), max(high, min(kept[1], high + reach))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(values, BINS, (low, high))

    def x(value: float) -> float:
        return CHART_WIDTH * (min(max(value, low), high) - low) / (high - low)

    shade = ""
    if kept is not None:
        left, right = x(kept[0]), x(kept[1])
        shade = (
            f'<rect x="{left:.1f}" y="0" width="{right - left:.1f}" height="{CHART_HEIGHT}" fill="#e3efe0"/>'
        )
    width = CHART_WIDTH / BINS
    bars = "".join(
        f'<rect x="{n * width:.1f}" y="{CHART_HEIGHT * (1 - count / counts.max()):.1f}" width="{width - 1:.1f}" '
        f'height="{CHART_HEIGHT * count / counts.max():.1f}" fill="#2a6f97"/>'
        for n, count in enumerate(counts)
        if count
    )
    ends = (
        f'<text x="0" y="{CHART_HEIGHT + 14}">{low:.3g}</text>'
        f'<text x="{CHART_WIDTH}" y="{CHART_HEIGHT + 14}" text-anchor="end">{high:.3g}</text>'
    )
    return f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT + 18}" role="img">{shade}{bars}{ends}</svg>'


def _clips(title: str, clips: Sequence[ClipResult], folder: Path) -> Iterator[str]:
    if not clips:
        return
    more = "" if len(clips) <= MOST_SHOWN else f", the first {MOST_SHOWN}"
    yield f"<h2>{title}: {len(clips)}{more}</h2>"
    for clip in clips[:MOST_SHOWN]:
        has_camera = camera_path(folder, clip.key).is_file()
        drawn = path_from_above(read_camera(folder, clip.key)[0]) if has_camera else ""
        facts = (
            f"{clip.key}: {clip.start_s:.1f} to {clip.end_s:.1f} s, {clip.num_frames} frames. {clip.method}"
        )
        why = f'<p class="why">{html.escape("; ".join(clip.reasons))}</p>' if clip.reasons else ""
        caption = f"<p class=quiet>{html.escape(clip.caption)}</p>" if clip.caption else ""
        yield (
            f'<div class="clip"><div>{drawn}</div><div>{_strip(folder, clip.key)}<p>{html.escape(facts)}</p>'
            f"{why}{caption}</div></div>"
        )


def _strip(folder: Path, key: str) -> str:
    path = picture_path(folder, key)
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="frames of {html.escape(key)}" src="data:image/jpeg;base64,{data}">'


def path_from_above(c2w: NDArray[np.float64]) -> str:
    """Draw the way of cameras [F, 4, 4] as seen along their mean downward axis, as an SVG element; a dot where it begins."""
    down = c2w[:, :3, 1].mean(0)
    down /= max(float(np.linalg.norm(down)), 1e-9)
    ahead = c2w[0, :3, 2] - down * (c2w[0, :3, 2] @ down)
    ahead /= max(float(np.linalg.norm(ahead)), 1e-9)
    right = np.cross(down, ahead)
    centres = c2w[:, :3, 3] - c2w[:, :3, 3].mean(0)
    flat = np.stack([centres @ right, -(centres @ ahead)], 1)
    reach = max(float(np.abs(flat).max()), 1e-9)
    shown = PATH_SIDE / 2 + flat / reach * (PATH_SIDE / 2 - 8)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
    return (
        f'<svg viewBox="0 0 {PATH_SIDE} {PATH_SIDE}" role="img"><polyline points="{points}" fill="none" stroke="#2a6f97" '
        f'stroke-width="1.5"/><circle cx="{shown[0, 0]:.1f}" cy="{shown[0, 1]:.1f}" r="3" fill="#c1553b"/></svg>'
    )
