"""`flaneur eval`: how good a bundle's worlds are, against the truth."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import Json, Overwrite, RefinerChoice
from cli.eval_bench import evaluate_films, evaluate_pictures
from cli.eval_request import Asked, TracksChoice
from cli.report import extra_needed, print_json, progress, say
from engine.files.atomic import check_absent

if TYPE_CHECKING:
    from evaluation.worlds import Subject, WorldOfPlace


TABLES = ("scores.json", "whole/scores.json")
"""What an evaluation of places leaves in its folder; those of a benchmark go on from theirs."""


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
Walks = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        help="Tracks per world, default 1; with --bench scenes of each category, default all.",
    ),
]
Seconds = Annotated[float, typer.Option(min=0.25, max=3600, help="Length of a rollout.")]
Metrics = Annotated[
    str | None,
    typer.Option(help="Of psnr, ssim, gmsd, flip, lpips, revisit, drift, camera, with commas; default: all."),
]
Unseen = Annotated[
    bool, typer.Option("--unseen", help="Mirror and repaint the places, so that none was learned.")
]
TrueDepth = Annotated[
    bool,
    typer.Option(
        "--true-depth",
        help="With --unseen: begin with the exact depth of the first picture, to see what telling it costs.",
    ),
]
Bench = Annotated[
    Path | None, typer.Option(help="Folder of SANA-WM-Bench; its pictures along --tracks simple or hard.")
]
Films = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder of videos NAME.mp4 of --bench's scenes by any model, which are scored instead; "
        "more with more --films."
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
PyiqaPython = Annotated[
    Path | None,
    typer.Option(help="With --films: Python of an environment with pyiqa, for MUSIQ and LPIPS of revisits."),
]
VbenchPython = Annotated[
    Path | None,
    typer.Option(help="With --films: Python of an environment with vbench, for six of its dimensions."),
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
    walks: Walks = None,
    seconds: Seconds = 60.0,
    metrics: Metrics = None,
    unseen: Unseen = False,
    true_depth: TrueDepth = False,
    bench: Bench = None,
    films: Films = None,
    autoencoder: Autoencoder = None,
    ablate: Ablate = False,
    refiner: Refiner = RefinerChoice.OFF,
    pyiqa_python: PyiqaPython = None,
    vbench_python: VbenchPython = None,
    output: Output = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Roll worlds out and measure them: likeness by horizon, revisits, drift, camera."""
    if refiner is not RefinerChoice.OFF and (bench is not None or films or ablate):
        raise ValueError("--refiner goes with walks through places; leave --bench, --films and --ablate out")
    if bench is not None and (unseen or ablate):
        raise ValueError("--bench has places of its own; leave --unseen and --ablate out")
    if true_depth and not unseen:
        raise ValueError("--true-depth goes with --unseen, whose places begin with one picture")
    names = None if metrics is None else tuple(metrics.replace(" ", "").split(","))
    output = output or _new_folder(Path("runs/eval"))
    for table in TABLES:
        check_absent(output / table, overwrite)
    asked = Asked(tracks, walks, seconds, names, output, overwrite, as_json, pyiqa_python, vbench_python)
    if not films and (pyiqa_python is not None or vbench_python is not None):
        raise ValueError("--pyiqa-python and --vbench-python go with --films FOLDER")
    if films:
        if bench is None or tracks is TracksChoice.WALKS:
            raise ValueError("--films goes with --bench FOLDER and --tracks simple or --tracks hard")
        evaluate_films(films, bench, asked)
        return
    with extra_needed("evaluating", "eval"):
        from evaluation.worlds import open_subject
    from engine.machine.assets import find_bundle

    subject = open_subject(find_bundle(bundle), worlds, world, autoencoder)
    if bench is not None:
        if tracks is TracksChoice.WALKS:
            raise ValueError("--bench goes with --tracks simple or --tracks hard, its two splits")
        evaluate_pictures(subject, bench, asked)
        return
    pairs = tuple(subject.places(unseen, true_depth))
    if ablate:
        _ablate(subject, autoencoder, pairs, asked)
        return
    kind = "unseen, exactly measured" if true_depth else "unseen" if unseen else "learned"
    _evaluate_places(subject, pairs, kind, refiner, asked)


def _new_folder(folder: Path) -> Path:
    """Return a folder's name, with a number behind it where it is taken."""
    names = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in itertools.count(1))
    return next(name for name in names if not name.exists())


def _evaluate_places(
    subject: Subject, pairs: tuple[WorldOfPlace, ...], kind: str, refiner: RefinerChoice, asked: Asked
) -> None:
    from evaluation.evaluate import METRICS, EvaluationPlan, evaluate, track_maker
    from evaluation.scores import as_markdown
    from evaluation.worlds import reconstruct

    with extra_needed(f"{asked.tracks.value} tracks", "eval"):
        lay_track = track_maker(asked.tracks.value)
    plan = EvaluationPlan(
        tracks=asked.tracks.value,
        lay_track=lay_track,
        worlds=pairs,
        walks=asked.walks or 1,
        seconds=asked.seconds,
        metrics=METRICS if asked.metrics is None else asked.metrics,
        places=kind,
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


def _ablate(
    subject: Subject, checkpoints: Path | None, pairs: tuple[WorldOfPlace, ...], asked: Asked
) -> None:
    """Measure the whole, the memory alone, and the whole without each part."""
    from evaluation.evaluate import EvaluationPlan, track_maker
    from evaluation.worlds import beside

    with extra_needed("silencing parts", "train"):
        from training.pocket.ablation import measure_parts, parts_table
    measured = ("psnr",) if asked.metrics is None else asked.metrics
    plan = EvaluationPlan(
        asked.tracks.value, track_maker(asked.tracks.value), pairs, asked.walks or 1, asked.seconds, measured
    )
    folder = checkpoints or beside(subject.bundle, "checkpoints")
    if folder is None:
        raise ValueError("silencing parts needs the weights; name their folder with --autoencoder")
    rows = measure_parts(subject.bundle, folder, plan, asked.output, say)
    print_json({"rows": [asdict(row) for row in rows]}) if asked.as_json else print(parts_table(rows))
