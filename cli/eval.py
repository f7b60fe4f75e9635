"""`flaneur eval`: how good a bundle's worlds are, against the truth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import Json, Overwrite, RefinerChoice
from cli.report import extra_needed, print_json, progress, say
from engine.files.atomic import check_absent

if TYPE_CHECKING:
    from evaluation.rollouts import Frames
    from evaluation.worlds import Subject


class TracksChoice(StrEnum):
    """The way that a rollout takes."""

    WALKS = "walks"
    SIMPLE = "simple"
    HARD = "hard"


@dataclass(frozen=True)
class Asked:
    """What every kind of evaluation is told."""

    tracks: TracksChoice
    walks: int
    """Tracks of each world, or scenes of each category."""
    seconds: float
    metrics: tuple[str, ...] | None
    """None for all."""
    output: Path
    overwrite: bool
    as_json: bool


TABLES = ("scores.json", "whole/scores.json")
"""What an evaluation of places leaves in its folder; those of a benchmark go on from theirs."""
LISTED = 5
"""Broken scenes that are named."""


def register(root: typer.Typer) -> None:
    root.command(name="eval")(evaluate_bundle)


Bundle = Annotated[str, typer.Argument(help="Name or folder of a bundle.")]
World = Annotated[
    list[str] | None, typer.Option(help="Name or path of a world; more with more --world; default: all.")
]
Worlds = Annotated[
    Path | None, typer.Option(help="Folder of worlds; default: the one beside the bundle's folder.")
]
Tracks = Annotated[TracksChoice, typer.Option(help="Strolls nobody trained on, or the benchmark's kinds.")]
Walks = Annotated[int, typer.Option(min=1, max=1000, help="Tracks per world.")]
Seconds = Annotated[float, typer.Option(min=0.25, max=3600, help="Length of a rollout.")]
Metrics = Annotated[
    str | None,
    typer.Option(help="Of psnr, ssim, gmsd, flip, lpips, revisit, drift, camera, with commas; default: all."),
]
Unseen = Annotated[
    bool, typer.Option("--unseen", help="Mirror and repaint the places, so that none was learned.")
]
Bench = Annotated[
    Path | None, typer.Option(help="Folder of SANA-WM-Bench; its pictures along --tracks simple or hard.")
]
Films = Annotated[
    Path | None,
    typer.Option(
        help="Folder of videos NAME.mp4 of --bench's scenes by any model, which are scored instead."
    ),
]
Autoencoder = Annotated[
    Path | None, typer.Option(help="Folder with autoencoder.safetensors; default: beside the bundle.")
]
Ablate = Annotated[
    bool, typer.Option("--ablate", help="Also measure it with each part silenced; only for the pocket.")
]
Refiner = Annotated[
    RefinerChoice, typer.Option(help="Whether the bundle's refiner refines every chunk of --tracks.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Gets tables and contact sheets; default: a new folder in runs."),
]


def evaluate_bundle(
    bundle: Bundle = "pocket",
    world: World = None,
    worlds: Worlds = None,
    tracks: Tracks = TracksChoice.WALKS,
    walks: Walks = 1,
    seconds: Seconds = 60.0,
    metrics: Metrics = None,
    unseen: Unseen = False,
    bench: Bench = None,
    films: Films = None,
    autoencoder: Autoencoder = None,
    ablate: Ablate = False,
    refiner: Refiner = RefinerChoice.OFF,
    output: Output = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Roll worlds out and measure them: likeness by horizon, revisits, drift, camera."""
    if refiner is not RefinerChoice.OFF and (bench is not None or films is not None or ablate):
        raise ValueError("--refiner goes with walks through places; leave --bench, --films and --ablate out")
    names = None if metrics is None else tuple(metrics.replace(" ", "").split(","))
    output = output or _new_folder(Path("runs/eval"))
    for table in TABLES:
        check_absent(output / table, overwrite)
    asked = Asked(tracks, walks, seconds, names, output, overwrite, as_json)
    if films is not None:
        if bench is None or tracks is TracksChoice.WALKS:
            raise ValueError("--films goes with --bench FOLDER and --tracks simple or --tracks hard")
        _evaluate_films(films, bench, asked)
        return
    with extra_needed("evaluating", "eval"):
        from evaluation.worlds import open_subject
    from engine.machine.assets import find_bundle

    subject = open_subject(find_bundle(bundle), worlds, world, autoencoder)
    if bench is not None:
        if tracks is TracksChoice.WALKS:
            raise ValueError("--bench goes with --tracks simple or --tracks hard, its two splits")
        _evaluate_pictures(subject, bench, asked)
        return
    if ablate:
        _ablate(subject, autoencoder, asked)
        return
    _evaluate_places(subject, unseen, refiner, asked)


def _new_folder(folder: Path) -> Path:
    """Return a folder's name, with a number behind it where it is taken."""
    names = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in itertools.count(1))
    return next(name for name in names if not name.exists())


