"""What `play`, `replay` and `bench` share: opening a session or the window, walking, printing a walk's numbers."""

from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING, Any

from cli.arguments import known_folders
from cli.report import print_json, print_table, progress, say_error
from client.setup.options import PlayOptions

if TYPE_CHECKING:
    from engine.camera.tracks import Track
    from engine.session.opening import EngineRequest, RefinerMode
    from engine.session.protocol import Session
    from engine.session.replay import Comparison
    from engine.session.walk_files import WalkRequest
    from engine.types import CameraTrack, FrameChunk


def open_window(options: PlayOptions) -> int:
    """Open the window and stay until the player leaves; returns the exit status."""
    from engine.errors import BackendUnavailable
    from engine.machine.doctor import check_display

    # Asked here, since SDL's libraries complain on stderr before they give up. A driver chosen by hand is tried.
    if "SDL_VIDEODRIVER" not in os.environ and check_display(os.environ, sys.platform).status != "ok":
        raise BackendUnavailable(
            "there is no display to open a window on; use --headless, or set DISPLAY to one"
        )
    from client.app import run

    for problem in run(options):
        say_error(problem)
    return 0


def open_walk(
    world: str | None, request: EngineRequest, keep_latents: bool = True, refiner: RefinerMode = "off"
) -> Session:
    """Open a session on a world, the first of the shipped ones by default."""
    from engine.machine import assets
    from engine.session.generated_world import default_world, find_any_world
    from engine.session.opening import check_request, open_session

    check_request(request)
    found = find_any_world(world or str(default_world()), known_folders())
    bundle = None
    if request.engine is not None and request.weights is None:
        bundle = assets.find_bundle(request.engine)
    return open_session(
        found,
        bundle,
        request.backend,
        weights=request.weights,
        provider=request.provider,
        keep_latents=keep_latents,
        refiner=refiner,
    )


def fit_track(session: Session, track: Track) -> CameraTrack:
    """Return a track as the session's world sees it: at its rate, from its start, with its intrinsics."""
    from engine.camera.tracks import at_fps
    from engine.session.headless import place_track

    return place_track(at_fps(track, session.fps), session.world)


def walk(
    session: Session, request: WalkRequest, started_s: float, comparison: Comparison | None = None
) -> dict[str, Any]:
    """Walk behind a progress bar; returns the numbers that `--json` promises.

    Args:
        started_s: When the command began, on the clock of time.perf_counter.
        comparison: Told of every chunk.
    """
    from engine.session.walk_files import write_walk

    with progress(f"walking through {session.world.name}", request.length(session)) as bar:
        done = itertools.count(1)

        def on_chunk(chunk: FrameChunk) -> None:
            bar(next(done))
            if comparison is not None:
                comparison.take(chunk.latents_sha256, chunk.latents)

        return write_walk(session, request, started_s, on_chunk, say_error)


def print_walk(result: dict[str, Any], as_json: bool) -> None:
    """Print the numbers of a walk."""
    if as_json:
        print_json(result)
        return
    factor, chunk_ms = result["realtime_factor"], result["chunk_ms"]
    print_table(
        {name: result[name] for name in ("world", "engine", "backend", "seed", "num_chunks", "num_frames")}
        | {
            "first_frame": f"{result['first_frame_s']:.2f} s after the start",
            "realtime_factor": "" if factor is None else f"{factor:.2f}",
            "chunk": f"{chunk_ms['p50']:.1f} ms, 95 % within {chunk_ms['p95']:.1f} ms",
            "frames": result["frames_path"],
            "video": result["video_path"],
            "recording": result.get("record_path"),
        }
    )
