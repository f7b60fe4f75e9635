"""Walks without a window, for `play` and `replay`: along a track, into files and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli.arguments import known_folders
from cli.report import print_json, print_table, progress, say_error
from client.setup.options import check_engine
from engine.camera.tracks import Track, at_fps
from engine.files.array_files import open_frames
from engine.files.recording import Recording
from engine.files.recording_writer import RecordingStopped, RecordingWriter
from engine.files.video import open_video
from engine.files.world import list_worlds
from engine.machine import assets
from engine.session.generated_world import find_any_world
from engine.session.headless import num_chunks_for, place_track, run_headless
from engine.session.opening import BackendName, open_session
from engine.session.protocol import Session
from engine.session.replay import Comparison, header_for, replay_latents
from engine.types import CameraTrack, FrameChunk


@dataclass(frozen=True)
class Outputs:
    """Files a headless walk writes, where they are asked for."""

    record: Path | None = None
    video: Path | None = None
    frames: Path | None = None
    key_map: str = "current"
    """For the recording's header."""


def open_walk(
    world: str | None, engine: str | None, backend: BackendName, keep_latents: bool = True
) -> Session:
    """Open a session on a world, the first of the shipped ones by default."""
    if world is None:
        folder = assets.worlds_dir()
        entries = list_worlds([folder])
        if not entries:
            raise ValueError(f"there are no worlds in {folder}; name a .world file")
        world = entries[0].name
    check_engine(engine, backend)
    found = find_any_world(world, known_folders())
    bundle = None if engine is None else assets.find_bundle(engine)
    return open_session(found, bundle, backend, keep_latents=keep_latents)


def standing_still() -> Track:
    return Track(np.eye(4)[None])


def fit_track(session: Session, track: Track) -> CameraTrack:
    """Return a track as the session's world sees it: at its rate, from its start, through its lens."""
    return place_track(at_fps(track, session.fps), session.world)


def walk(
    session: Session,
    track: CameraTrack,
    num_chunks: int | None,
    seed: int,
    outputs: Outputs,
    started_s: float,
    comparison: Comparison | None = None,
    decoded: Recording | None = None,
    num_steps: Sequence[int | None] = (),
) -> dict[str, Any]:
    """Walk along a track, write what is asked for, and return the numbers that `--json` promises.

    Args:
        session: Closed by the caller.
        track: Its frame 0 is the camera of the world's first frame.
        num_chunks: To the track's end by default; a shorter track ends in holding still.
        seed: Of the rollout.
        outputs: Files that appear whole or not at all, but for the recording, which grows chunk by chunk.
        started_s: When the command began, on the clock of time.perf_counter.
        comparison: Told of every chunk.
        decoded: Take the latents of this recording instead of generating them; it is the recording of the track.
        num_steps: Denoising steps of each chunk, as `run_headless` takes them.
    """
    if num_chunks is None:
        num_chunks = num_chunks_for(track, session.frames_per_chunk)
    with ExitStack() as stack:
        sinks = _Sinks(session, num_chunks, seed, outputs, stack)
        bar = stack.enter_context(progress(f"walking through {session.world.name}", num_chunks))

        def take(chunk: FrameChunk) -> None:
            sinks.take(chunk)
            bar(sinks.num_taken)
            if comparison is not None:
                comparison.take(chunk.latents_sha256, chunk.latents)

        if decoded is not None:
            report = replay_latents(decoded, session, take, started_s=started_s)
        else:
            report = run_headless(
                session, track, num_chunks, seed, take, started_s=started_s, num_steps=num_steps
            )
    result = report.as_json(_text(outputs.frames), _text(outputs.video))
    if outputs.record is not None:
        result |= {"record_path": str(outputs.record), "record_problem": sinks.record_problem}
    return result


class _Sinks:
    """The files of one walk."""

    def __init__(
        self,
        session: Session,
        num_chunks: int,
        seed: int,
        outputs: Outputs,
        stack: ExitStack,
    ) -> None:
        self.num_taken = 0
        self.record_problem: str | None = None
        """Why the recording stopped before the walk did."""
        self._recording = self._video = self._frames = None
        world = session.world
        if outputs.video is not None:
            self._video = stack.enter_context(open_video(outputs.video, session.frame_size, session.fps))
            self._video.write(world.first_frame[None])
        if outputs.frames is not None:
            num_frames = 1 + num_chunks * session.frames_per_chunk
            self._frames = stack.enter_context(open_frames(outputs.frames, num_frames, session.frame_size))
            self._frames.write(world.first_frame[None], world.c2w[None])
        if outputs.record is not None:
            header = header_for(session, outputs.key_map, seed)
            self._recording = RecordingWriter(outputs.record, header)
            stack.callback(self._end_recording)

    def take(self, chunk: FrameChunk) -> None:
        """Hand one chunk to every file; a recording that stops does not stop the walk."""
        if self._video is not None:
            self._video.write(chunk.frames)
        if self._frames is not None:
            self._frames.write(chunk.frames, chunk.c2w)
        if self._recording is not None:
            with self._going_on():
                self._recording.append(chunk.track, chunk.latents_sha256, latents=chunk.latents)
        self.num_taken += 1

    def _end_recording(self) -> None:
        assert self._recording is not None
        with self._going_on():
            self._recording.close()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Note why the recording stopped inside the block; the walk and its other files go on."""
        try:
            yield
        except RecordingStopped as error:
            self.record_problem = str(error)
            say_error(self.record_problem)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


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
