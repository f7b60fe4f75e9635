"""`flaneur world`: the worlds there are, and new ones from photos."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import Json, Overwrite, known_folders, own_worlds_folder
from cli.report import extra_needed, print_json, print_table, say
from engine.files.atomic import check_new_file

if TYPE_CHECKING:
    from engine.files.bundle import Bundle
    from engine.files.world import World

app = typer.Typer(help="Create, list, show, rename and delete worlds.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="world")


RELEASED_WEIGHTS = Path("weights/sana-wm")


class WorldModelName(StrEnum):
    """Models that worlds can be made for from a photo."""

    SANA_WM = "sana-wm"
    POCKET = "pocket"


class Surroundings(StrEnum):
    """What a world of a photo knows beyond the photo."""

    MIRRORED = "mirrored"
    NONE = "none"


Photo = Annotated[Path | None, typer.Argument(help="Picture that the walk begins with, of any common kind.")]
Prompt = Annotated[
    str | None, typer.Option(help="What the place is, in a sentence or two; sana-wm needs it.")
]
Keyframes = Annotated[
    Path | None,
    typer.Option(
        help="Make a spatial memory of posed RGB-D pictures: a folder with transforms.json, or an .npz."
    ),
]
TextOf = Annotated[
    str | None, typer.Option(help="World whose text a world of the pocket takes; default: none.")
]
Weights = Annotated[
    Path,
    typer.Option(help="Folder of released weights: vae/, gemma-2-2b-it/, config.yaml, dit/ or sana_dit/."),
]
Model = Annotated[
    WorldModelName | None,
    typer.Option(
        help="Model the world is for, where no --engine says so; default: sana-wm where its weights are, else the pocket."
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Bundle the world is for; one with an encoder makes it without PyTorch. Otherwise the weights are read."
    ),
]
Fov = Annotated[
    float | None,
    typer.Option(help="Horizontal field of view, degrees, 25 to 120; default: 60, with an encoder 75."),
]
Intrinsics = Annotated[
    Path | None, typer.Option(help="Camera of the photo instead: fx fy cx cy in pixels, .txt or .npy.")
]
SurroundingsOption = Annotated[
    Surroundings,
    typer.Option(help="What is around a photo: its mirror images, or nothing but what the model invents."),
]
Refiner = Annotated[
    Path | None,
    typer.Option(help="Encode the prompt for the second stage too: the release's refiner folder."),
]
Title = Annotated[str | None, typer.Option(help="Title in the menus; default: the file's name.")]
Licence = Annotated[str, typer.Option(help="Licence of the photo.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Default: NAME.world here.")]


@app.command()
def create(
    photo: Photo = None,
    prompt: Prompt = None,
    keyframes: Keyframes = None,
    text_of: TextOf = None,
    weights: Weights = RELEASED_WEIGHTS,
    model: Model = None,
    engine: Engine = None,
    fov: Fov = None,
    intrinsics: Intrinsics = None,
    surroundings: SurroundingsOption = Surroundings.MIRRORED,
    refiner: Refiner = None,
    title: Title = None,
    licence: Licence = "not stated",
    output: Output = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a world from a photo and a prompt, or of posed RGB-D pictures; playing it needs neither PyTorch nor encoders."""
    if (photo is None) == (keyframes is None):
        raise ValueError("name one photo, or posed pictures with --keyframes")
    if fov is not None and intrinsics is not None:
        raise ValueError("--fov and --intrinsics both describe the camera; leave one of them out")
    from engine.files.world import SUFFIX, title_of, world_name, write_world
    from engine.machine.assets import find_bundle

    source = photo or keyframes
    assert source is not None
    stem = source.resolve().stem
    output = output or Path(f"{world_name(stem)}{SUFFIX}")
    title = title or title_of(stem if output.stem == world_name(stem) else output.stem)
    check_new_file(output, SUFFIX, "world", overwrite)
    engine = engine or _shipped_engine(model, weights, keyframes is not None)
    bundle = None if engine is None else find_bundle(engine)
    if bundle is not None and (keyframes is not None or bundle.spec.encoder_graph is not None):
        if intrinsics is not None or refiner is not None:
            raise ValueError("--intrinsics and --refiner are for worlds of sana-wm; leave them out")
        name = world_name(output.stem)
        details = {"name": name, "title": title, "licence": licence, "caption": prompt or ""}
        write_world(
            output, _remembered(source, keyframes is not None, bundle, details, text_of, fov, surroundings)
        )
        _print_made(output, as_json)
        return
    if photo is None or prompt is None:
        raise ValueError("a world of sana-wm needs a prompt; add --prompt and what the place is")
    with extra_needed("making a world", "worlds"):
        from export.world import WorldRequest, create_world, hash_released, released_config

    config = released_config(None if bundle is None else bundle.spec.model)
    request = WorldRequest(photo, prompt, world_name(output.stem), title, licence, fov, intrinsics, refiner)
    hash_weights = (
        (lambda: hash_released(weights)) if bundle is None else (lambda: bundle.spec.weights_sha256)
    )
    write_world(output, create_world(request, weights, config, hash_weights, say))
    _print_made(output, as_json)


