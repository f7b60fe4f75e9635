"""`flaneur bench-set`: a benchmark with a truth, and the videos that need no model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import Json, pixels
from cli.report import extra_needed, print_json, print_table, progress

app = typer.Typer(help="Make a benchmark with a truth, and its baselines.", no_args_is_help=True)
KINDS_OF_PLACES = 4


class Split(StrEnum):
    """Tracks of the benchmark."""

    SIMPLE = "simple"
    HARD = "hard"


class Baseline(StrEnum):
    """A video that needs no model."""

    TRUTH = "truth"
    FIRST_FRAME = "first-frame"
    REPROJECTED = "reprojected"


Scenes = Annotated[int, typer.Option(min=1, max=20, help="Scenes of each of the four categories.")]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="bench-set")


@app.callback()
def bench_set() -> None:
    """Make a benchmark with a truth, and its baselines."""


@app.command()
def make(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the benchmark.")],
    scenes: Scenes = 20,
    as_json: Json = False,
) -> None:
    """Write eighty scenes of generated places in SANA-WM-Bench's layout: pictures, captions, simple and hard tracks."""
    with extra_needed("laying tracks", "eval"):
        from evaluation.bench_set import make_bench_set
    with progress("making scenes", KINDS_OF_PLACES * scenes) as advance:
        count = make_bench_set(output, scenes, advance)
    result = {"scenes": count, "output": str(output)}
    print_json(result) if as_json else print_table(result)


@app.command()
def films(
    folder: Annotated[Path, typer.Argument(help="Folder of the benchmark.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the videos.")],
    of: Annotated[
        Baseline,
        typer.Option(help="What is truly seen, the first frame for ever, or the first frame reprojected."),
    ] = Baseline.TRUTH,
    tracks: Annotated[Split, typer.Option(help="Which tracks are followed.")] = Split.SIMPLE,
    scenes: Scenes = 20,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Length of a video.")] = 60.0,
    frame_size: Annotated[str, typer.Option(help="Width and height of the videos.")] = "320x192",
    as_json: Json = False,
) -> None:
    """Write the videos that need no model, for `flaneur eval --films`; those that are there stay."""
    from evaluation.bench_layout import first_of_each, read_bench
    from evaluation.bench_set import write_baselines

    chosen = first_of_each(read_bench(folder, tracks.value)[0], scenes)
    with progress("drawing videos", len(chosen)) as advance:
        written = write_baselines(chosen, of.value, output, pixels(frame_size), seconds, advance)
    result = {"videos": len(chosen), "written": written, "output": str(output)}
    print_json(result) if as_json else print_table(result)
