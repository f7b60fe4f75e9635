"""What a run took: per-chunk times, percentiles, realtime factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.types import ChunkTimes, FrameChunk

STAGES = ("render_ms", "denoise_ms", "commit_ms", "decode_ms", "chunk_ms")


@dataclass(frozen=True)
class Percentiles:
    """Of one stage over the chunks of a run, milliseconds."""

    p50: float
    p95: float

    def as_json(self) -> dict[str, float]:
        return {"p50": round(self.p50, 3), "p95": round(self.p95, 3)}


def percentiles(values_ms: Sequence[float]) -> Percentiles:
    """Return the median and the 95th percentile, 0 where there are no values."""
    if not values_ms:
        return Percentiles(0.0, 0.0)
    p50, p95 = np.percentile(np.asarray(values_ms, np.float64), (50, 95))
    return Percentiles(float(p50), float(p95))


class TimingLog:
    """The times of every chunk of a run, in the order they became ready."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._num_frames: list[int] = []
        self.times: list[ChunkTimes] = []

    def add(self, chunk: FrameChunk) -> None:
        self.times.append(chunk.times)
        self._num_frames.append(len(chunk.frames))

    def stage(self, name: str) -> Percentiles:
        """Return the percentiles of one of STAGES."""
        return percentiles([getattr(times, name) for times in self.times])

    @property
    def realtime_factor(self) -> float | None:
        """Seconds of video made per second of wall time, first chunk excluded; None before the second chunk.

        The wall time runs from when the first chunk was ready to when the last one was.
        """
        if len(self.times) < 2:
            return None
        wall_s = self.times[-1].ready_s - self.times[0].ready_s
        return sum(self._num_frames[1:]) / self._fps / wall_s if wall_s > 0 else None
