"""Walking a recording again, and telling whether it is the same walk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpecMismatch
from engine.files.recording import RecordedChunk, Recording, RecordingHeader
from engine.machine.installing import app_version
from engine.session.headless import RunReport, report_run
from engine.session.protocol import Clock, Session
from engine.session.timing import TimingLog
from engine.types import FrameChunk, LatentChunk


@dataclass(frozen=True)
class VerifyReport:
    """Whether a replay made the same latents as the recorded walk."""

    num_chunks: int
    """Chunks of the recording."""
    num_identical: int
    """Chunks from the first on that came out bit for bit."""
    max_difference: float | None = None
    """Of the first chunk that differs, of any latent value; None where the recording has no latents."""
    rms_difference: float | None = None

    @property
    def identical(self) -> bool:
        return self.num_identical == self.num_chunks

    @property
    def first_different(self) -> int | None:
        """The first chunk that differs, counted from 0 in the recording."""
        return None if self.identical else self.num_identical

    def sentence(self) -> str:
        """Say it in one sentence."""
        if self.identical:
            return f"identical: all {self.num_chunks} chunks came out bit for bit"
        how_much = "the recording holds no latents to say by how much"
        if self.max_difference is not None:
            how_much = f"by at most {self.max_difference:.3g}, {self.rms_difference:.3g} rms"
        return f"chunk {self.first_different} of {self.num_chunks} is the first that differs ({how_much})"


def header_for(session: Session, key_map: str, seed: int | None = None) -> RecordingHeader:
    """Return the header of a recording of a rollout; by default of the one the session is in."""
    world = session.world
    return RecordingHeader(
        app_version=app_version(),
        seed=session.seed if seed is None else seed,
        backend=session.backend,
        engine=session.engine,
        identity=session.identity,
        device=session.device,
        refiner_sha256=session.refiner_sha256,
        weights_sha256=world.info.model,
        world=world.name,
        world_sha256=world.sha256,
        key_map=key_map,
        fps=session.fps,
        start_c2w=tuple(world.c2w.ravel().tolist()),
        start_intrinsics=tuple(world.intrinsics.tolist()),
    )


def check_replayable(recording: Recording, session: Session) -> None:
    """Refuse to replay a recording with another world or engine than it was made with."""
    header = recording.header
    if header.world_sha256 != session.world.sha256:
        raise SpecMismatch(
            f"the recording was made in another version of the world {header.world}; "
            "name the world file it was made in"
        )
    if header.identity != session.identity:
        raise SpecMismatch(
            f"the recording was made with the engine {header.engine} on {header.backend}, another than this; "
            "name the bundle and backend it was made with"
        )
    for chunk in recording.chunks:
        if chunk.track.num_frames != session.frames_per_chunk:
            raise SpecMismatch(
                f"chunk {chunk.index} of the recording has {chunk.track.num_frames} cameras where "
                f"{session.engine} takes {session.frames_per_chunk}; record the walk again"
            )


class Comparison:
    """Compares a walk with its recording, chunk by chunk in order."""

    def __init__(self, recording: Recording) -> None:
        self._recorded = recording.chunks
        self._num_taken = 0
        self._report: VerifyReport | None = None

    def take(self, latents_sha256: str, latents: NDArray[np.float32] | None) -> bool:
        """Compare the next chunk; say whether all so far are identical."""
        recorded = self._recorded[self._num_taken]
        self._num_taken += 1
        if self._report is None and latents_sha256 != recorded.latents_sha256:
            self._report = _difference(len(self._recorded), recorded, latents)
        return self._report is None

    def report(self) -> VerifyReport:
        """Return what was found; chunks that were not taken count as different."""
        return self._report or VerifyReport(len(self._recorded), self._num_taken)


def replay_latents(
    recording: Recording,
    session: Session,
    on_chunk: Callable[[FrameChunk], None],
    *,
    started_s: float,
    clock: Clock = time.perf_counter,
) -> RunReport:
    """Decode the latents a recording holds, without the generator.

    Args:
        recording: Read with its latents.
        session: Of the same engine and world; it is reset.
        on_chunk: Gets every chunk in order.
        started_s: When the engine began to be opened, for the time to the first frame.
    """
    check_replayable(recording, session)
    session.reset(recording.header.seed)
    log = TimingLog(session.fps)
    index = session.next_chunk_index
    start_frame = 0 if index == 0 else 1
    for recorded in recording.chunks:
        if recorded.latents is None:
            raise ValueError(
                f"chunk {recorded.index} of the recording has no latents; replay it with the generator"
            )
        now_s = clock()
        latents = LatentChunk(
            index, start_frame, recorded.latents, recorded.latents_sha256, recorded.track, now_s, now_s, now_s
        )
        chunk = session.decode(latents)
        log.add(chunk)
        on_chunk(chunk)
        index, start_frame = index + 1, start_frame + recorded.latents.shape[1]
    hashes = [recorded.latents_sha256 for recorded in recording.chunks]
    return report_run(session, recording.header.seed, log, hashes, started_s)


def _difference(
    num_chunks: int, recorded: RecordedChunk, latents: NDArray[np.float32] | None
) -> VerifyReport:
    if recorded.latents is None or latents is None or recorded.latents.shape != latents.shape:
        return VerifyReport(num_chunks, recorded.index)
    difference = latents.astype(np.float64) - recorded.latents
    rms = float(np.sqrt(np.mean(difference**2)))
    return VerifyReport(num_chunks, recorded.index, float(np.abs(difference).max()), rms)
