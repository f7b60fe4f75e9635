"""The frames of a rollout that were made, and which of them is on; knows no engine and no window."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from client.playback.pacing import FramePacer, PacingConfig
from client.playback.past import WalkFrame
from engine.types import ChunkTimes

SPEED_WINDOW_S = 2.0
"""Length of time over which the frames shown a second are counted."""


class Showing:
    """The film of a walk under its presentation clock."""

    def __init__(self, config: PacingConfig, frame: WalkFrame, now_s: float) -> None:
        """Show a frame."""
        self.pacer = FramePacer(config)
        """Says which frame is on, and when to ask for more; what it learns is kept over a new beginning."""
        self.begin(frame, now_s)

    def begin(self, frame: WalkFrame, now_s: float) -> None:
        """Show a frame, and what comes behind it."""
        self._frames: deque[WalkFrame] = deque([frame])
        self._first_index = frame.index
        self.num_frames = frame.index + 1
        """Frames that exist, counted from the world's first."""
        self._shown_s: deque[float] = deque()
        self.pacer.reset(now_s)
        self.pacer.add_first_frame()

    @property
    def frame(self) -> WalkFrame:
        """The frame that is on."""
        return self._frames[0]

    @property
    def fps_shown(self) -> float:
        """Different frames shown a second, lately."""
        return len(self._shown_s) / SPEED_WINDOW_S

    @property
    def is_over(self) -> bool:
        """Whether all that was asked for is here, and its last frame is on."""
        return self.pacer.in_flight == 0 and self.pacer.buffered_frames <= 1.0

    def add(self, frames: Sequence[WalkFrame], times: ChunkTimes, answers: bool) -> None:
        """Take in the frames of the next chunk; for `answers` see `FramePacer.add_chunk`."""
        self._frames.extend(frames)
        self.num_frames += len(frames)
        self.pacer.add_chunk(len(frames), times.model_start_s, times.committed_s, times.ready_s, answers)

    def tick(self, now_s: float) -> None:
        """Move the clock and choose the frame."""
        index = self.pacer.tick(now_s)
        while index is not None and self._frames[0].index < self._first_index + index:
            self._frames.popleft()
            self._shown_s.append(now_s)
        while self._shown_s and self._shown_s[0] < now_s - SPEED_WINDOW_S:
            self._shown_s.popleft()
