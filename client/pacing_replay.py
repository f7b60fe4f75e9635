"""The pacer run again over a trace: the engine and the display as they were, the pacer as it is now.

The pacer asks for chunks when it sees fit; the engine then takes as long as it took in the trace. So the counts of a
changed pacer can be held against those of the walk, and those of the same pacer come out the same each time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from client.pacing import FramePacer, PacingConfig, PacingCounts
from client.trace import ChunkLine, CountsLine, Line, MarkLine, StartLine, TickLine


@dataclass(frozen=True)
class PacedRollout:
    """One rollout of a trace, paced again."""

    num_chunks: int
    counts: PacingCounts
    traced: PacingCounts | None
    """What was counted in the walk itself; None where the trace was cut before it said so."""
    early_ms: tuple[float, float]
    """Time from a chunk's landing to the end of what was left to play before it: the median, and what all but the
    latest 5 % had; 0 at most where the picture had to wait."""


@dataclass(frozen=True)
class _Engine:
    """An engine that takes the times of a trace, one chunk after another."""

    chunks: deque[ChunkLine]
    under_way: deque[tuple[ChunkLine, float, float, float]] = field(default_factory=deque)
    """With the times of start, free and ready."""

    def request(self, now_s: float, free_s: float, traced_free_s: float) -> tuple[float, float]:
        """Begin the next chunk; return when the engine is free again, here and in the trace."""
        if not self.chunks:
            return free_s, traced_free_s
        chunk = self.chunks.popleft()
        # What went by in the walk between the moment the chunk could have begun and the moment it did.
        delay_s = max(0.0, chunk.model_start_s - max(chunk.requested_s, traced_free_s))
        start_s = max(now_s, free_s) + delay_s
        busy_s, whole_s = chunk.committed_s - chunk.model_start_s, chunk.ready_s - chunk.model_start_s
        self.under_way.append((chunk, start_s, start_s + busy_s, start_s + whole_s))
        return start_s + busy_s, chunk.committed_s


def replay_pacing(lines: Iterable[Line]) -> list[PacedRollout]:
    """Pace every rollout of a trace again.

    Raises:
        ValueError: The trace holds no rollout.
    """
    start: StartLine | None = None
    rollouts: list[list[Line]] = []
    for line in lines:
        if isinstance(line, StartLine):
            start = line
        elif isinstance(line, MarkLine) and line.kind == "begin":
            rollouts.append([line])
        elif rollouts:
            rollouts[-1].append(line)
    if start is None or not rollouts:
        raise ValueError("the trace was cut before its walk began; trace a longer one")
    pacer = FramePacer(PacingConfig(start.fps, start.chunk_frames))
    return [_replay_rollout(pacer, rollout) for rollout in rollouts]


def _replay_rollout(pacer: FramePacer, lines: Sequence[Line]) -> PacedRollout:
    engine = _Engine(deque(line for line in lines if isinstance(line, ChunkLine)))
    num_chunks = len(engine.chunks)
    early_s: list[float] = []
    traced: PacingCounts | None = None
    free_s = traced_free_s = float("-inf")
    for line in lines:
        if isinstance(line, TickLine):
            early_s += _land(pacer, engine, line.at_s)
            pacer.tick(line.at_s)
            if line.asks and pacer.should_request(line.at_s):
                pacer.note_request(line.at_s)
                free_s, traced_free_s = engine.request(line.at_s, free_s, traced_free_s)
        elif isinstance(line, MarkLine):
            _mark(pacer, line)
        elif isinstance(line, CountsLine):
            traced = PacingCounts(**line.model_dump(exclude={"kind"}))
    p50, p95 = np.percentile(early_s, (50, 5)) if early_s else (0.0, 0.0)
    return PacedRollout(num_chunks, pacer.counts, traced, (1e3 * float(p50), 1e3 * float(p95)))


def _land(pacer: FramePacer, engine: _Engine, now_s: float) -> list[float]:
    """Give the pacer what is ready by now; return how long before its turn each chunk was ready."""
    early_s: list[float] = []
    while engine.under_way and engine.under_way[0][3] <= now_s:
        chunk, start_s, free_s, ready_s = engine.under_way.popleft()
        early_s.append(pacer.buffered_frames / pacer.config.fps + now_s - ready_s)
        pacer.add_chunk(chunk.num_frames, start_s, free_s, ready_s, chunk.answers)
    return early_s


def _mark(pacer: FramePacer, line: MarkLine) -> None:
    if line.kind == "begin":
        pacer.reset(line.at_s)
        pacer.add_first_frame()
    elif line.kind == "pause":
        pacer.pause(line.at_s)
    else:
        pacer.resume(line.at_s)
