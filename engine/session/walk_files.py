"""A headless walk into files: recording, video, and frames with poses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.files.array_files import open_frames
from engine.files.atomic import check_absent
from engine.files.recording import Recording
from engine.files.recording_writer import RecordingStopped, RecordingWriter
from engine.files.video import open_video
from engine.session.headless import num_chunks_for, run_headless
from engine.session.protocol import Session
from engine.session.replay import header_for, replay_latents
from engine.types import CameraTrack, FrameChunk


@dataclass(frozen=True)
class Outputs:
    """Files a headless walk writes, where they are asked for."""

    record: Path | None = None
    video: Path | None = None
    frames: Path | None = None
    key_map: str = "current"
    """For the recording's header."""
    overwrite: bool = False
    """Whether older files may be lost."""

    def check(self) -> None:
        """Refuse to write over older files, unless that was asked for; before anything is opened that takes a while."""
        for path in (self.record, self.video, self.frames):
            check_absent(path, self.overwrite)


@dataclass(frozen=True)
class WalkRequest:
    """What is walked, and into which files."""

    track: CameraTrack
    """Its frame 0 is the camera of the world's first frame."""
    seed: int
    outputs: Outputs
    num_chunks: int | None = None
    """To the track's end by default; a shorter track ends in holding still."""
    num_steps: Sequence[int | None] = ()
    """Denoising steps of each chunk, as `run_headless` takes them."""
    refined: Sequence[bool] | None = None
    """Whether each chunk is refined, as `run_headless` takes it."""
    decoded: Recording | None = None
    """Take the latents of this recording instead of generating them; it is the recording of the track."""
    first_frame: int = 0
    """Where video and frames begin, counted from the world's first frame; everything before it is walked unseen."""
    last_frame: int | None = None
    """Where they end; None for the walk's end."""

    def length(self, session: Session) -> int:
        """Return the number of chunks."""
        return self.num_chunks or num_chunks_for(self.track, session.frames_per_chunk)


def write_walk(
    session: Session,
    request: WalkRequest,
    started_s: float,
    on_chunk: Callable[[FrameChunk], None],
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Walk along a track, write what is asked for, and return the numbers that `--json` promises.

    Files appear whole or not at all, but for the recording, which grows chunk by chunk.

    Args:
        session: Closed by the caller.
        started_s: When the engine began to be opened, on the clock of time.perf_counter.
        on_chunk: Gets every chunk after it was written.
        warn: Told why the recording stopped, if it stops before the walk does.
    """
    outputs = request.outputs
    with ExitStack() as stack:
        files = WalkFiles(session, request, warn, stack)

        def take(chunk: FrameChunk) -> None:
            files.write(chunk)
            on_chunk(chunk)

        if request.decoded is not None:
            report = replay_latents(request.decoded, session, take, started_s=started_s)
        else:
            chunks, seed = request.length(session), request.seed
            report = run_headless(
                session,
                request.track,
                chunks,
                seed,
                take,
                started_s=started_s,
                num_steps=request.num_steps,
                refined=request.refined,
            )
    frames, video = (None if path is None else str(path) for path in (outputs.frames, outputs.video))
    result = report.as_json(frames, video)
    if outputs.record is not None:
        result |= {"record_path": str(outputs.record), "record_problem": files.record_problem}
    return result


class WalkFiles:
    """The open files of one walk; they are closed with the stack."""

    def __init__(
        self, session: Session, request: WalkRequest, warn: Callable[[str], None], stack: ExitStack
    ) -> None:
        self.record_problem: str | None = None
        """Why the recording stopped before the walk did."""
        self._warn = warn
        self._recording = self._video = self._frames = None
        self._num_frames = 0
        world, outputs = session.world, request.outputs
        num_frames = 1 + request.length(session) * session.frames_per_chunk
        end = num_frames if request.last_frame is None else min(num_frames, request.last_frame + 1)
        self._span = range(min(request.first_frame, end - 1), end)
        if outputs.video is not None:
            told = self._describe(session, request)
            self._video = stack.enter_context(
                open_video(outputs.video, session.frame_size, session.fps, told)
            )
        if outputs.frames is not None:
            self._frames = stack.enter_context(
                open_frames(outputs.frames, len(self._span), session.frame_size)
            )
        self._write_frames(world.first_frame[None], world.c2w[None])
        if outputs.record is not None:
            header = header_for(session, outputs.key_map, request.seed)
            self._recording = RecordingWriter(outputs.record, header, overwrite=outputs.overwrite)
            stack.callback(self._close_recording)

    def _describe(self, session: Session, request: WalkRequest) -> dict[str, Any]:
        """Return what the video says of itself."""
        header = header_for(session, request.outputs.key_map, request.seed)
        fields = {
            "app_version",
            "seed",
            "backend",
            "engine",
            "device",
            "weights_sha256",
            "world",
            "world_sha256",
        }
        return {
            **header.model_dump(include=fields),
            "fps": session.fps,
            "frame_size": list(session.frame_size),
            "num_frames": len(self._span),
            "first_frame": self._span.start,
            "last_frame": self._span.stop - 1,
        }

    def write(self, chunk: FrameChunk) -> None:
        """Hand one chunk to every file; a recording that stops does not stop the walk."""
        self._write_frames(chunk.frames, chunk.c2w)
        if self._recording is not None:
            with self._noting_problem():
                self._recording.append(chunk.track, chunk.latents_sha256, latents=chunk.latents)

    def _write_frames(self, frames: NDArray[np.uint8], c2w: NDArray[np.float64]) -> None:
        """Write those of the next frames that are in the span."""
        first = self._num_frames
        self._num_frames += len(frames)
        wanted = slice(max(0, self._span.start - first), max(0, self._span.stop - first))
        if not len(frames[wanted]):
            return
        if self._video is not None:
            self._video.write(frames[wanted])
        if self._frames is not None:
            self._frames.write(frames[wanted], c2w[wanted])

    def _close_recording(self) -> None:
        assert self._recording is not None
        with self._noting_problem():
            self._recording.close()

    @contextmanager
    def _noting_problem(self) -> Iterator[None]:
        """Note why the recording stopped inside the block; the walk and its other files go on."""
        try:
            yield
        except RecordingStopped as error:
            self.record_problem = str(error)
            self._warn(self.record_problem)
