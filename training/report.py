"""The report page of a training: one HTML file that opens anywhere, from the logs of a run folder, during the run or after it."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from pydantic import ValidationError

from engine.atomic import replacing
from training.charts import line_chart
from training.checkpoint import read_values
from training.pace import Pace
from training.progress import as_duration
from training.run_folder import RECORD_FILE, RunRecord, read_record
from training.stage_log import read_log

SHEET_WIDTH_PX, SHEET_QUALITY = 1000, 80
"""Of the pictures in the page; those beside it are left as they are."""
MOST_PICTURE_BYTES = 1_500_000
"""Of all pictures together."""
RATES = ("frames_per_s", "peak_share")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1020px; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fdfcfa }
h1, h2, h3 { font-weight: 600; line-height: 1.2 } h2 { margin-top: 2.5rem } figure { margin: 0 0 1rem } img { width: 100% }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top }
th { border-bottom: 1px solid #bbb } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.half { max-width: 560px }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem }
svg text { font: 11px system-ui, sans-serif; fill: #555 } .grid { stroke: #e4e0d8 } .quiet, figcaption { color: #777 }
"""


@dataclass(frozen=True)
class StageResult:
    """What a stage's files say."""

    name: str
    log: list[dict[str, Any]]
    pace: Pace | None
    finished: bool | None
    """None where nothing was saved yet."""


def write_report(runs: Path, destination: Path | None = None) -> Path:
    """Write the page of a run folder.

    Args:
        destination: The file; `report/index.html` in the folder where None.

    Returns:
        The file.

    Raises:
        ValueError: The folder holds no training, or the file cannot be written.
    """
    stages = stage_results(runs)
    record = read_record(runs)
    if record is None and not stages:
        raise ValueError(f"{runs} holds no training; name the folder that --runs named")
    if destination is None:
        destination = runs / "report" / "index.html"
        destination.parent.mkdir(parents=True, exist_ok=True)
    sections = [
        *_overview(stages, record),
        *_curves(stages),
        *_scores(runs / "report"),
        *_sheets(runs / "report"),
    ]
    if record is not None:
        sections += _recipe(record)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Flaneur: a training</title>'
        f"<style>{STYLE}</style></head><body><h1>A training</h1>{''.join(sections)}</body></html>\n"
    )
    with replacing(destination) as file:
        file.write_text(page, encoding="utf-8")
    return destination


def stage_results(runs: Path) -> list[StageResult]:
    """Read the stages of a folder that have begun, in the recipe's order."""
    known = record.stages if (record := read_record(runs)) is not None else ()
    results = []
    for path in (*runs.glob("*.log.jsonl"), *runs.glob("stages/*.log.jsonl")):
        name = path.name.removesuffix(".log.jsonl")
        pace = _pace(path.with_name(f"{name}.pace.json"))
        results.append(StageResult(name, read_log(path), pace, _finished(path.parent, name)))
    order = {name: n for n, name in enumerate(known)}
    return sorted(results, key=lambda stage: (order.get(stage.name, len(order)), stage.name))


def _pace(path: Path) -> Pace | None:
    try:
        return Pace.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _finished(runs: Path, name: str) -> bool | None:
    path = runs / f"{name}.state.safetensors"
    try:
        return bool(read_values(path)["finished"])
    except (OSError, ValueError):
        return None


def _overview(stages: Sequence[StageResult], record: RunRecord | None) -> Iterable[str]:
    if record is not None:
        yield f"<p>On {html.escape(record.machine)}.</p>"
    columns = ("stage", "", "steps", "trained", "frames/s", "of the peak", "computed in", "at the end")
    yield "<h2>Stages</h2>" + table(columns, [_overview_row(stage) for stage in stages], numbers={2, 3, 4, 5})
    notes = sorted({note for stage in stages if stage.pace is not None for note in stage.pace.notes})
    yield "".join(f'<p class="quiet">{html.escape(note)}</p>' for note in notes)
    if record is not None and record.seconds:
        rows = [(name, as_duration(seconds)) for name, seconds in record.seconds.items()]
        rows.append(("together", as_duration(sum(record.seconds.values()))))
        yield "<h3>Time, of calls that ended</h3>" + table(("phase", "took"), rows, numbers={1})


