"""Walks without a window: as fast as the engine can, along a given track."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.camera.tracks import Track, output_intrinsics, rebase
from engine.files.world import World
from engine.session.protocol import Clock, Session
from engine.session.timing import Percentiles, TimingLog
from engine.types import CameraTrack, FrameChunk, LatentChunk

MAX_CHUNKS = 1_000_000


@dataclass(frozen=True)
class RunReport:
    """What a walk made, and how fast."""

    world: str
    engine: str
    backend: str
    device: str
    seed: int
    num_chunks: int
    num_frames: int
    """With the world's first frame."""
    fps: float
    first_frame_s: float
    """From the beginning to the first generated frame."""
    log: TimingLog = field(repr=False)
    latents_sha256: list[str]

    @property
    def realtime_factor(self) -> float | None:
        return self.log.realtime_factor

    @property
    def chunk_ms(self) -> Percentiles:
        return self.log.stage("chunk_ms")

    def as_json(self, frames_path: str | None = None, video_path: str | None = None) -> dict[str, Any]:
        """Return the fields that `play --json` and `replay --json` promise."""
        factor = self.realtime_factor
        return {
            "world": self.world,
            "engine": self.engine,
            "backend": self.backend,
            "device": self.device,
            "seed": self.seed,
            "num_chunks": self.num_chunks,
            "num_frames": self.num_frames,
            "fps": self.fps,
            "first_frame_s": round(self.first_frame_s, 4),
            "realtime_factor": None if factor is None else round(factor, 4),
            "chunk_ms": self.chunk_ms.as_json(),
            "latents_sha256": self.latents_sha256,
            "frames_path": frames_path,
            "video_path": video_path,
        }


def run_headless(
    session: Session,
    track: CameraTrack,
    num_chunks: int,
    seed: int,
    on_chunk: Callable[[FrameChunk], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    started_s: float | None = None,
    num_steps: Sequence[int | None] = (),
    refined: Sequence[bool] | None = None,
    clock: Clock = time.perf_counter,
) -> RunReport:
    """Reset the session and walk along `track`; refining and decoding overlap denoising.

    Args:
        track: Its frame 0 is the camera of the world's first frame; it ends in holding still.
        on_chunk: Gets every chunk in order, on the caller's thread; the world's first frame is in none.
        progress: Gets the number of chunks done and of all.
        started_s: When the engine began to be opened, for the time to the first frame; now without it.
        num_steps: Denoising steps of each chunk, as its `CameraTrack` has them; the whole schedule beyond them.
        refined: Whether each chunk is refined, none beyond them; by default all or none, as the session's refiner says.
    """
    if not 1 <= num_chunks <= MAX_CHUNKS:
        raise ValueError(f"the number of chunks must lie between 1 and {MAX_CHUNKS}, got {num_chunks}")
    started_s = clock() if started_s is None else started_s
    log = TimingLog(session.fps)
    hashes: list[str] = []

    def finish(decoded: Future[FrameChunk]) -> None:
        chunk = decoded.result()
        log.add(chunk)
        hashes.append(chunk.latents_sha256)
        if on_chunk is not None:
            on_chunk(chunk)
        if progress is not None:
            progress(len(hashes), num_chunks)

    session.reset(seed)
    under_way: deque[Future[FrameChunk]] = deque()
    with (
        ThreadPoolExecutor(1, "flaneur-refiner") as refiner,
        ThreadPoolExecutor(1, "flaneur-decoder") as decoder,
    ):
        for step in range(num_chunks):
            cameras = _cut(track, step, session.frames_per_chunk, clock())
            steps = num_steps[step] if step < len(num_steps) else None
            refine = session.refines_by_default if refined is None else step < len(refined) and refined[step]
            latents = session.denoise(replace(cameras, num_steps=steps, refine=refine))
            if len(under_way) > session.has_refiner:
                finish(under_way.popleft())
            under_way.append(_refine_and_decode(session, latents, refiner, decoder))
        while under_way:
            finish(under_way.popleft())
    return report_run(session, seed, log, hashes, started_s)


def report_run(
    session: Session, seed: int, log: TimingLog, latents_sha256: list[str], started_s: float
) -> RunReport:
    """Sum up a walk of which every chunk is in the log."""
    return RunReport(
        world=session.world.name,
        engine=session.engine,
        backend=session.backend,
        device=session.device,
        seed=seed,
        num_chunks=len(latents_sha256),
        num_frames=1 + len(latents_sha256) * session.frames_per_chunk,
        fps=session.fps,
        first_frame_s=log.times[0].ready_s - started_s,
        log=log,
        latents_sha256=latents_sha256,
    )


def place_track(track: Track, world: World) -> CameraTrack:
    """Move a track to begin at the world's start pose, and give it the world's intrinsics if it has none."""
    c2w = rebase(track.c2w, world.c2w)
    intrinsics = output_intrinsics(track, *world.frame_size)
    if intrinsics is None:
        intrinsics = np.tile(world.intrinsics, (track.num_frames, 1))
    return CameraTrack(c2w, intrinsics.astype(np.float32))


def num_chunks_for(track: CameraTrack, frames_per_chunk: int) -> int:
    """Return how many chunks it takes to walk to a track's end."""
    return max(1, -(-(track.num_frames - 1) // frames_per_chunk))


def _refine_and_decode(
    session: Session, chunk: LatentChunk, refiner: Executor, decoder: Executor
) -> Future[FrameChunk]:
    """Decode a chunk behind the ones before it, and refine it before that where the session has a refiner."""
    if not session.has_refiner:
        return decoder.submit(session.decode, chunk)
    waiting = refiner.submit(session.refine, chunk)
    return decoder.submit(lambda: session.decode(waiting.result()))


def _cut(track: CameraTrack, step: int, frames_per_chunk: int, now_s: float) -> CameraTrack:
    """Return the cameras of the given step, standing still behind the track's end."""
    frames = 1 + step * frames_per_chunk + np.arange(frames_per_chunk)
    frames = np.minimum(frames, track.num_frames - 1)
    return CameraTrack(track.c2w[frames], track.intrinsics[frames], now_s)