def _shipped_engine(model: WorldModelName | None, weights: Path, is_posed: bool) -> str | None:
    """Name the shipped bundle that a world is for; None is a world of the released weights."""
    if model is None:
        is_released = weights != RELEASED_WEIGHTS or weights.is_dir()
        model = WorldModelName.SANA_WM if is_released else WorldModelName.POCKET
    return WorldModelName.POCKET.value if is_posed or model is WorldModelName.POCKET else None


def _remembered(
    source: Path,
    posed: bool,
    bundle: Bundle,
    details: dict[str, str],
    text_of: str | None,
    fov: float | None,
    surroundings: Surroundings,
) -> World:
    """Make a world with a spatial memory, of posed pictures or of a photo."""
    from engine.files.pictures import read_rgb
    from engine.files.posed_pictures import read_posed_pictures
    from engine.files.world import described, find_world
    from engine.session import picture_world

    spec = bundle.spec
    encoder = picture_world.open_encoder(bundle)
    text = picture_world.no_text(spec)
    if text_of is not None:
        other = find_world(text_of, known_folders(), checked=False)
        if other.info.model != spec.weights_sha256:
            raise ValueError(
                f"the world {other.name} was made for another model; name one made for {spec.name}"
            )
        text = other.text, other.text_mask
    info = described(**details, model=spec.weights_sha256)
    angle = picture_world.DEFAULT_FOV_DEG if fov is None else fov
    if posed:
        keyframes = read_posed_pictures(source)
        return picture_world.world_of_keyframes(info, spec, encoder, keyframes, text, angle)
    depth_of, mirrored = picture_world.depth_teller(bundle), surroundings is Surroundings.MIRRORED
    return picture_world.world_of_photo(
        info, spec, encoder, read_rgb(source), text, angle, depth_of, mirrored
    )


def _print_made(output: Path, as_json: bool) -> None:
    from engine.files.world import read_world

    made = read_world(output)
    result: dict[str, Any] = {
        "path": str(output),
        "name": made.name,
        "title": made.title,
        "sha256": made.sha256,
    }
    if made.keyframes:
        result["num_keyframes"] = len(made.keyframes)
    print_json(result) if as_json else print_table(result)


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the worlds that can be walked through: those that are shipped, and your own."""
    from engine.files.world import list_worlds

    folders, own = known_folders(), own_worlds_folder()
    entries = list_worlds(folders)
    if as_json:
        worlds = [
            {"name": entry.name, "title": entry.title, "path": str(entry.path)}
            | ({"own": True} if entry.path.parent == own else {})
            | ({"num_keyframes": entry.num_keyframes} if entry.num_keyframes else {})
            | ({"problem": entry.problem} if entry.problem else {})
            for entry in entries
        ]
        print_json({"worlds": worlds})
        return
    if not entries:
        print(f"there are no worlds in {' or '.join(map(str, folders))}")
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        memory = f", {entry.num_keyframes} keyframes" if entry.num_keyframes else ""
        yours = ", your own" if entry.path.parent == own else ""
        print(f"{entry.name:<{width}}  {entry.problem or entry.title}{memory}{yours}")


@app.command()
def rename(
    world: Annotated[str, typer.Argument(help="Name of a world of your own, or path of a .world file.")],
    name: Annotated[str, typer.Argument(help="Its new name.")],
    as_json: Json = False,
) -> None:
    """Give a world of your own another name, which is its title then; what was saved in it stays."""
    from engine.files.own_worlds import own_world_file, rename_world

    folders = known_folders()
    path = rename_world(own_world_file(world, folders), name, folders)
    result = {"name": path.stem, "path": str(path)}
    print_json(result) if as_json else print_table(result)


@app.command()
def delete(
    world: Annotated[str, typer.Argument(help="Name of a world of your own, or path of a .world file.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a world of your own, for good; recordings and saved walks of it stay where they are."""
    from engine.files.own_worlds import delete_world, own_world_file

    path = own_world_file(world, known_folders())
    if not yes and not typer.confirm(f"delete {path} for good?"):
        raise ValueError(f"{path} was not deleted; say yes, or give --yes")
    delete_world(path)
    result = {"deleted": str(path)}
    print_json(result) if as_json else print_table(result)


@app.command()
def show(
    world: Annotated[str, typer.Argument(help="Name of a world, or path of a .world file.")],
    as_json: Json = False,
) -> None:
    """Show what a world file says of itself, and what its spatial memory holds."""
    from engine.files.world import find_world, memory_bytes
    from engine.machine.assets import shipped_refiner

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
        "refiner": shipped_refiner(found.info.model),
        "intrinsics": [round(float(value), 4) for value in found.intrinsics],
        "c2w": found.c2w.tolist(),
    }
    if not found.keyframes:
        print_json(result) if as_json else print_table(result)
        return
    from engine.memory.summary import summarize

    memory = summarize(found.keyframes)
    stored = memory_bytes(found.path) if found.path else 0
    if as_json:
        numbers = {name: value for name, value in vars(memory).items() if name != "map"}
        print_json(result | {"memory": numbers | {"stored_bytes": stored}})
        return
    sizes = ", ".join(f"{count} of {size}" for size, count in memory.sizes.items())
    result["memory"] = (
        f"{memory.num_keyframes} keyframes ({sizes}) from {memory.num_positions} places, "
        f"{stored / 1e6:.1f} MB, {memory.area_m2:.0f} m2 of surfaces seen from above"
    )
    print_table(result)
    print()
    print(memory.map)
