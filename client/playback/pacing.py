"""Which frame is on, when to ask for the next chunk, and whether none is needed.

Pure arithmetic over clock readings passed in; knows no engine, no threads and no window. Frames of a rollout are
numbered from 0 in the order they are made; a chunk's frames exist all at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.playback.history import WalkFrame
from engine.types import ChunkTimes

SPEED_WINDOW_S = 2.0
"""Length of time over which the frames shown a second are counted."""
REST_AFTER_S = 4.0
"""So long after the camera came to rest the picture has settled."""
STILL_M = 1e-3
STILL_RAD = 2e-4
"""A camera that moves less than this within a chunk stands still."""


@dataclass(frozen=True)
class PacingConfig:
    """The rules of the presentation clock."""

    fps: float
    """Video frames per second of the world."""
    chunk_frames: int
    """Video frames of one chunk; the presentation buffer holds no more than this."""
    min_rate: float = 0.92
    """Slowest playback that still looks steady."""
    max_rate: float = 1.12
    """Fastest playback, used to work off a buffer that is too full."""
    rate_slew_per_s: float = 0.5
    """How fast the playback rate may change."""
    margin_s: float = 0.034
    """Time kept in hand when asking for a chunk: two display frames."""
    longest_tick_s: float = 0.125
    """A longer gap between two readings was a stall of the window itself; its time is not made up for."""
    longest_cut_s: float = 0.25
    """Most of the older frames that is left out at once when the answer to an input lands."""
    history: int = 12
    """Chunks remembered for the prediction."""
    max_in_flight: int = 2
    """Chunks asked for and not yet here: the stages of the engine that may work at the same time."""

    @property
    def chunk_s(self) -> float:
        return self.chunk_frames / self.fps


class DurationEstimate:
    """Predicts a chunk's duration: a high quantile of recent ones, so that one stall does not poison it."""

    def __init__(self, initial_s: float, history: int, quantile: float = 0.8) -> None:
        self.predicted_s = initial_s
        self._quantile = quantile
        self._recent_s: deque[float] = deque(maxlen=history)

    def add(self, duration_s: float) -> None:
        """Learn from one chunk; what is no duration is ignored."""
        if math.isfinite(duration_s) and duration_s >= 0.0:
            self._recent_s.append(duration_s)
            self.predicted_s = float(np.quantile(self._recent_s, self._quantile))


@dataclass(frozen=True)
class PacingCounts:
    """What the player saw since the rollout began."""

    shown: int
    """Frames shown."""
    skipped: int
    """Frames never shown because the display was slower than the world."""
    cut: int
    """Frames never shown because the answer to an input had landed."""
    holds: int
    """Times a frame stayed on for lack of a next one."""
    hold_s: float
    """Their total length."""
    overlaps: int
    """Times that a chunk with the answer to an input landed while older frames were still to be played."""
    overlap_s: float
    """What was left to play of the older frames then, in all."""


