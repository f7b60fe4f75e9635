"""The frames of a replay under a player's hand: played at a speed, held, sought, and stepped through one by one.

Knows no engine: whoever owns it makes the frames that it lacks, from the newest on or from an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from client.playback.history import WalkFrame
from client.playback.pacing import FramePacer, PacingConfig, Playback
from engine.types import ChunkTimes

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of playback, 1 being the walk's own."""
STORE_BYTES = 256 << 20
"""Frames that were made are kept within this, so that going back to them takes no model: 87 s of the pocket's."""


@dataclass(frozen=True)
class Span:
    """The frames that a replay goes over, counted from the world's first; both are shown."""

    first: int
    last: int


class ReplayPlayback(Playback):
    """The presentation clock of a replay."""

    def __init__(
        self,
        config: PacingConfig,
        frame: WalkFrame,
        now_s: float,
        span: Span,
        pacer: FramePacer | None = None,
    ) -> None:
        """Begin to play at the span's first frame, as soon as it is made."""
        self.span = span
        self.playing = True
        self.speed = 1.0
        self.target: int | None = None if span.first <= frame.index else span.first
        """Frame to go to once it is made; None where the one that is on is the one that is wanted."""
        self._current = frame
        self._num_kept = max(4 * config.chunk_frames, STORE_BYTES // max(1, frame.pixels.nbytes))
        super().__init__(config, frame, now_s, pacer)

    def begin(self, frame: WalkFrame, now_s: float) -> None:
        """Make frames on from one; what is shown stays on while there is another to go to."""
        shown = frame if self.target is None else self._current
        super().begin(frame, now_s)
        self._store = {frame.index: frame}
        self._oldest = self._newest = frame.index
        self._current = shown
        self._position = float(frame.index)
        self._now_s = now_s

    @property
    def frame(self) -> WalkFrame:
        """The frame that is on."""
        return self._current

    @property
    def buffered_frames(self) -> float:
        return max(0.0, self._newest + 1 - self._position)

    @property
    def newest(self) -> int:
        """Index of the last frame that was made in the present run."""
        return self._newest

    @property
    def is_at_end(self) -> bool:
        """Whether the last frame is on."""
        return self.target is None and self._current.index >= self.span.last

    def holds(self, index: int) -> bool:
        """Whether a frame needs not be made."""
        return index in self._store

    def clamped(self, index: int) -> int:
        """Return the nearest frame of the replay."""
        return max(self.span.first, min(self.span.last, index))

    def change_speed(self, direction: int) -> None:
        """Play one step faster (1) or slower (-1)."""
        place = SPEEDS.index(self.speed) + direction
        self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, place))]

    def add(self, frames: Sequence[WalkFrame], times: ChunkTimes, answers: bool) -> None:
        super().add(frames, times, answers)
        for frame in frames:
            self._store[frame.index] = frame
        self._newest = frames[-1].index
        while len(self._store) > self._num_kept:
            del self._store[self._oldest]
            self._oldest += 1

    def tick(self, now_s: float) -> None:
        """Let time pass, or go to the frame that is wanted."""
        self.pacer.tick(now_s)
        elapsed_s = min(max(0.0, now_s - self._now_s), self.pacer.config.longest_tick_s)
        self._now_s = max(self._now_s, now_s)
        self._frames.clear()
        if self.target is not None:
            if (frame := self._store.get(self.target)) is not None:
                self.target, self._position = None, float(frame.index)
                self._show([frame] if frame is not self._current else [], now_s, jumped=True)
        elif self.playing and not self.pacer.paused:
            end = float(min(self._newest, self.span.last))
            self._position = min(self._position + elapsed_s * self.pacer.config.fps * self.speed, end)
            passed = range(self._current.index + 1, int(self._position) + 1)
            self._show([self._store[index] for index in passed if index in self._store], now_s)
        self._forget_old(now_s)

    def _show(self, frames: Sequence[WalkFrame], now_s: float, jumped: bool = False) -> None:
        if frames:
            self._current = frames[-1]
            self._pass(frames, jumped, now_s)

    def should_request(self, now_s: float) -> bool:
        """Ask for what is played next, or for all up to the frame that is wanted, as fast as it comes."""
        pacer, config = self.pacer, self.pacer.config
        if pacer.paused or pacer.in_flight >= config.max_in_flight:
            return False
        wanted = self._position + config.chunk_frames * (0.5 + max(1.0, self.speed))
        if self.target is not None:
            wanted = max(float(self.target), wanted)
        return self._newest + pacer.in_flight * config.chunk_frames < min(wanted, float(self.span.last))
