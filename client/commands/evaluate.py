"""`flaneur eval`: how good a bundle's worlds are, against the truth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.choices import Json
from client.commands.extras import extra_needed
from client.report import print_json, progress, say
from engine import assets

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from engine.world import World
    from evaluation.rollouts import TrackMaker
    from model.autoencoder import Autoencoder


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
        typer.Option(help="Of psnr,ssim,gmsd,flip,lpips,revisit,drift,camera, with commas; default: all."),
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Mirror and repaint the places, so that none was learned.")
    ] = False,
    autoencoder: Annotated[
        Path | None, typer.Option(help="Folder with autoencoder.safetensors; default: beside the bundle.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets tables and contact sheets.")] = Path(
        "runs/eval"
    ),
    as_json: Json = False,
) -> None:
    """Roll worlds out and measure them: likeness by horizon, revisits, drift, camera."""
    with extra_needed("evaluating", "eval"):
        from evaluation.ceiling import reconstruct
        from evaluation.evaluating import METRICS, EvaluationPlan, evaluate
        from evaluation.rollouts import place_of
        from evaluation.table import as_markdown
        from evaluation.unseen import unseen_worlds

        lay_track = _track_maker(tracks)
    opened = assets.find_bundle(bundle)
    folder = worlds or _beside(opened, "worlds") or assets.worlds_dir()
    fitting, chosen = _worlds(opened, folder, world)
    keeper = _autoencoder(opened, autoencoder)
    if unseen and keeper is None:
        raise ValueError(
            "unseen places begin with an encoded picture; name the encoder's folder with --autoencoder"
        )
    pairs = (
        unseen_worlds(chosen, fitting, keeper)
        if unseen and keeper is not None
        else [(each, place_of(each)) for each in chosen]
    )
    plan = EvaluationPlan(
        tracks=tracks.value,
        lay_track=lay_track,
        worlds=tuple(pairs),
        walks=walks,
        seconds=seconds,
        metrics=METRICS if metrics is None else tuple(metrics.replace(" ", "").split(",")),
        places="unseen" if unseen else "learned",
    )
    if keeper is None:
        say(
            "there is no autoencoder beside the bundle, so its ceiling is not measured; name one with --autoencoder"
        )
    spec = opened.spec
    with progress("measuring", plan.num_steps(spec.fps, spec.frames_per_chunk)) as bar:
        report = evaluate(
            opened, plan, output, None if keeper is None else lambda f: reconstruct(keeper, f), bar, say
        )
    print_json(report.to_dict() | {"output": str(output)}) if as_json else print(as_markdown(report))


def _track_maker(tracks: TracksChoice) -> TrackMaker:
    if tracks is TracksChoice.WALKS:
        from training.data.walks import walk

        return walk
    from evaluation.benchmark_tracks import hard_track, simple_track

    return simple_track if tracks is TracksChoice.SIMPLE else hard_track


def _beside(bundle: Bundle, name: str) -> Path | None:
    """Find what was published with a bundle: `worlds` and `checkpoints` lie beside the folder of bundles."""
    folder = bundle.path.parent.parent / name
    return folder if folder.is_dir() else None


def _worlds(bundle: Bundle, folder: Path, names: list[str] | None) -> tuple[list[World], list[World]]:
    """Return all worlds of a folder that fit a bundle and have a truth, and those that were asked for."""
    from engine.world import find_world
    from training.scenes import fitting_worlds

    fitting = [w for w in fitting_worlds(bundle.spec.weights_sha256, folder) if w.place is not None]
    chosen = [find_world(name, [folder]) for name in names or ()] or fitting
    if not chosen:
        raise ValueError(
            f"no world in {folder} was made for the weights of {bundle.spec.name}; name their folder with --worlds"
        )
    return fitting or chosen, chosen


def _autoencoder(bundle: Bundle, folder: Path | None) -> Autoencoder | None:
    from training.pocket import load_autoencoder

    folder = folder or _beside(bundle, "checkpoints")
    return None if folder is None else load_autoencoder(folder)
