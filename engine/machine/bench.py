"""Measures a session: time per stage, interval between chunks, memory; on the machine it runs on, without a window."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.files.world import World
from engine.machine.hardware import peak_memory_bytes
from engine.session.headless import RunReport, run_headless
from engine.session.protocol import Clock, Session
from engine.session.timing import STAGES, Percentiles, percentiles
from engine.types import CameraTrack

STEP_M = 0.02
"""Walking pace per frame of the measured walk."""
TURN_RAD = 0.004


@dataclass(frozen=True)
class BenchReport:
    """What a session takes on this machine."""

    run: RunReport
    stages: dict[str, Percentiles]
    interval_ms: Percentiles
    """From one chunk being ready to the next."""
    deadline_ms: float
    """How long a chunk plays: the longest interval at which playback never stalls."""
    deadline_met: float
    """Share of the intervals within the deadline."""
    drift: float
    """Median interval of the last quarter of the run over that of the first: 1 where nothing piles up."""
    state_bytes: int
    peak_memory_bytes: int | None
    """Of this process, None where the system does not say."""

    def as_json(self) -> dict[str, Any]:
        run = self.run.as_json()
        for name in ("latents_sha256", "frames_path", "video_path"):
            del run[name]
        return run | {
            "stages": {name: stage.as_json() for name, stage in self.stages.items()},
            "interval_ms": self.interval_ms.as_json(),
            "deadline_ms": round(self.deadline_ms, 3),
            "deadline_met": round(self.deadline_met, 4),
            "drift": round(self.drift, 4),
            "state_bytes": self.state_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def run_bench(
    session: Session,
    num_chunks: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    started_s: float | None = None,
    clock: Clock = time.perf_counter,
) -> BenchReport:
    """Walk a gentle curve for `num_chunks` chunks and measure.

    Args:
        num_chunks: At least 2, since an interval needs two chunks.
        started_s: When the engine began to be opened, for the time to the first frame.
    """
    if num_chunks < 2:
        raise ValueError(f"a measurement takes at least 2 chunks, got {num_chunks}")
    track = curve(session.world, 1 + num_chunks * session.frames_per_chunk)
    run = run_headless(session, track, num_chunks, seed, None, progress, started_s=started_s, clock=clock)
    ready_s = [times.ready_s for times in run.log.times]
    intervals_ms = 1e3 * np.diff(ready_s)
    quarter = max(1, len(intervals_ms) // 4)
    deadline_ms = 1e3 * session.frames_per_chunk / session.fps
    return BenchReport(
        run=run,
        stages={name: run.log.stage(name) for name in STAGES},
        interval_ms=percentiles(intervals_ms.tolist()),
        deadline_ms=deadline_ms,
        deadline_met=float(np.mean(intervals_ms <= deadline_ms)),
        drift=float(np.median(intervals_ms[-quarter:]) / np.median(intervals_ms[:quarter])),
        state_bytes=session.snapshot().num_bytes,
        peak_memory_bytes=peak_memory_bytes(),
    )


def curve(world: World, num_frames: int) -> CameraTrack:
    """Return a walk in a wide circle from the world's start pose, [num_frames, 4, 4]."""
    turn = np.eye(4)
    turn[:3, :3] = [
        [np.cos(TURN_RAD), 0, np.sin(TURN_RAD)],
        [0, 1, 0],
        [-np.sin(TURN_RAD), 0, np.cos(TURN_RAD)],
    ]
    turn[2, 3] = STEP_M
    c2w = np.empty((num_frames, 4, 4))
    c2w[0] = world.c2w
    for i in range(1, num_frames):
        c2w[i] = c2w[i - 1] @ turn
    return CameraTrack(c2w, np.tile(world.intrinsics, (num_frames, 1)))
