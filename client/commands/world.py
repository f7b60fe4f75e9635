"""`flaneur world`: the worlds there are."""

from __future__ import annotations

from typing import Annotated

import typer

from client.commands.choices import Json
from client.report import print_json, print_table

app = typer.Typer(help="List and show worlds.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="world")


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the worlds that can be walked through."""
    from engine.assets import worlds_dir
    from engine.world import list_worlds

    entries = list_worlds([worlds_dir()])
    if as_json:
        worlds = [
            {"name": entry.name, "title": entry.title, "path": str(entry.path)}
            | ({"problem": entry.problem} if entry.problem else {})
            for entry in entries
        ]
        print_json({"worlds": worlds})
        return
    if not entries:
        print(f"there are no worlds in {worlds_dir()}")
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        print(f"{entry.name:<{width}}  {entry.problem or entry.title}")


@app.command()
def show(
    world: Annotated[str, typer.Argument(help="Name of a world, or path of a .world file.")],
    as_json: Json = False,
) -> None:
    """Show what a world file says of itself."""
    from engine.assets import worlds_dir
    from engine.world import find_world

    found = find_world(world, [worlds_dir()])
    width, height = found.frame_size
    result = {
        **found.info.model_dump(),
        "path": str(found.path),
        "sha256": found.sha256,
        "frame_width": width,
        "frame_height": height,
        "latent_shape": list(found.first_latent.shape),
        "text_shape": list(found.text.shape),
        "intrinsics": [round(float(value), 4) for value in found.intrinsics],
        "c2w": found.c2w.tolist(),
    }
    print_json(result) if as_json else print_table(result)
