"""`flaneur track`: camera tracks from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import KEYS_OF_ACTIONS, Json, KeyMap, Overwrite
from cli.report import print_json, print_table

app = typer.Typer(help="Convert camera tracks.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="track")


@app.callback()
def track() -> None:
    """Convert camera tracks."""


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A .npy, .npz or .flaneur file, poses as text (TUM, EuRoC, KITTI), nerfstudio's .json, a COLMAP model's folder, "
            f"or an action string like w-48,aw-24 ({KEYS_OF_ACTIONS})."
        ),
    ],
    destination: Annotated[str, typer.Argument(help="File to write: .npy, .npz or .txt (an action string).")],
    key_map: KeyMap = "current",
    fps: Annotated[float, typer.Option(min=1.0, max=1000.0, help="Frame rate of action strings.")] = 16.0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a camera track: poses [F, 4, 4] and SANA action strings into one another; what other programs write into those."""
    from engine.camera.formats.track_files import convert as convert_track
    from engine.files.atomic import check_absent

    check_absent(Path(destination), overwrite)
    track = convert_track(source, destination, fps, key_map)
    result = {
        "source": source,
        "destination": destination,
        "num_frames": track.num_frames,
        "fps": track.fps,
        "has_intrinsics": track.intrinsics is not None,
    }
    print_json(result) if as_json else print_table(result)
