"""`flaneur play`: walk through a world, in a window or without one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import (
    KEYS_OF_ACTIONS,
    Backend,
    BackendChoice,
    Engine,
    Frames,
    Fullscreen,
    Headless,
    Json,
    KeyMap,
    Video,
    World,
)

EXIT_USER_ERROR = 2


def register(root: typer.Typer) -> None:
    root.command(name="play")(play)


def play(
    world: World = None,
    engine: Engine = None,
    backend: Backend = BackendChoice.AUTO,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and walk give the same world.")] = 0,
    record: Annotated[Path | None, typer.Option(help="Record the walk to this .flaneur file.")] = None,
    record_latents: Annotated[
        bool,
        typer.Option(
            "--record-latents",
            help="Keep latents in it, to show the walk without the generator; a headless walk always does.",
        ),
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write each input's way to the picture, and all timing, to this .jsonl file."),
    ] = None,
    fullscreen: Fullscreen = False,
    headless: Headless = False,
    chunks: Annotated[
        int | None, typer.Option(min=1, help="Chunks to make; default: the whole track.")
    ] = None,
    actions: Annotated[
        str | None,
        typer.Option(
            help=f"Keys and for how many frames, such as w-48,aw-24,none-8: {KEYS_OF_ACTIONS}. They walk 0.4 m "
            "and turn 9.6 degrees a second, a quarter and a fifth of the window's pace."
        ),
    ] = None,
    poses: Annotated[Path | None, typer.Option(help="Track to walk: .npy, .npz, .txt or .flaneur.")] = None,
    key_map: KeyMap = "current",
    video: Video = None,
    frames: Frames = None,
    as_json: Json = False,
) -> int:
    """Walk through a generated world; without WORLD, choose one in the window.

    --chunks, --actions, --poses, --video, --frames and --json need --headless; --trace needs a window.
    """
    started_s = time.perf_counter()
    if record_latents and record is None:
        raise ValueError("--record-latents says what a recording holds; name one with --record")
    if not headless:
        needing = {"--chunks": chunks, "--actions": actions, "--poses": poses, "--video": video}
        needing |= {"--frames": frames, "--json": as_json or None}
        if used := [name for name, value in needing.items() if value is not None]:
            raise ValueError(f"{used[0]} is for a walk without a window; add --headless")
        from cli.window import open_window
        from client.setup.options import PlayOptions

        return open_window(
            PlayOptions(world, engine, backend.value, seed, record, record_latents, fullscreen, trace)
        )
    if trace is not None:
        raise ValueError(
            "--trace follows a player's input, and a headless walk has none; leave one of them out"
        )
    if fullscreen:
        raise ValueError("--fullscreen and --headless exclude each other; leave one of them out")
    if actions is not None and poses is not None:
        raise ValueError("--actions and --poses both give a track; leave one of them out")
    if actions is None and poses is None and chunks is None:
        raise ValueError("a headless walk needs a track (--actions or --poses), or --chunks to stand still")
    from cli.headless import Outputs, fit_track, open_walk, print_walk, standing_still, walk
    from engine.camera.actions import integrate_actions, parse_actions
    from engine.camera.actions import key_map as check_key_map
    from engine.camera.formats.track_files import load_track
    from engine.camera.tracks import Track

    # Everything that can be wrong with the track is said before the engine is opened, which takes a while.
    keys = None if actions is None else parse_actions(actions)
    check_key_map(key_map)
    track = standing_still() if poses is None else load_track(poses, version=key_map)
    session = open_walk(world, engine, backend.value)
    try:
        if keys is not None:
            track = Track(integrate_actions(keys, session.fps, key_map))
        outputs = Outputs(record, video, frames, key_map)
        result = walk(session, fit_track(session, track), chunks, seed, outputs, started_s)
    finally:
        session.close()
    print_walk(result, as_json)
    return EXIT_USER_ERROR if result.get("record_problem") else 0