def _overview_row(stage: StageResult) -> Sequence[str]:
    last = stage.log[-1] if stage.log else {}
    state = {None: "not saved yet", True: "finished", False: "under way"}[stage.finished]
    hidden = ("step", "trained_s", "grad_norm", *RATES)
    end = ", ".join(f"{key} {value:.4g}" for key, value in last.items() if key not in hidden)
    rates = {key: _mean([line[key] for line in stage.log if key in line]) for key in RATES}
    computed = "" if stage.pace is None else stage.pace.precision
    if stage.pace is not None and len(stage.pace.step_s) > 1:
        computed += " (" + ", ".join(f"{n} {1000 * s:.0f} ms" for n, s in stage.pace.step_s.items()) + ")"
    return (
        stage.name,
        state,
        str(last.get("step", "")),
        as_duration(last["trained_s"]) if last else "",
        "" if rates["frames_per_s"] is None else f"{rates['frames_per_s']:.0f}",
        "" if rates["peak_share"] is None else f"{rates['peak_share']:.1%}",
        computed,
        end,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _curves(stages: Sequence[StageResult]) -> Iterable[str]:
    minutes = "minutes of training"
    charts = []
    for stage in stages:
        names = [k for k in (stage.log[-1] if stage.log else {}) if k not in ("step", "trained_s", *RATES)]
        for name in names:
            points = [(line["trained_s"] / 60, line[name]) for line in stage.log if name in line]
            drawn = line_chart({name: points}, minutes, logarithmic="loss" in name or "mse" in name)
            charts.append(
                f"<figure>{drawn}<figcaption>{html.escape(stage.name)}: {html.escape(name)}</figcaption></figure>"
            )
    if charts:
        yield f'<h2>Curves</h2><div class="charts">{"".join(charts)}</div>'
    rates = {"frames_per_s": "frames trained per second", "peak_share": "share of the matrix products' peak"}
    drawn = []
    for key, caption in rates.items():
        if any(series := _one_after_another(stages, key)):
            chart = line_chart(series, f"{minutes}, all stages")
            drawn.append(f"<figure>{chart}<figcaption>{caption}</figcaption></figure>")
    if drawn:
        yield f'<h2>Throughput</h2><div class="charts">{"".join(drawn)}</div>'


def _one_after_another(stages: Sequence[StageResult], key: str) -> dict[str, list[tuple[float, float]]]:
    """A figure of each stage that has it, over the minutes of training since the first stage began."""
    series, begun_s = {}, 0.0
    for stage in stages:
        points = [((begun_s + line["trained_s"]) / 60, line[key]) for line in stage.log if key in line]
        if points:
            series[stage.name] = points
        begun_s += stage.log[-1]["trained_s"] if stage.log else 0.0
    return series


def _scores(report: Path) -> Iterable[str]:
    """The tables that evaluation left, and a chart of each that goes by seconds."""
    for path in sorted(report.glob("*.md")):
        yield f"<h2>Measured: {html.escape(path.stem)}</h2>"
        for part in markdown_parts(path.read_text(encoding="utf-8")):
            if isinstance(part, str):
                yield f"<p>{html.escape(part)}</p>"
                continue
            head, rows = part[0], part[1:]
            if len(series := _by_seconds(head, rows)) > 1:
                drawn = line_chart(series, "seconds after the start")
                yield f"<figure class=half>{drawn}<figcaption>{html.escape(head[0])}</figcaption></figure>"
            yield table(head, rows, numbers=range(1, len(head)))


def markdown_parts(text: str) -> list[str | list[list[str]]]:
    """Split Markdown into paragraphs and tables, each a list of rows of cells, the heading first."""
    parts: list[str | list[list[str]]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            parts.append(line)
            continue
        cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        if all(set(cell) <= set("-:") for cell in cells):
            continue
        if parts and isinstance(parts[-1], list):
            parts[-1].append(cells)
        else:
            parts.append([cells])
    return [part for part in parts if part]


def _by_seconds(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[tuple[float, float]]]:
    """Columns of numbers over rows that begin with a time."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if (time := re.fullmatch(r"([0-9.]+) s", row[0])) is None:
            continue
        for name, cell in zip(head[1:], row[1:], strict=True):
            if re.fullmatch(r"[+-]?[0-9.]+", cell):
                series.setdefault(name, []).append((float(time[1]), float(cell)))
    return {name: points for name, points in series.items() if len(points) > 1}


def _sheets(report: Path) -> Iterable[str]:
    figures, left_out, size = [], [], 0
    for path in sorted(report.glob("*.png")):
        name = html.escape(path.stem)
        if (uri := picture_uri(path)) is None or size + len(uri) > MOST_PICTURE_BYTES:
            left_out.append(name)
        else:
            size += len(uri)
            figures.append(f'<figure><img src="{uri}" alt="{name}"><figcaption>{name}</figcaption></figure>')
    if figures:
        yield f"<h2>Contact sheets</h2><p>Truth above, generated below, later to the right.</p>{''.join(figures)}"
    if left_out:
        yield f'<p class="quiet">Not shown, to keep this page small: {", ".join(left_out)}.</p>'


def picture_uri(path: Path) -> str | None:
    """A picture as a JPEG data URI no wider than the page; None where it cannot be read."""
    picture = cv2.imread(str(path))
    if picture is None:
        return None
    height, width = picture.shape[:2]
    if width > SHEET_WIDTH_PX:
        size = (SHEET_WIDTH_PX, round(height * SHEET_WIDTH_PX / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _recipe(record: RunRecord) -> Iterable[str]:
    for title, values in (("Recipe", record.recipe), ("Model", record.model)):
        rows = [(name.replace("_", " "), json.dumps(value)) for name, value in flattened(values).items()]
        yield f"<h2>{title}</h2>{table(('', ''), rows)}"
    yield f'<p class="quiet">from {RECORD_FILE} of the run folder</p>'


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """An HTML table.

    Args:
        numbers: Columns that are set to the right.
    """
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        shown = (
            f"<{tag}{' class=number' if n in right else ''}>{html.escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    head = line(columns, "th") if any(columns) else ""
    return f"<table>{head}{''.join(line(row, 'td') for row in rows)}</table>"
