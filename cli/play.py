"""`flaneur play`: walk through a world, in a window or without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    Overwrite,
    Provider,
    ProviderChoice,
    Refiner,
    RefinerChoice,
    Video,
    Weights,
    World,
)

if TYPE_CHECKING:
    from engine.camera.tracks import Track

EXIT_USER_ERROR = 2
Seed = Annotated[int, typer.Option(min=0, help="The same seed and walk give the same world.")]
Record = Annotated[Path | None, typer.Option(help="Record the walk to this .flaneur file.")]
RecordLatents = Annotated[
    bool,
    typer.Option(
        "--record-latents",
        help="Keep latents in it, to show the walk without the generator; a headless walk always does.",
    ),
]
Trace = Annotated[
    Path | None,
    typer.Option(help="Write each input's way to the picture, and all timing, to this .jsonl file."),
]
Chunks = Annotated[int | None, typer.Option(min=1, help="Chunks to make; default: the whole track.")]
Actions = Annotated[
    str | None,
    typer.Option(
        help=f"Keys and for how many frames, such as w-48,aw-24,none-8: {KEYS_OF_ACTIONS}. They walk 0.4 m "
        "and turn 9.6 degrees a second, a quarter and a fifth of the window's pace."
    ),
]
Poses = Annotated[Path | None, typer.Option(help="Track to walk: .npy, .npz, .txt or .flaneur.")]


def register(root: typer.Typer) -> None:
    root.command(name="play")(play)


def play(
    world: World = None,
    engine: Engine = None,
    backend: Backend = BackendChoice.AUTO,
    provider: Provider = ProviderChoice.AUTO,
    weights: Weights = None,
    refiner: Refiner = RefinerChoice.AUTO,
    seed: Seed = 0,
    record: Record = None,
    record_latents: RecordLatents = False,
    trace: Trace = None,
    fullscreen: Fullscreen = False,
    headless: Headless = False,
    chunks: Chunks = None,
    actions: Actions = None,
    poses: Poses = None,
    key_map: KeyMap = "current",
    video: Video = None,
    frames: Frames = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Walk through a generated world; without WORLD, choose one in the window.

    --chunks, --actions, --poses, --video, --frames and --json need --headless; --trace needs a window.
    """
    started_s = time.perf_counter()
    from engine.session.opening import EngineRequest

    request = EngineRequest(engine, backend.value, provider.value, weights)
    if record_latents and record is None:
        raise ValueError("--record-latents says what a recording holds; name one with --record")
    if headless:
        _check_headless(trace, fullscreen, any(value is not None for value in (actions, poses, chunks)))
        # Everything that can be wrong with the track is said before the engine is opened, which takes a while.
        track_at = _read_track(actions, poses, key_map)
        from cli.walks import fit_track, open_walk, print_walk, walk
        from engine.session.walk_files import Outputs, WalkRequest

        outputs = Outputs(record, video, frames, key_map, overwrite)
        outputs.check()
        with closing(open_walk(world, request, refiner=refiner.value)) as session:
            track = fit_track(session, track_at(session.fps))
            result = walk(session, WalkRequest(track, seed, outputs, chunks), started_s)
        print_walk(result, as_json)
        return EXIT_USER_ERROR if result.get("record_problem") else 0
    headless_only = {"--chunks": chunks, "--actions": actions, "--poses": poses, "--video": video}
    _check_windowed(headless_only | {"--frames": frames, "--json": as_json or None})
    from cli.walks import open_window
    from client.setup.options import PlayOptions

    options = PlayOptions(
        world, engine, backend.value, seed, record, record_latents, overwrite, fullscreen, trace
    )
    return open_window(replace(options, provider=provider.value, weights=weights, refiner=refiner.value))


def _check_windowed(headless_only: Mapping[str, object]) -> None:
    if used := [name for name, value in headless_only.items() if value is not None]:
        raise ValueError(f"{used[0]} is for a walk without a window; add --headless")


def _check_headless(trace: Path | None, fullscreen: bool, has_length: bool) -> None:
    """Refuse what a walk without a window cannot do."""
    if trace is not None:
        raise ValueError(
            "--trace follows a player's input, and a headless walk has none; leave one of them out"
        )
    if fullscreen:
        raise ValueError("--fullscreen and --headless exclude each other; leave one of them out")
    if not has_length:
        raise ValueError("a headless walk needs a track (--actions or --poses), or --chunks to stand still")


def _read_track(actions: str | None, poses: Path | None, key_map: str) -> Callable[[float], Track]:
    """Read where a walk goes; returns its track at a frame rate, standing still where none is given."""
    import numpy as np

    from engine.camera import actions as action_strings
    from engine.camera.formats.track_files import load_track
    from engine.camera.tracks import Track

    if actions is not None and poses is not None:
        raise ValueError("--actions and --poses both give a track; leave one of them out")
    keys = None if actions is None else action_strings.parse_actions(actions)
    action_strings.key_map(key_map)
    track = Track(np.eye(4)[None]) if poses is None else load_track(poses, version=key_map)
    if keys is None:
        return lambda _fps: track
    return lambda fps: Track(action_strings.integrate_actions(keys, fps, key_map))
