"""`flaneur describe`: what a photo, a clip, a recording, a saved walk or a world says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import Json
from cli.report import print_json, print_table


def register(root: typer.Typer) -> None:
    root.command(name="describe")(describe)


def describe(
    file: Annotated[
        Path, typer.Argument(help="A photo .png, a clip .mp4, a .flaneur recording, a .state or a .world.")
    ],
    as_json: Json = False,
) -> None:
    """Say where, with what and from which seed a file was made: world, pose, engine, version.

    Poses are a place in metres and yaw (right), pitch (up) and roll (leaning
    right) in degrees; --json keeps the camera-to-world matrix. A start
    place and view are where a clip begins, or where the world of a
    recording does.
    """
    from client.playback.captures import describe_capture, readable

    result = describe_capture(file)
    print_json(result) if as_json else print_table(readable(result))
