"""How many denoising steps a chunk is worth: fewer where chunks take longer than they play, more once there is time.

Pure arithmetic over the times of chunks; knows no clock and no engine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class StepControllerConfig:
    """When to change, with hysteresis: lowered soon, raised late, and later each time that raising failed."""

    most_steps: int
    """Of the whole schedule."""
    deadline_s: float
    """How long a chunk plays: one that keeps the engine busy for longer is late."""
    window: int = 4
    """Chunks looked at together."""
    late_to_lower: int = 3
    """Late ones among them that lower the steps; fewer are a stall, which no schedule mends."""
    headroom: float = 0.85
    """Share of the deadline that a chunk of more steps may be expected to take."""
    patience: int = 8
    """Chunks in a row that must leave room for one step more before it is tried."""
    longest_patience: int = 128


class StepController:
    """Chooses the steps of the next chunks from the times of the last ones."""

    def __init__(self, config: StepControllerConfig) -> None:
        self.config = config
        self.num_steps = config.most_steps
        """For the next chunk."""
        self._patience: dict[int, int] = {}
        self._since_raise: int | None = None
        self._forget()

    @property
    def lowered(self) -> bool:
        """Whether chunks are made with fewer steps than the whole schedule."""
        return self.num_steps < self.config.most_steps

    def note_chunk(self, num_steps: int, denoise_s: float, commit_s: float) -> bool:
        """Learn from a chunk; say whether the number of steps changed.

        Args:
            num_steps: It was made with; a chunk asked for before the last change teaches nothing.
            denoise_s: Time of all its steps.
            commit_s: Time that the engine was busy with it beyond them.
        """
        if num_steps != self.num_steps:
            return False
        self._denoise_s.append(denoise_s)
        self._commit_s.append(commit_s)
        self._late.append(denoise_s + commit_s > self.config.deadline_s)
        if self.num_steps > 1 and sum(self._late) >= self.config.late_to_lower:
            self._lower()
            return True
        self._note_in_time()
        if self._room >= self._patience_for(self.num_steps + 1):
            self._change_to(self.num_steps + 1)
            self._since_raise = 0
            return True
        return False

    def _note_in_time(self) -> None:
        limit_s = self.config.headroom * self.config.deadline_s
        fits = self.lowered and self._expected_s(self.num_steps + 1) <= limit_s
        self._room = self._room + 1 if fits and not self._late[-1] else 0
        if self._since_raise is not None:
            self._since_raise += 1
            if self._since_raise >= 4 * self.config.patience:
                # The step that was added has held: if it is lost again it is tried as soon as at first.
                self._patience.pop(self.num_steps, None)
                self._since_raise = None

    def _lower(self) -> None:
        """Go down to the most steps that are expected to fit, at least by one."""
        if self._since_raise is not None:
            longer = 2 * self._patience_for(self.num_steps)
            self._patience[self.num_steps] = min(longer, self.config.longest_patience)
            self._since_raise = None
        num_steps = self.num_steps - 1
        while num_steps > 1 and self._expected_s(num_steps) > self.config.deadline_s:
            num_steps -= 1
        self._change_to(num_steps)

    def _patience_for(self, num_steps: int) -> int:
        """Return the chunks in time that it takes to go up to a number of steps."""
        return self._patience.get(num_steps, self.config.patience)

    def _expected_s(self, num_steps: int) -> float:
        """Return how long a chunk of so many steps would keep the engine busy."""
        return median(self._denoise_s) * num_steps / self.num_steps + median(self._commit_s)

    def _change_to(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._forget()

    def _forget(self) -> None:
        self._denoise_s: deque[float] = deque(maxlen=self.config.window)
        self._commit_s: deque[float] = deque(maxlen=self.config.window)
        self._late: deque[bool] = deque(maxlen=self.config.window)
        self._room = 0