def _evaluate_places(subject: Subject, unseen: bool, refiner: RefinerChoice, asked: Asked) -> None:
    from engine.session.picture_world import depth_teller
    from evaluation.evaluate import METRICS, EvaluationPlan, evaluate, track_maker
    from evaluation.rollouts import place_of
    from evaluation.scores import as_markdown
    from evaluation.worlds import reconstruct, unseen_worlds

    with extra_needed(f"{asked.tracks.value} tracks", "eval"):
        lay_track = track_maker(asked.tracks.value)
    if unseen:
        pairs = unseen_worlds(
            subject.chosen, subject.fitting, subject.encoder(), depth_teller(subject.bundle)
        )
    else:
        pairs = [(world, place_of(world)) for world in subject.chosen]
    plan = EvaluationPlan(
        tracks=asked.tracks.value,
        lay_track=lay_track,
        worlds=tuple(pairs),
        walks=asked.walks,
        seconds=asked.seconds,
        metrics=METRICS if asked.metrics is None else asked.metrics,
        places="unseen" if unseen else "learned",
    )
    keeper = subject.autoencoder
    if keeper is None:
        say(
            f"the autoencoder's ceiling is not measured, for {subject.why_none}; name its folder with --autoencoder"
        )
    keep = None if keeper is None else partial(reconstruct, keeper)
    spec = subject.bundle.spec
    with progress("measuring", plan.num_steps(spec.fps, spec.frames_per_chunk)) as bar:
        report = evaluate(subject.bundle, plan, asked.output, keep, bar, say, refiner.value)
    print_json(report.to_dict() | {"output": str(asked.output)}) if asked.as_json else print(
        as_markdown(report)
    )


def _ablate(subject: Subject, checkpoints: Path | None, asked: Asked) -> None:
    """Measure the whole, the memory alone, and the whole without each part."""
    from evaluation.evaluate import EvaluationPlan, track_maker
    from evaluation.rollouts import place_of
    from evaluation.worlds import beside

    with extra_needed("silencing parts", "train"):
        from training.pocket.ablation import measure_parts, parts_table
    pairs = tuple((world, place_of(world)) for world in subject.chosen)
    measured = ("psnr",) if asked.metrics is None else asked.metrics
    plan = EvaluationPlan(
        asked.tracks.value, track_maker(asked.tracks.value), pairs, asked.walks, asked.seconds, measured
    )
    folder = checkpoints or beside(subject.bundle, "checkpoints")
    if folder is None:
        raise ValueError("silencing parts needs the weights; name their folder with --autoencoder")
    rows = measure_parts(subject.bundle, folder, plan, asked.output, say)
    print_json({"rows": [asdict(row) for row in rows]}) if asked.as_json else print(parts_table(rows))


def _evaluate_films(films: Path, folder: Path, asked: Asked) -> None:
    """Score videos of so many scenes of each category of a split."""
    from engine.files.atomic import replacing
    from evaluation.bench_costs import read_costs
    from evaluation.bench_films import ROWS, TABLE_FILE, FilmScore, film_identities, score_films
    from evaluation.bench_layout import first_of_each, read_bench
    from evaluation.bench_progress import read_rows
    from evaluation.bench_tables import films_table
    from evaluation.image_metrics import OPENERS, open_measures

    chosen = first_of_each(read_bench(folder, asked.tracks.value)[0], asked.walks)
    measures, missing = open_measures(
        [name for name in asked.metrics or ("psnr", "ssim", "lpips") if name in OPENERS]
    )
    estimator = None
    if any(scene.place is None for scene in chosen):
        with extra_needed("recovering poses of scenes without a truth", "annotate"):
            from evaluation.poses.structure_from_motion import StructureFromMotion
        # Tracks are slow, and a minute has many frames.
        estimator = StructureFromMotion(keyframes_per_s=2.0)
    costs, path = read_costs(films), asked.output / TABLE_FILE
    expected = film_identities(chosen, films, asked.seconds, measures)
    earlier = {} if asked.overwrite else read_rows(path, ROWS, FilmScore, expected)
    asked.output.mkdir(parents=True, exist_ok=True)

    def save(scores: Sequence[FilmScore]) -> None:
        with replacing(path) as file:
            file.write_text(json.dumps({ROWS: [asdict(score) for score in scores]}, indent=1) + "\n")

    with progress("scoring videos", len(chosen)) as bar:
        scores, absent = score_films(chosen, films, asked.seconds, measures, estimator, earlier, save, bar)
    for reason in [*missing, *absent[:LISTED]]:
        say(reason)
    table = films_table(films.name, asked.tracks.value, scores, costs)
    with replacing(asked.output / "films.md") as file:
        file.write_text(table + "\n")
    result: dict[str, Any] = {
        "films": [asdict(score) for score in scores],
        "costs": costs.model_dump(),
        "left_out": absent,
        "output": str(asked.output),
    }
    print_json(result) if asked.as_json else print(table)


def _evaluate_pictures(subject: Subject, folder: Path, asked: Asked) -> None:
    """Measure so many scenes of each category of a split."""
    with extra_needed("reading the benchmark's pictures", "worlds"):
        from export.photo import fit_photo, read_photo
    from engine.session.picture_world import depth_teller
    from evaluation.bench_layout import first_of_each, read_bench
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

    def read(path: Path, width: int, height: int) -> tuple[Frames, tuple[int, int]]:
        photo = open_rgb(path)
        return fit_photo(photo, width, height)[0], photo.size

    found, broken = read_bench(folder, asked.tracks.value)
    if broken:
        more = "" if len(broken) <= LISTED else f" and {len(broken) - LISTED} more"
        say(
            f"{len(broken)} scenes lack an image or a track and are left out: {', '.join(broken[:LISTED])}{more}"
        )
    chosen = first_of_each(found, asked.walks)
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
