"""The report page of a training: one HTML file that opens anywhere, from the logs of a run folder, during the run or after it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.files.atomic import replacing
from training.checkpoint import read_values
from training.parallel.sharded_checkpoint import read_shared_values
from training.parallel.single_process import index_path, is_shared_newer
from training.progress import as_duration
from training.report.charts import line_chart
from training.report.html_parts import flattened, markdown_parts, picture_uris, table
from training.run_folder import RECORD_FILE, RunRecord, read_record
from training.stage_log import read_log
from training.throughput import Throughput

MOST_PAGE_BYTES = 1_450_000
"""Of the page; its pictures are made as large as that allows."""
RATES = ("frames_per_s", "peak_share")
STYLE = """
body { font: 15px/1.55 system-ui, sans-serif; max-width: 1020px; margin: 2.5rem auto 5rem; padding: 0 1.2rem;
  color: #26231f; background: #fdfcfa }
h1 { font-size: 2rem; margin: 0 0 1rem } h1, h2 { font-weight: 600; line-height: 1.2 }
h2 { margin: 3rem 0 .8rem; padding-top: 1rem; border-top: 1px solid #e4e0d8 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: 0 }
dt { color: #777 } dd { margin: 0 }
figure { margin: 0 0 1rem } img { width: 100%; border-radius: 4px }
table { border-collapse: collapse; margin: .5rem 0 1rem; display: block; overflow-x: auto; font-size: 14px }
td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top }
th { border-bottom: 1px solid #bbb; font-weight: 600 } tr:hover td { background: #f4f1ea }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.half { max-width: 560px } summary { cursor: pointer; margin: 1.5rem 0 .5rem; font-size: 1.2rem; font-weight: 600 }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1.2rem }
svg text { font: 11px system-ui, sans-serif; fill: #555 } .grid { stroke: #e4e0d8 } .quiet, figcaption { color: #777 }
figcaption { font-size: 13px }
"""


@dataclass(frozen=True)
class StageResult:
    """What a stage's files say."""

    name: str
    log: list[dict[str, Any]]
    throughput: Throughput | None
    finished: bool | None
    """None where nothing was saved yet."""

    def mean(self, key: str) -> float | None:
        """Mean of a figure over the log; None where it was not logged."""
        values = [line[key] for line in self.log if key in line]
        return sum(values) / len(values) if values else None


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
    report = runs / "report"
    after = [*_stages(stages), *_curves(stages), *_time(record), *_recipe(record)]
    before = [*_in_short(stages, record), *_scores(report)]
    size = sum(len(part.encode()) for part in (*before, *after)) + len(STYLE)
    # Pictures come between the two, and take what room is left.
    parts = [before[0], *_sheets(report, MOST_PAGE_BYTES - size), *before[1:], *after]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Flaneur: a training</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
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
        throughput = _pace(path.with_name(f"{name}.throughput.json"))
        results.append(StageResult(name, read_log(path), throughput, _finished(path.parent, name)))
    order = {name: n for n, name in enumerate(known)}
    return sorted(results, key=lambda stage: (order.get(stage.name, len(order)), stage.name))


def _pace(path: Path) -> Throughput | None:
    try:
        return Throughput.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _finished(runs: Path, name: str) -> bool | None:
    path = runs / f"{name}.state.safetensors"
    try:
        tree = read_shared_values(index_path(path)) if is_shared_newer(path) else read_values(path)
        return bool(tree["finished"])
    except (OSError, ValueError):
        return None


def _in_short(stages: Sequence[StageResult], record: RunRecord | None) -> Iterable[str]:
    """What was trained, on what, for how long and how fast; one piece of the page."""
    name = "A training" if record is None else f"{record.model.get('name', 'A model')}: a training"
    facts = [] if record is None else [*_data_facts(record)]
    lasts = [stage.log[-1] for stage in stages if stage.log]
    trained_s = sum(last["trained_s"] for last in lasts)
    if lasts:
        steps = sum(last["step"] for last in lasts)
        number = "1 stage" if len(lasts) == 1 else f"{len(lasts)} stages"
        facts.append(("training", f"{steps:,} steps in {as_duration(trained_s)}, {number}"))
    for key, form, what in (
        ("frames_per_s", "{:.0f} video frames trained per second", "speed"),
        ("peak_share", "{:.1%} of the most that this machine's matrix products were seen to reach", "use"),
    ):
        means = [
            (stage.log[-1]["trained_s"], mean) for stage in stages if (mean := stage.mean(key)) is not None
        ]
        if whole_s := sum(seconds for seconds, _ in means):
            mean = sum(seconds * value for seconds, value in means) / whole_s
            facts.append((what, form.format(mean) + ", the mean over all stages' time"))
    if record is not None:
        facts.append(("machine", record.machine))
    rows = "".join(f"<dt>{html.escape(what)}</dt><dd>{html.escape(fact)}</dd>" for what, fact in facts)
    yield f"<h1>{html.escape(name)}</h1><dl>{rows}</dl>"


def _data_facts(record: RunRecord) -> Iterable[tuple[str, str]]:
    """What the recipe says of its data, as far as it does."""
    recipe, stages = record.recipe, len(record.stages)
    if {"counts", "clips"} <= recipe.keys():
        counts = recipe["counts"]
        each = counts["files"] * counts["clips_per_file"]
        places = ", ".join(counts["places"]) or "all places"
        generated = (
            f"{counts['clips_per_generated']} in each of {counts['generated_places']} generated places"
        )
        yield (
            "data",
            f"clips of {recipe['clips']['num_chunks']} chunks: {each} in each of {places}, {generated}",
        )
    if stages:
        yield "recipe", ", ".join(record.stages)


def _stages(stages: Sequence[StageResult]) -> Iterable[str]:
    columns = ("stage", "", "steps", "trained", "frames/s", "of the peak", "computed in", "at first, at last")
    yield "<h2>Stages</h2>" + table(columns, [_overview_row(stage) for stage in stages], numbers={2, 3, 4, 5})
    notes = sorted(
        {note for stage in stages if stage.throughput is not None for note in stage.throughput.notes}
    )
    yield "".join(f'<p class="quiet">{html.escape(note)}</p>' for note in notes)


def _time(record: RunRecord | None) -> Iterable[str]:
    if record is not None and record.seconds:
        rows = [(name, as_duration(seconds)) for name, seconds in record.seconds.items()]
        rows.append(("together", as_duration(sum(record.seconds.values()))))
        yield "<h2>Time</h2><p>Of calls that ended.</p>" + table(("phase", "took"), rows, numbers={1})


def _overview_row(stage: StageResult) -> Sequence[str]:
    last = stage.log[-1] if stage.log else {}
    state = {None: "not saved yet", True: "finished", False: "under way"}[stage.finished]
    hidden = ("step", "trained_s", "grad_norm", *RATES)
    first = stage.log[0] if stage.log else {}
    shown = {key: value for key, value in last.items() if key not in hidden}
    ends = ", ".join(f"{key} {first.get(key, value):.4g} to {value:.4g}" for key, value in shown.items())
    rates = {key: stage.mean(key) for key in RATES}
    computed = "" if stage.throughput is None else stage.throughput.precision
    if stage.throughput is not None and len(stage.throughput.step_s) > 1:
        computed += (
            " (" + ", ".join(f"{n} {1000 * s:.0f} ms" for n, s in stage.throughput.step_s.items()) + ")"
        )
    return (
        stage.name,
        state,
        str(last.get("step", "")),
        as_duration(last["trained_s"]) if last else "",
        "" if rates["frames_per_s"] is None else f"{rates['frames_per_s']:.0f}",
        "" if rates["peak_share"] is None else f"{rates['peak_share']:.1%}",
        computed,
        ends,
    )


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


def _sheets(report: Path, most_bytes: int) -> Iterable[str]:
    paths = sorted(report.glob("*.png"))
    uris = picture_uris(paths, most_bytes)
    images = []
    for path, uri in uris.items():
        name = html.escape(path.stem)
        images.append(f'<figure><img src="{uri}" alt="{name}"><figcaption>{name}</figcaption></figure>')
    if images:
        yield f"<h2>Contact sheets</h2><p>Truth above, generated below, later to the right.</p>{''.join(images)}"
    if left_out := [html.escape(path.stem) for path in paths if path not in uris]:
        yield f'<p class="quiet">Not shown, to keep this page small: {", ".join(left_out)}.</p>'


def _recipe(record: RunRecord | None) -> Iterable[str]:
    if record is None:
        return
    for title, values in (("Recipe", record.recipe), ("Model", record.model)):
        rows = [(name.replace("_", " "), json.dumps(value)) for name, value in flattened(values).items()]
        yield f"<details><summary>{title}</summary>{table(('', ''), rows)}</details>"
    yield f'<p class="quiet">from {RECORD_FILE} of the run folder</p>'
