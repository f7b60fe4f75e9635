"""What a run took: per-chunk times, percentiles, realtime factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from engine.types import FrameChunk

STAGES = ("denoise_ms", "commit_ms", "decode_ms", "chunk_ms")


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


@dataclass(frozen=True)
class ChunkRecord:
    """One line of the log."""

    chunk_index: int
    epoch: int
    num_frames: int
    latched_s: float
    model_start_s: float
    denoised_s: float
    committed_s: float
    decode_start_s: float
    ready_s: float
    denoise_ms: float
    commit_ms: float
    decode_ms: float
    chunk_ms: float


class TimingLog:
    """The times of every chunk of a run, in the order they became ready."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self.records: list[ChunkRecord] = []

    def add(self, chunk: FrameChunk) -> None:
        stages = {stage: getattr(chunk.times, stage) for stage in STAGES}
        self.records.append(
            ChunkRecord(
                chunk.chunk_index, chunk.epoch, chunk.frames.shape[0], **asdict(chunk.times), **stages
            )
        )

    def stage(self, name: str) -> Percentiles:
        """Return the percentiles of one of STAGES."""
        return percentiles([getattr(record, name) for record in self.records])

    @property
    def realtime_factor(self) -> float | None:
        """Seconds of video made per second of wall time, first chunk excluded; None before the second chunk.

        The wall time runs from the moment the first chunk was ready to the moment the last one was.
        """
        if len(self.records) < 2:
            return None
        wall_s = self.records[-1].ready_s - self.records[0].ready_s
        made_s = sum(record.num_frames for record in self.records[1:]) / self._fps
        return made_s / wall_s if wall_s > 0 else None
