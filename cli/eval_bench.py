"""`flaneur eval --bench`: rolling a benchmark's pictures out, and scoring videos of its scenes by any model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.eval_request import Asked
from cli.report import extra_needed, print_json, progress, say

if TYPE_CHECKING:
    from evaluation.bench_films import FilmScore
    from evaluation.bench_layout import BenchScene
    from evaluation.rollouts import Frames
    from evaluation.worlds import Subject

LISTED = 5
"""Broken scenes that are named."""


def _scenes(folder: Path, asked: Asked) -> tuple[list[BenchScene], list[str]]:
    """So many scenes of each category of a split, and the names of those that lack a file."""
    from evaluation.bench_layout import first_of_each, read_bench

    found, broken = read_bench(folder, asked.tracks.value)
    if broken:
        more = "" if len(broken) <= LISTED else f" and {len(broken) - LISTED} more"
        say(
            f"{len(broken)} scenes lack an image or a track and are left out: {', '.join(broken[:LISTED])}{more}"
        )
    return (found if asked.walks is None else first_of_each(found, asked.walks)), broken


def evaluate_films(folders: Sequence[Path], folder: Path, asked: Asked) -> None:
    """Score folders of videos of so many scenes of each category of a split."""
    from engine.files.atomic import replacing
    from evaluation.bench_costs import read_costs
    from evaluation.bench_films import ROWS, TABLE_FILE, FilmScore, Judges, film_identities, score_films
    from evaluation.bench_networks import open_networks
    from evaluation.bench_progress import read_rows
    from evaluation.bench_tables import films_table
    from evaluation.image_metrics import OPENERS, open_measures

    chosen, _ = _scenes(folder, asked)
    measures, missing = open_measures(
        [name for name in asked.metrics or ("psnr", "ssim", "lpips") if name in OPENERS]
    )
    estimator = None
    if any(scene.place is None for scene in chosen):
        with extra_needed("recovering poses of scenes without a truth", "annotate"):
            from evaluation.poses.structure_from_motion import StructureFromMotion
        # Tracks are slow, and a minute has many frames.
        estimator = StructureFromMotion(keyframes_per_s=2.0)
    if len({each.name for each in folders}) < len(folders):
        raise ValueError("folders of --films need names of their own, which their rows are called by")
    costs, path = {each.name: read_costs(each) for each in folders}, asked.output / TABLE_FILE
    asked.output.mkdir(parents=True, exist_ok=True)

    def save(scores: Sequence[FilmScore]) -> None:
        with replacing(path) as file:
            file.write_text(json.dumps({ROWS: [asdict(score) for score in scores]}, indent=1) + "\n")

    with open_networks(asked.pyiqa_python, asked.vbench_python) as networks:
        judges = Judges(measures, estimator, networks)
        expected = film_identities(chosen, folders, asked.seconds, judges)
        earlier = {} if asked.overwrite else read_rows(path, ROWS, FilmScore, expected)
        with progress("scoring videos", len(chosen)) as bar:
            scores, absent = score_films(chosen, folders, asked.seconds, judges, earlier, save, bar)
    for reason in [*missing, *absent[:LISTED]]:
        say(reason)
    table = films_table(asked.tracks.value, scores, costs)
    with replacing(asked.output / "films.md") as file:
        file.write_text(table + "\n")
    result: dict[str, Any] = {
        "films": [asdict(score) for score in scores],
        "costs": {name: cost.model_dump() for name, cost in costs.items()},
        "left_out": absent,
        "output": str(asked.output),
    }
    print_json(result) if asked.as_json else print(table)


def evaluate_pictures(subject: Subject, folder: Path, asked: Asked) -> None:
    """Measure so many scenes of each category of a split."""
    from engine.files.pictures import open_rgb
    from engine.session.picture_world import depth_teller
    from evaluation.bench_progress import read_rows
    from evaluation.image_metrics import OPENERS, open_measures
    from evaluation.sana_wm_bench import (
        ROWS,
        TABLE_FILE,
        BenchModel,
        BenchScore,
        bench_chunks,
        bench_table,
        evaluate_bench,
        scene_identities,
    )
    from export.photo import fit_photo

    def read(path: Path, width: int, height: int) -> tuple[Frames, tuple[int, int]]:
        photo = open_rgb(path)
        return fit_photo(photo, width, height)[0], photo.size

    chosen, broken = _scenes(folder, asked)
    measures, missing = open_measures([name for name in asked.metrics or OPENERS if name in OPENERS])
    for reason in missing:
        say(reason)
    bundle = subject.bundle
    model = BenchModel(bundle, subject.fitting, subject.encoder(), read, depth_teller(bundle))
    expected = scene_identities(bundle, chosen, asked.seconds, measures)
    path = asked.output / TABLE_FILE
    earlier = {} if asked.overwrite else read_rows(path, ROWS, BenchScore, expected)
    with progress("measuring", len(chosen) * bench_chunks(bundle, asked.seconds)) as bar:
        scores = evaluate_bench(model, chosen, measures, asked.output, asked.seconds, earlier, bar)
    if asked.as_json:
        print_json(
            {"scenes": [asdict(score) for score in scores], "left_out": broken, "output": str(asked.output)}
        )
    else:
        print(bench_table(scores))
