"""`flaneur replay`: walk a recording or a camera track again."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.choices import Backend, BackendChoice, Engine, Frames, Fullscreen, Headless, Json, Video
from client.report import print_json, say

if TYPE_CHECKING:
    from engine.recording import Recording

EXIT_DIFFERENT = 1
"""Exit status of a replay that does not verify."""


def register(root: typer.Typer) -> None:
    root.command(name="replay")(replay)


def replay(
    file: Annotated[Path, typer.Argument(help="A .flaneur recording, or a camera track: .npy, .npz, .txt.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Say whether the walk comes out bit for bit.")
    ] = False,
    world: Annotated[str | None, typer.Option(help="World to walk in; default: the recording's.")] = None,
    engine: Engine = None,
    backend: Backend = BackendChoice.AUTO,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the recording's, or 0.")] = None,
    fullscreen: Fullscreen = False,
    headless: Headless = False,
    video: Video = None,
    frames: Frames = None,
    as_json: Json = False,
) -> int:
    """Walk a recording or a camera track again.

    --verify, --video, --frames and --json open no window. --verify generates the recorded walk again and compares
    its latents: exit status 0 if they are identical, 1 if not.
    """
    started_s = time.perf_counter()
    if not (headless or verify or as_json or video or frames):
        from client.commands.window import open_window
        from client.options import PlayOptions

        return open_window(PlayOptions(world, engine, backend.value, seed or 0, None, fullscreen, file))
    from client.commands.headless import Outputs, fit_track, open_walk, print_walk, walk
    from engine.recording import read_recording
    from engine.recording_format import SUFFIX
    from engine.replay import Comparison, check_replayable
    from engine.tracks import load_track

    recording = read_recording(file, with_latents=verify) if file.suffix == SUFFIX else None
    if verify and recording is None:
        raise ValueError(f"only a {SUFFIX} recording can be verified, {file.name} is a camera track")
    track = load_track(file) if recording is None else recording.track()
    chosen = backend.value
    if recording is not None:
        _tell_if_cut(recording)
        world = world or _world_of(recording)
        seed = recording.header.seed if seed is None else seed
        if chosen == "auto" and engine is None and recording.header.backend == "holodeck":
            chosen = "holodeck"
    session = open_walk(world, engine, chosen)
    try:
        comparison = None
        if verify and recording is not None:
            check_replayable(recording, session)
            comparison = Comparison(recording)
        num_chunks = None if recording is None else len(recording.chunks)
        outputs = Outputs(video=video, frames=frames)
        result = walk(
            session, fit_track(session, track), num_chunks, seed or 0, outputs, started_s, comparison
        )
    finally:
        session.close()
    if comparison is None:
        print_walk(result, as_json)
        return 0
    report = comparison.report()
    if as_json:
        print_json(
            result
            | {"identical": report.identical, "first_different": report.first_different}
            | asdict(report)
        )
    else:
        print(report.sentence())
    return 0 if report.identical else EXIT_DIFFERENT


def _world_of(recording: Recording) -> str:
    from engine.assets import worlds_dir
    from engine.world import list_worlds

    name = recording.header.world
    if name not in [entry.name for entry in list_worlds([worlds_dir()])]:
        raise ValueError(
            f"the recording was made in the world {name}, which is not here; name its file with --world"
        )
    return name


def _tell_if_cut(recording: Recording) -> None:
    if not recording.complete:
        say(f"the recording was cut; its {len(recording.chunks)} whole chunks were recovered")