class FramePacer:
    """The presentation clock of one rollout; call `tick` once for each displayed picture."""

    def __init__(self, config: PacingConfig) -> None:
        self.config = config
        self._ready = DurationEstimate(config.chunk_s / 2, config.history)
        self._busy = DurationEstimate(config.chunk_s / 2, config.history)
        self._refine = DurationEstimate(0.0, config.history)
        self.reset(0.0)

    def reset(self, now_s: float) -> None:
        """Begin a rollout with no frames; what was learned about the engine's speed stays."""
        self._now_s = now_s
        self._paused = False
        self._num_frames = 0
        self._cursor = 0.0
        self._rate = 1.0
        self._begun_s: deque[float] = deque()
        """When the engine can have begun each chunk that was asked for and is not here yet."""
        self._shown = 0
        self._last_index = -1
        self._holds = 0
        self._hold_s = 0.0
        self._holding = False
        self._started = False
        self._cut_to = 0.0
        self._cut = 0
        self._overlaps = 0
        self._overlap_s = 0.0

    @property
    def num_frames(self) -> int:
        """Frames that exist."""
        return self._num_frames

    @property
    def buffered_frames(self) -> float:
        """Frames that exist and were not yet played, with the played part of the current one taken off."""
        return self._num_frames - self._cursor

    @property
    def in_flight(self) -> int:
        """Chunks asked for and not yet here."""
        return len(self._begun_s)

    @property
    def rate(self) -> float:
        """Playback rate, 1 being the world's own."""
        return self._rate

    @property
    def predicted_s(self) -> float:
        """Expected time from asking for a chunk to its frames."""
        return self._ready.predicted_s

    @property
    def pace(self) -> float:
        """Seconds of the walk that a second brings: less than 1 where the engine is too slow for it."""
        busy_s, refine_s = self._busy.predicted_s, self._refine.predicted_s
        decode_s = self._ready.predicted_s - busy_s - refine_s
        return self.config.chunk_s / max(self.config.chunk_s, busy_s, refine_s, decode_s)

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def counts(self) -> PacingCounts:
        skipped = self._last_index + 1 - self._shown - self._cut
        return PacingCounts(
            self._shown, skipped, self._cut, self._holds, self._hold_s, self._overlaps, self._overlap_s
        )

    def add_first_frame(self) -> None:
        """Note the world's own first frame, which no chunk brings."""
        self._num_frames += 1

    def note_request(self, now_s: float) -> None:
        """Note that a chunk was asked for; the engine begins it when it is done with the one before."""
        free_s = self._begun_s[-1] + self._busy.predicted_s if self._begun_s else now_s
        self._begun_s.append(max(now_s, free_s))

    def add_chunk(
        self,
        num_frames: int,
        start_s: float,
        free_s: float,
        ready_s: float,
        answers: bool = False,
        refine_s: float = 0.0,
    ) -> None:
        """Note a chunk's frames, however late they are noticed here.

        Args:
            num_frames: Video frames it brings.
            start_s: Clock time at which the engine began it.
            free_s: Clock time at which the engine could have begun the next.
            ready_s: Clock time at which it was finished.
            answers: Whether it is the first that knows an input the player waits to see: the next tick goes over
                to it, whatever is left of the frames before.
            refine_s: How long the refiner had it, beside both.
        """
        if answers:
            self._cut_to = float(self._num_frames)
        self._num_frames += num_frames
        self._started = True
        if self._begun_s:
            self._begun_s.popleft()
        self._ready.add(ready_s - start_s)
        self._busy.add(free_s - start_s)
        self._refine.add(refine_s)

    def pause(self, now_s: float) -> None:
        """Stop the clock; chunks on their way still arrive and teach."""
        self.tick(now_s)
        self._paused = True

    def resume(self, now_s: float) -> None:
        """Let the clock go on from where it stood."""
        self._now_s = now_s
        self._paused = False

    def tick(self, now_s: float) -> int | None:
        """Move the clock and say which frame is on.

        Returns:
            The index of the frame to show now, or None while the rollout has no frame.
        """
        elapsed_s = max(0.0, now_s - self._now_s)
        self._now_s = max(self._now_s, now_s)
        if self._num_frames == 0:
            return None
        if not self._paused:
            self._advance(min(elapsed_s, self.config.longest_tick_s))
        index = min(int(self._cursor), self._num_frames - 1)
        if index > self._last_index:
            self._shown += 1
            self._last_index = index
        return index

    def _advance(self, elapsed_s: float) -> None:
        self._cut_over()
        self._slew_rate(elapsed_s)
        wished = self._cursor + elapsed_s * self.config.fps * self._rate
        # The clock waits at the end of the last frame: what comes late is shown at once, and nothing is
        # hurried after it.
        self._cursor = min(wished, float(self._num_frames))
        waiting = wished > self._num_frames and self._started
        if waiting:
            self._hold_s += (wished - self._num_frames) / (self.config.fps * self._rate)
        if waiting and not self._holding:
            self._holds += 1
        self._holding = waiting

    def _cut_over(self) -> None:
        """Leave out what is left before the answer to an input; a longer rest is played faster until it fits."""
        rest_s = (self._cut_to - self._cursor) / self.config.fps
        if 0.0 < rest_s <= self.config.longest_cut_s:
            self._overlaps += 1
            self._overlap_s += rest_s
            self._cut += int(self._cut_to) - (self._last_index + 1)
            self._cursor = self._cut_to

    def _slew_rate(self, elapsed_s: float) -> None:
        """Stretch what is buffered over the wait for the next chunk, or work off too much of it."""
        rate = self._wished_rate()
        step = self.config.rate_slew_per_s * elapsed_s
        self._rate += max(-step, min(step, rate - self._rate))

    def _wished_rate(self) -> float:
        config = self.config
        if self._begun_s:
            wait_s = self._begun_s[0] + self.predicted_s - self._now_s
            if wait_s > 0.0 and self.buffered_frames < wait_s * config.fps:
                return max(config.min_rate, self.buffered_frames / (wait_s * config.fps))
        too_full = self.buffered_frames > config.chunk_frames + config.margin_s * config.fps + 1.0
        if too_full or self._cursor < self._cut_to:
            return config.max_rate
        return 1.0

    def should_request(self, now_s: float) -> bool:
        """Say whether now is the time to ask for the next chunk.

        That is as late as the prediction allows, so that the input is fresh. Where the engine is not done with the one before
        by then, it finds the request when it is, and latches the input of that moment.
        """
        full = self.in_flight >= self.config.max_in_flight
        if self._paused or full or self.buffered_frames > self.config.chunk_frames:
            return False
        unplayed = self.buffered_frames + self.in_flight * self.config.chunk_frames
        deadline_s = now_s + unplayed / self.config.fps
        return now_s >= deadline_s - self.predicted_s - self.config.margin_s


