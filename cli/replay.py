"""`flaneur replay`: walk a recording or a camera track again."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import (
    Backend,
    BackendChoice,
    Engine,
    Frames,
    Fullscreen,
    Headless,
    Json,
    Overwrite,
    Provider,
    ProviderChoice,
    Video,
    Weights,
    known_folders,
)
from cli.report import print_json, say

if TYPE_CHECKING:
    from engine.files.recording import Recording
    from engine.session.opening import EngineRequest
    from engine.session.walk_files import Outputs

EXIT_DIFFERENT = 1
"""Exit status of a replay that does not verify."""


def register(root: typer.Typer) -> None:
    root.command(name="replay")(replay)


File = Annotated[
    Path,
    typer.Argument(
        help="A .flaneur recording, a clip (.mp4) beside its own, or a camera track: .npy, .npz, .txt."
    ),
]
Verify = Annotated[bool, typer.Option("--verify", help="Say whether the walk comes out bit for bit.")]
FromLatents = Annotated[
    bool, typer.Option("--from-latents", help="Decode the recorded latents; nothing is generated.")
]
World = Annotated[
    str | None,
    typer.Option(help="World to walk in; default: the recording's, for a track the first of the shipped."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Default: the recording's, or 0.")]


def replay(
    file: File,
    verify: Verify = False,
    from_latents: FromLatents = False,
    world: World = None,
    engine: Engine = None,
    backend: Backend = BackendChoice.AUTO,
    provider: Provider = ProviderChoice.AUTO,
    weights: Weights = None,
    seed: Seed = None,
    fullscreen: Fullscreen = False,
    headless: Headless = False,
    video: Video = None,
    frames: Frames = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Walk a recording or a camera track again.

    --verify, --from-latents, --video, --frames and --json open no window.
    --verify generates the recorded walk again and compares its latents: exit
    status 0 if they are identical, 1 if not. --seed makes another walk along the
    same cameras; of a recording only without a window.
    """
    started_s, file = time.perf_counter(), _recording_of(file)
    if verify and from_latents:
        raise ValueError("--verify generates the walk and --from-latents does not; leave one of them out")
    from engine.files.recording import SUFFIX

    in_window = not (headless or verify or from_latents or as_json or video or frames)
    if seed is not None and file.suffix == SUFFIX and (in_window or verify or from_latents):
        raise ValueError("a recorded walk is replayed with its own seed; leave --seed out")
    if in_window:
        from cli.walks import open_window
        from client.setup.options import PlayOptions

        return open_window(
            PlayOptions(
                world,
                engine,
                backend.value,
                seed or 0,
                fullscreen=fullscreen,
                replay=file,
                provider=provider.value,
                weights=weights,
            )
        )
    from engine.session.opening import EngineRequest
    from engine.session.walk_files import Outputs

    request = EngineRequest(engine, backend.value, provider.value, weights)
    outputs = Outputs(video=video, frames=frames, overwrite=overwrite)
    outputs.check()
    source = _Source(file, world, request, seed, outputs, started_s)
    if file.suffix == SUFFIX:
        return _replay_recording(source, verify, from_latents, as_json)
    if verify or from_latents:
        raise ValueError(f"--verify and --from-latents take a {SUFFIX} recording, not {file.name}")
    return _replay_track(source, as_json)


def _recording_of(file: Path) -> Path:
    """Return the recording that lies beside a clip's film; any other file is what it is."""
    from engine.files.recording import SUFFIX
    from engine.files.video import SUFFIX as VIDEO_SUFFIX

    if file.suffix.lower() != VIDEO_SUFFIX:
        return file
    recording = file.with_suffix(SUFFIX)
    if not recording.is_file():
        if not file.exists():
            raise ValueError(f"there is no file {file}; check the path")
        raise ValueError(
            f"{file} is a film; what is walked again is its recording, {recording.name}, which does not lie beside it"
        )
    return recording


@dataclass(frozen=True)
class _Source:
    """What is walked again, with what, and into which files."""

    file: Path
    world: str | None
    engine: EngineRequest
    seed: int | None
    outputs: Outputs
    started_s: float


def _replay_track(source: _Source, as_json: bool) -> int:
    from cli.walks import fit_track, open_walk, print_walk, walk
    from engine.camera.formats.track_files import load_track
    from engine.session.generated_world import default_world
    from engine.session.walk_files import WalkRequest

    track = load_track(source.file)
    world = source.world or str(default_world())
    if source.world is None:
        say(f"the track is walked in the world {default_world().stem}; --world names another")
    with closing(open_walk(world, source.engine)) as session:
        request = WalkRequest(fit_track(session, track), source.seed or 0, source.outputs)
        result = walk(session, request, source.started_s)
    print_walk(result, as_json)
    return 0


def _replay_recording(source: _Source, verify: bool, from_latents: bool, as_json: bool) -> int:
    from cli.walks import fit_track, open_walk, print_walk, walk
    from engine.files.recording import read_recording
    from engine.session.opening import EngineRequest
    from engine.session.replay import Comparison, check_replayable
    from engine.session.walk_files import WalkRequest

    recording = read_recording(source.file, with_latents=verify or from_latents)
    if not recording.complete:
        say(f"the recording was cut; its {len(recording.chunks)} whole chunks were recovered")
    header = recording.header
    engine = source.engine
    if engine == EngineRequest() and header.backend == "holodeck":
        engine = EngineRequest(backend="holodeck")
    comparison = Comparison(recording) if verify else None
    world, refiner = source.world or _world_of(recording), header.refiner_mode
    with closing(open_walk(world, engine, refiner=refiner)) as session:
        if comparison is not None:
            check_replayable(recording, session)
        request = WalkRequest(
            track=fit_track(session, recording.track()),
            seed=header.seed if source.seed is None else source.seed,
            outputs=source.outputs,
            num_chunks=len(recording.chunks),
            num_steps=[chunk.track.num_steps for chunk in recording.chunks],
            refined=[chunk.track.refine for chunk in recording.chunks],
            decoded=recording if from_latents else None,
            first_frame=header.first_frame,
            last_frame=header.last_frame,
        )
        result = walk(session, request, source.started_s, comparison)
    if comparison is None:
        print_walk(result, as_json)
        return 0
    report = comparison.report()
    if as_json:
        verdict = {"identical": report.identical, "first_different": report.first_different}
        print_json(result | verdict | asdict(report))
    else:
        print(report.sentence())
    return 0 if report.identical else EXIT_DIFFERENT


def _world_of(recording: Recording) -> str:
    from engine.files.world import find_made_in

    header = recording.header
    if (path := find_made_in(header.world, header.world_sha256, known_folders())) is None:
        raise ValueError(
            f"the recording was made in the world {header.world}, which is not here; name its file with --world"
        )
    return str(path)
