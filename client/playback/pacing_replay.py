"""The pacer run again over a trace: the engine and the display as they were, the pacer as it is now.

The pacer asks for chunks when it sees fit; the engine then takes as long as it took in the trace. So the counts of a
changed pacer can be held against those of the walk, and those of the same pacer come out the same each time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from client.playback.pacing import FramePacer, PacingConfig, PacingCounts
from client.playback.trace import ChunkLine, CountsLine, Line, MarkLine, StartLine, TickLine


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
    under_way: deque[tuple[ChunkLine, float]] = field(default_factory=deque)
    """With how much later than in the trace each goes through its times."""

    def request(self, now_s: float, free_s: float, traced_free_s: float) -> tuple[float, float]:
        """Begin the next chunk; return when the engine is free again, here and in the trace."""
        if not self.chunks:
            return free_s, traced_free_s
        chunk = self.chunks.popleft()
        shift_s = max(now_s, free_s) - max(chunk.requested_s, traced_free_s)
        self.under_way.append((chunk, shift_s))
        return chunk.committed_s + shift_s, chunk.committed_s

    def landed(self, now_s: float) -> Iterator[tuple[ChunkLine, float]]:
        """Take out what is ready by now."""
        while self.under_way:
            chunk, shift_s = self.under_way[0]
            # A chunk that comes as it did is seen when it was; between two ticks of another time, at the next.
            if now_s < (chunk.seen_s if shift_s == 0.0 else chunk.ready_s + shift_s):
                return
            yield self.under_way.popleft()


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
    pacer = FramePacer(PacingConfig(start.fps, start.chunk_frames, max_in_flight=start.max_in_flight))
    return [_replay_rollout(pacer, rollout) for rollout in rollouts]


def _replay_rollout(pacer: FramePacer, lines: Sequence[Line]) -> PacedRollout:
    engine = _Engine(deque(line for line in lines if isinstance(line, ChunkLine)))
    num_chunks = len(engine.chunks)
    early_s: list[float] = []
    traced: PacingCounts | None = None
    free_s = traced_free_s = ticked_s = float("-inf")
    for line in lines:
        if isinstance(line, TickLine):
            early_s += _land(pacer, engine, line.at_s, ticked_s)
            pacer.tick(line.at_s)
            ticked_s = line.at_s
            if line.asks and pacer.should_request(line.at_s):
                pacer.note_request(line.at_s)
                free_s, traced_free_s = engine.request(line.at_s, free_s, traced_free_s)
        elif isinstance(line, MarkLine):
            _mark(pacer, line)
        elif isinstance(line, CountsLine):
            traced = PacingCounts(**line.model_dump(exclude={"kind"}))
    p50, p95 = np.percentile(early_s, (50, 5)) if early_s else (0.0, 0.0)
    return PacedRollout(num_chunks, pacer.counts, traced, (1e3 * float(p50), 1e3 * float(p95)))


def _land(pacer: FramePacer, engine: _Engine, now_s: float, ticked_s: float) -> list[float]:
    """Give the pacer what is ready by now; return how long before its turn each chunk was ready.

    `ticked_s` is the time of the tick before, from which what was left to play is counted.
    """
    early_s: list[float] = []
    for chunk, shift_s in engine.landed(now_s):
        start_s, free_s = chunk.model_start_s + shift_s, chunk.committed_s + shift_s
        ready_s = chunk.ready_s + shift_s
        early_s.append(ticked_s + pacer.buffered_frames / pacer.config.fps - ready_s)
        pacer.add_chunk(chunk.num_frames, start_s, free_s, ready_s, chunk.answers, chunk.refine_s)
    return early_s


def _mark(pacer: FramePacer, line: MarkLine) -> None:
    if line.kind == "begin":
        pacer.reset(line.at_s)
        pacer.add_first_frame()
    elif line.kind == "pause":
        pacer.pause(line.at_s)
    else:
        pacer.resume(line.at_s)
