"""`flaneur world`: the worlds there are, and new ones from photos."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import Json, known_folders
from cli.report import extra_needed, print_json, print_table, say
from engine.files.atomic import check_new_file

app = typer.Typer(help="Create, list and show worlds.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="world")


class WorldModelName(StrEnum):
    """Models that worlds can be made for from a photo."""

    SANA_WM = "sana-wm"


@app.command()
def create(
    photo: Annotated[Path, typer.Argument(help="Picture that the walk begins with: JPEG, PNG, WebP.")],
    prompt: Annotated[str, typer.Option(help="What the place is, in a sentence or two.")],
    weights: Annotated[
        Path,
        typer.Option(
            help="Folder of released weights: vae/, gemma-2-2b-it/, config.yaml, dit/ or sana_dit/."
        ),
    ] = Path("weights/sana-wm"),
    model: Annotated[
        WorldModelName, typer.Option(help="Model the world is for; pocket worlds come out of training.")
    ] = WorldModelName.SANA_WM,
    engine: Annotated[
        str | None, typer.Option(help="Bundle the world is for; otherwise the weights themselves are read.")
    ] = None,
    fov: Annotated[
        float | None,
        typer.Option(help="Horizontal field of view of the photo, degrees, 25 to 120; default: 60."),
    ] = None,
    intrinsics: Annotated[
        Path | None, typer.Option(help="Camera of the photo instead: fx fy cx cy in pixels, .txt or .npy.")
    ] = None,
    refiner: Annotated[
        Path | None,
        typer.Option(help="Encode the prompt for the second stage too: the release's refiner folder."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title in the menus; default: the file's name.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the photo.")] = "not stated",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: NAME.world here.")] = None,
    as_json: Json = False,
) -> None:
    """Make a world from a photo and a prompt; playing it needs neither PyTorch nor the text encoder."""
    if fov is not None and intrinsics is not None:
        raise ValueError("--fov and --intrinsics both describe the camera; leave one of them out")
    from engine.files.world import SUFFIX, read_world, title_of, world_name, write_world
    from engine.machine.assets import find_bundle

    output = output or Path(f"{world_name(photo.stem)}{SUFFIX}")
    title = title or title_of(photo.stem if output.stem == world_name(photo.stem) else output.stem)
    check_new_file(output, SUFFIX, "world")
    with extra_needed("making a world", "worlds"):
        from export.world import WorldRequest, create_world, hash_released, released_config

    bundle = None if engine is None else find_bundle(engine)
    config = released_config(None if bundle is None else bundle.spec.model)
    request = WorldRequest(photo, prompt, world_name(output.stem), title, licence, fov, intrinsics, refiner)
    hash_weights = (
        (lambda: hash_released(weights)) if bundle is None else (lambda: bundle.spec.weights_sha256)
    )
    write_world(output, create_world(request, weights, config, hash_weights, say))
    made = read_world(output)
    result = {"path": str(output), "name": made.name, "title": made.title, "sha256": made.sha256}
    print_json(result) if as_json else print_table(result)


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the worlds that can be walked through: those that are shipped, and your own."""
    from engine.files.world import list_worlds

    folders = known_folders()
    entries = list_worlds(folders)
    if as_json:
        worlds = [
            {"name": entry.name, "title": entry.title, "path": str(entry.path)}
            | ({"problem": entry.problem} if entry.problem else {})
            for entry in entries
        ]
        print_json({"worlds": worlds})
        return
    if not entries:
        print(f"there are no worlds in {' or '.join(map(str, folders))}")
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        print(f"{entry.name:<{width}}  {entry.problem or entry.title}")


@app.command()
def show(
    world: Annotated[str, typer.Argument(help="Name of a world, or path of a .world file.")],
    as_json: Json = False,
) -> None:
    """Show what a world file says of itself."""
    from engine.files.world import find_world

    found = find_world(world, known_folders())
    width, height = found.frame_size
    result = {
        **found.info.model_dump(),
        "path": str(found.path),
        "sha256": found.sha256,
        "frame_width": width,
        "frame_height": height,
        "latent_shape": list(found.first_latent.shape),
        "text_shape": list(found.text.shape),
        "refiner_text_shape": None if found.refiner_text is None else list(found.refiner_text.shape),
        "intrinsics": [round(float(value), 4) for value in found.intrinsics],
        "c2w": found.c2w.tolist(),
    }
    print_json(result) if as_json else print_table(result)
