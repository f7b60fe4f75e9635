"""`flaneur data`: clips to train on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.annotate import annotate
from cli.arguments import Json, Overwrite
from cli.report import extra_needed, print_json, print_table, progress, say
from engine.files.atomic import check_absent

if TYPE_CHECKING:
    from training.data.sets import SetSummary

app = typer.Typer(help="Make, annotate, encode and look at clips to train on.", no_args_is_help=True)
NAMED_LEFT_OUT = 20
"""Clips that are named when they are left out; the rest is counted."""
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the set.")]
Weights = Annotated[Path | None, typer.Option(help="Folder with the autoencoder; default: the shipped one.")]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="data")


app.command()(annotate)


@app.callback()
def data() -> None:
    """Make, annotate, encode and look at clips to train on."""


@app.command()
def make(
    output: Output,
    places: Annotated[
        str,
        typer.Option(
            help="Holodeck places, with commas between them; also generated-SEED and generated-100..199."
        ),
    ] = "all",
    families: Annotated[
        str,
        typer.Option(
            help="Camera families: orbit, spiral, dolly, fly-through, walk, look-around, crane, pendulum, compound."
        ),
    ] = "all",
    clips: Annotated[int, typer.Option(min=1, max=1_000_000, help="Clips in all.")] = 36,
    frames: Annotated[int, typer.Option(min=5, max=9601, help="Frames of a clip, at 16 a second.")] = 161,
    revisits: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of clips that come back the way they went.")
    ] = 0.5,
    most_empty: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of a frame's tiles that are empty, above which it is nearly blank; the paper's is 0.65.",
        ),
    ] = 0.8,
    seed: Annotated[int, typer.Option(min=0, max=80_000, help="Seed of the first clip.")] = 0,
    autoencoder: Weights = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG that shows the clips.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw clips of holodeck places and write them in SANA-WM's training format."""
    with extra_needed("making clips", "data"):
        from training.data import sets
        from training.data.latents import load_autoencoder
    from engine.machine import assets

    check_absent(sheet, overwrite)
    jobs = sets.plan_holodeck_set(places, families, clips, frames, revisits, seed)
    weights = load_autoencoder(autoencoder or assets.checkpoints_dir())
    output.mkdir(parents=True, exist_ok=True)
    with progress("drawing clips", len(jobs)) as advance:
        summary = sets.make_holodeck_set(output, jobs, weights, advance, most_empty)
    if sheet is not None:
        out = {item.name for item in summary.left_out}
        sets.write_sheet(sheet, [job for job in jobs if job.label not in out], output / sets.RENDERED_FOLDER)
    _report(summary, as_json)


@app.command()
def encode(
    folder: Annotated[Path, typer.Argument(help="Folder of videos or pictures with poses beside them.")],
    output: Output,
    width: Annotated[int, typer.Option(min=16, max=4096, help="Of the clips, pixels.")] = 160,
    height: Annotated[int, typer.Option(min=16, max=4096, help="Of the clips, pixels.")] = 96,
    fps: Annotated[float, typer.Option(min=1.0, max=240.0, help="Frame rate of the clips.")] = 16.0,
    frames: Annotated[int, typer.Option(min=17, max=9601, help="Longest clip.")] = 961,
    overlap: Annotated[int, typer.Option(min=0, help="Frames a clip shares with the one before.")] = 0,
    metres_per_unit: Annotated[
        float, typer.Option(min=1e-6, max=1e6, help="Length of the unit that the poses are in.")
    ] = 1.0,
    autoencoder: Weights = None,
    as_json: Json = False,
) -> None:
    """Encode videos with poses, each once; a second call goes on where the first stopped."""
    with extra_needed("encoding videos", "data"):
        from training.data import sets
        from training.data.latents import load_autoencoder
        from training.data.videos.folder import VideoOptions
    from engine.machine import assets

    options = VideoOptions((width, height), fps, frames, overlap=overlap, metres_per_unit=metres_per_unit)
    weights = load_autoencoder(autoencoder or assets.checkpoints_dir())
    with progress("encoding clips", None) as advance:
        summary, encoded = sets.encode_videos(folder, output, options, weights, advance)
    _report(summary, as_json, {"encoded_now": encoded})


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a set.")],
    as_json: Json = False,
) -> None:
    """Read every clip of a set, and say what is in it and what cannot be used."""
    with extra_needed("reading clips", "data"):
        from training.data import sets
        from training.data.clip import readable
    left_out: list[Any] = []
    source = sets.open_set(folder)
    _report(sets.summarise(readable(source, left_out), left_out), as_json)


def _report(summary: SetSummary, as_json: bool, more: dict[str, Any] | None = None) -> None:
    from training.data.clip import count_left_out

    for item in summary.left_out[:NAMED_LEFT_OUT]:
        say(f"left out: {item.reason}")
    if (hidden := len(summary.left_out) - NAMED_LEFT_OUT) > 0:
        say(f"left out: {hidden} more")
    result = asdict(summary) | count_left_out(summary.left_out) | (more or {})
    result |= {"seconds": round(summary.seconds, 2), "metres": round(summary.metres, 2)}
    if as_json:
        print_json(result)
        return
    result["scenes"] = ", ".join(f"{scene} {count}" for scene, count in summary.scenes.items())
    del result["left_out"]
    print_table({name: str(value) for name, value in result.items()})
