"""`flaneur eval`: how good a bundle's worlds are, against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import Json
from cli.extras import extra_needed
from cli.report import print_json, progress, say
from engine.files.world import World, find_world
from engine.machine import assets

if TYPE_CHECKING:
    from engine.files.bundle import Bundle
    from model.vae.pocket import Autoencoder


class TracksChoice(StrEnum):
    """The way that a rollout takes."""

    WALKS = "walks"
    SIMPLE = "simple"
    HARD = "hard"


def register(root: typer.Typer) -> None:
    root.command(name="eval")(evaluate_bundle)


def evaluate_bundle(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle.")] = "pocket",
    world: Annotated[
        list[str] | None, typer.Option(help="Name or path of a world; more with more --world; default: all.")
    ] = None,
    worlds: Annotated[
        Path | None, typer.Option(help="Folder of worlds; default: the one beside the bundle's folder.")
    ] = None,
    tracks: Annotated[
        TracksChoice, typer.Option(help="Strolls nobody trained on, or the benchmark's kinds.")
    ] = TracksChoice.WALKS,
    walks: Annotated[int, typer.Option(min=1, max=1000, help="Tracks per world.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.25, max=3600, help="Length of a rollout.")] = 60.0,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Of psnr, ssim, gmsd, flip, lpips, revisit, drift, camera, with commas; default: all."
        ),
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Mirror and repaint the places, so that none was learned.")
    ] = False,
    bench: Annotated[
        Path | None, typer.Option(help="Folder of SANA-WM-Bench; its pictures along --tracks simple or hard.")
    ] = None,
    autoencoder: Annotated[
        Path | None, typer.Option(help="Folder with autoencoder.safetensors; default: beside the bundle.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets tables and contact sheets.")] = Path(
        "runs/eval"
    ),
    as_json: Json = False,
) -> None:
    """Roll worlds out and measure them: likeness by horizon, revisits, drift, camera."""
    names = None if metrics is None else tuple(metrics.replace(" ", "").split(","))
    subject = _open_subject(bundle, worlds, world, autoencoder)
    if bench is not None:
        from cli.bench_pictures import evaluate_pictures

        if tracks is TracksChoice.WALKS:
            raise ValueError("--bench goes with --tracks simple or --tracks hard, its two splits")
        evaluate_pictures(subject, bench, tracks.value, walks, seconds, names, output, as_json)
        return
    _evaluate_places(subject, tracks, walks, seconds, names, unseen, output, as_json)


@dataclass(frozen=True)
class Subject:
    """What is measured."""

    bundle: Bundle
    fitting: list[World]
    """All worlds made for its weights."""
    chosen: list[World]
    """Those that were asked for."""
    autoencoder: Autoencoder | None
    why_none: str = ""
    """Why there is no autoencoder."""

    def encoder(self) -> Autoencoder:
        """Return the autoencoder where there is no doing without."""
        if self.autoencoder is None:
            raise ValueError(
                f"a world that begins with a picture needs the encoder, but {self.why_none}; "
                "name its folder with --autoencoder"
            )
        return self.autoencoder


def _open_subject(
    bundle: str, worlds: Path | None, names: list[str] | None, autoencoder: Path | None
) -> Subject:
    with extra_needed("evaluating", "eval"):
        from evaluation.worlds import fitting_worlds, open_autoencoder
    opened = assets.find_bundle(bundle)
    folder = worlds or _beside(opened, "worlds") or assets.worlds_dir()
    fitting = fitting_worlds(opened.spec.weights_sha256, folder)
    chosen = [find_world(name, [folder]) for name in names or ()] or fitting
    if not fitting:
        raise ValueError(
            f"no world in {folder} was made for the weights of {opened.spec.name}; name their folder with --worlds"
        )
    if autoencoder is not None:
        return Subject(opened, fitting, chosen, open_autoencoder(autoencoder, opened.spec))
    beside = _beside(opened, "checkpoints")
    if beside is None:
        return Subject(opened, fitting, chosen, None, "no autoencoder lies beside the bundle")
    try:
        return Subject(opened, fitting, chosen, open_autoencoder(beside, opened.spec))
    except ValueError as error:
        return Subject(opened, fitting, chosen, None, str(error))


def _evaluate_places(
    subject: Subject,
    tracks: TracksChoice,
    walks: int,
    seconds: float,
    metrics: tuple[str, ...] | None,
    unseen: bool,
    output: Path,
    as_json: bool,
) -> None:
    from evaluation.evaluate import METRICS, EvaluationPlan, evaluate, track_maker
    from evaluation.rollouts import place_of
    from evaluation.scores import as_markdown
    from evaluation.worlds import reconstruct, unseen_worlds

    with extra_needed(f"{tracks.value} tracks", "eval"):
        lay_track = track_maker(tracks.value)
    if unseen:
        pairs = unseen_worlds(subject.chosen, subject.fitting, subject.encoder())
    else:
        pairs = [(world, place_of(world)) for world in subject.chosen]
    plan = EvaluationPlan(
        tracks=tracks.value,
        lay_track=lay_track,
        worlds=tuple(pairs),
        walks=walks,
        seconds=seconds,
        metrics=METRICS if metrics is None else metrics,
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
        report = evaluate(subject.bundle, plan, output, keep, bar, say)
    print_json(report.to_dict() | {"output": str(output)}) if as_json else print(as_markdown(report))


def _beside(bundle: Bundle, name: str) -> Path | None:
    """Find what was published with a bundle: `worlds` and `checkpoints` lie beside the folder of bundles."""
    folder = bundle.path.parent.parent / name
    return folder if folder.is_dir() else None