class Playback:
    """The frames of a walk under its presentation clock."""

    def __init__(
        self, config: PacingConfig, frame: WalkFrame, now_s: float, pacer: FramePacer | None = None
    ) -> None:
        """Show a frame; a pacer that has learned from the engine already may be taken over."""
        self.pacer = pacer or FramePacer(config)
        """Says which frame is on, and when to ask for more; what it learns is kept over a new beginning."""
        self._passed: list[WalkFrame] = []
        self._jumped = False
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

    def give_depth(self, inverse_depth: NDArray[np.float32]) -> None:
        """Tell the depth of the frame that is on, [H, W], 1/m, which it was made without."""
        self._frames[0] = replace(self._frames[0], inverse_depth=inverse_depth)

    @property
    def fps_shown(self) -> float:
        """Different frames shown a second, lately."""
        return len(self._shown_s) / SPEED_WINDOW_S

    @property
    def buffered_frames(self) -> float:
        """Frames that exist and were not yet played."""
        return self.pacer.buffered_frames

    @property
    def is_over(self) -> bool:
        """Whether all that was asked for is here, and its last frame is on."""
        return self.pacer.in_flight == 0 and self.pacer.buffered_frames <= 1.0

    def add(self, frames: Sequence[WalkFrame], times: ChunkTimes, answers: bool) -> None:
        """Take in the frames of the next chunk; for `answers` see `FramePacer.add_chunk`."""
        self._frames.extend(frames)
        self.num_frames += len(frames)
        self.pacer.add_chunk(
            len(frames),
            times.model_start_s,
            times.committed_s,
            times.ready_s,
            answers,
            times.refine_ms / 1e3,
        )

    def tick(self, now_s: float) -> None:
        """Move the clock and choose the frame."""
        index = self.pacer.tick(now_s)
        while index is not None and self._frames[0].index < self._first_index + index:
            self._frames.popleft()
            self._pass([self._frames[0]], False, now_s)
        self._forget_old(now_s)

    def should_request(self, now_s: float) -> bool:
        """Say whether now is the time to ask for the next chunk."""
        return self.pacer.should_request(now_s)

    def take_passed(self) -> tuple[list[WalkFrame], bool]:
        """Return the frames that were on since this was asked last, in their order, and whether the first is after a jump."""
        taken, self._passed, self._jumped = (self._passed, self._jumped), [], False
        return taken

    def _pass(self, frames: Sequence[WalkFrame], jumped: bool, now_s: float) -> None:
        """Note frames that were on."""
        self._passed += frames
        self._jumped |= jumped
        self._shown_s.extend(now_s for _ in frames)

    def _forget_old(self, now_s: float) -> None:
        while self._shown_s and self._shown_s[0] < now_s - SPEED_WINDOW_S:
            self._shown_s.popleft()


class RestDetector:
    """Says whether no chunk is needed: the camera has stood still for a while, in seconds of video, and nothing else moves."""

    def __init__(self, animated: bool) -> None:
        """Judge a world; where things move by themselves it never rests."""
        self._animated = animated
        self.begin()

    def begin(self) -> None:
        """Forget the camera: it is elsewhere now."""
        self._still_s = 0.0
        self._c2w: NDArray[np.float64] | None = None
        self._asked_s = self._answered_s = -math.inf
        self._flying: bool | None = None

    def ask(self, posted_s: float) -> None:
        """Note that something was asked for; every chunk knows it whose `latched_s` is no earlier."""
        self._asked_s = posted_s

    def note(
        self, c2w: NDArray[np.float64], duration_s: float, latched_s: float, flying: bool | None
    ) -> None:
        """Note the poses of the next chunk, [F, 4, 4], its length, when its input was latched, and how it was planned."""
        self._answered_s, self._flying = latched_s, flying
        before = c2w[0] if self._c2w is None else self._c2w
        self._c2w = c2w[-1]
        self._still_s = self._still_s + duration_s if is_still(np.concatenate([before[None], c2w])) else 0.0

    def may_rest(self, flying: bool) -> bool:
        """Whether no chunk is needed until something is asked for, by a player who walks or flies."""
        answered = self._answered_s >= self._asked_s
        settled = answered and not self._animated and self._still_s >= REST_AFTER_S
        return settled and flying == self._flying


def is_still(c2w: NDArray[np.float64]) -> bool:
    """Whether a camera stays where it is through poses [F, 4, 4]."""
    moved_m = np.linalg.norm(c2w[:, :3, 3] - c2w[0, :3, 3], axis=-1).max()
    # Entries of two rotation matrices differ by no more than the angle between them.
    turned_rad = np.abs(c2w[:, :3, :3] - c2w[0, :3, :3]).max()
    return bool(moved_m <= STILL_M and turned_rad <= STILL_RAD)
