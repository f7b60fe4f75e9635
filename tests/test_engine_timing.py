from __future__ import annotations

import numpy as np
import pytest

from engine.session.timing import TimingLog, percentiles
from engine.types import CameraTrack, ChunkTimes, FrameChunk


def chunk(index: int, start_s: float, ready_s: float, num_frames: int = 4) -> FrameChunk:
    times = ChunkTimes(start_s, start_s, start_s + 0.02, start_s + 0.03, ready_s - 0.01, ready_s)
    track = CameraTrack(np.zeros((num_frames, 4, 4)), np.zeros((num_frames, 4), np.float32))
    return FrameChunk(index, np.zeros((num_frames, 1, 1, 3), np.uint8), track, times, "0")


def test_the_realtime_factor_leaves_out_the_first_chunk() -> None:
    log = TimingLog(fps=16)
    log.add(chunk(1, 0.0, 9.0))
    assert log.realtime_factor is None
    for index in range(2, 6):
        log.add(chunk(index, 8.9 + 0.1 * index, 9.0 + 0.1 * (index - 1)))
    # Four chunks of 4/16 s in 0.4 s.
    assert log.realtime_factor == pytest.approx(2.5)


def test_stages_are_measured_in_milliseconds() -> None:
    log = TimingLog(fps=16)
    log.add(chunk(1, 1.0, 1.05))
    assert log.stage("denoise_ms").p50 == pytest.approx(20)
    assert log.stage("commit_ms").p50 == pytest.approx(10)
    assert log.stage("decode_ms").p50 == pytest.approx(10)
    assert log.stage("chunk_ms").p95 == pytest.approx(50)


def test_percentiles_of_nothing_are_zero() -> None:
    assert percentiles([]).as_json() == {"p50": 0.0, "p95": 0.0}


def test_percentiles_are_ordered() -> None:
    result = percentiles([float(value) for value in range(101)])
    assert (result.p50, result.p95) == (50, 95)
