"""What a chunk is worth: fewer denoising steps and no refiner where chunks take longer than they play, more once there is time.

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
    """How long a chunk plays: one that keeps the engine or the refiner busy for longer is late."""
    refines: bool = False
    """Whether chunks can be refined: dropped before any step is, and brought back after the last."""
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
    """Chooses steps and refiner for the next chunks from the times of the last ones.

    Its level is the number of steps, and one more where chunks are refined, too.
    """

    def __init__(self, config: StepControllerConfig) -> None:
        self.config = config
        self._top = config.most_steps + config.refines
        self._level = self._top
        self._patience: dict[int, int] = {}
        self._since_raise: int | None = None
        self._refined_s: tuple[float, float] | None = None
        """Times of denoising and of refining when chunks were last refined."""
        self._forget()

    @property
    def num_steps(self) -> int:
        """Denoising steps of the next chunk."""
        return min(self._level, self.config.most_steps)

    @property
    def refines(self) -> bool:
        """Whether the next chunk is refined."""
        return self._level > self.config.most_steps

    @property
    def lowered(self) -> bool:
        """Whether chunks are made with fewer steps than the whole schedule."""
        return self._level < self.config.most_steps

    def allow_refiner(self, allowed: bool) -> None:
        """Follow the player's wish; refining that is allowed again begins at once unless steps are lowered."""
        top = self.config.most_steps + (allowed and self.config.refines)
        if top != self._top:
            self._top = top
            if not self.lowered:
                self._change_to(top)

    def note_chunk(
        self, num_steps: int, denoise_s: float, commit_s: float, refine_s: float | None = None
    ) -> bool:
        """Learn from a chunk; say whether the next are made another way.

        Args:
            num_steps: It was made with; a chunk asked for before the last change teaches nothing.
            denoise_s: Time of all its steps.
            commit_s: Time that the engine was busy with it beyond them.
            refine_s: Time of the refiner, beside which the next chunk is denoised; None where it was not refined.
        """
        if num_steps != self.num_steps or (refine_s is not None) != self.refines:
            return False
        self._denoise_s.append(denoise_s)
        self._commit_s.append(commit_s)
        self._refine_s.append(refine_s or 0.0)
        self._late.append(max(denoise_s + commit_s, refine_s or 0.0) > self.config.deadline_s)
        if self._level > 1 and sum(self._late) >= self.config.late_to_lower:
            self._lower()
            return True
        self._note_in_time()
        if self._room >= self._patience_for(self._level + 1):
            self._change_to(self._level + 1)
            self._since_raise = 0
            return True
        return False

    def _note_in_time(self) -> None:
        limit_s = self.config.headroom * self.config.deadline_s
        fits = self._level < self._top and self._expected_s(self._level + 1) <= limit_s
        self._room = self._room + 1 if fits and not self._late[-1] else 0
        if self._since_raise is not None:
            self._since_raise += 1
            if self._since_raise >= 4 * self.config.patience:
                # What was added has held: if it is lost again it is tried as soon as at first.
                self._patience.pop(self._level, None)
                self._since_raise = None

    def _lower(self) -> None:
        """Drop the refiner, or go down to the most steps that are expected to fit, at least by one."""
        if self._since_raise is not None:
            longer = 2 * self._patience_for(self._level)
            self._patience[self._level] = min(longer, self.config.longest_patience)
            self._since_raise = None
        level = self._level - 1
        if self.refines:
            # Denoising may be late only for what the refiner takes from it: its steps are judged without it.
            self._refined_s = median(self._denoise_s), median(self._refine_s)
        else:
            while level > 1 and self._expected_s(level) > self.config.deadline_s:
                level -= 1
        self._change_to(level)

    def _patience_for(self, level: int) -> int:
        """Return the chunks in time that it takes to go up to a level."""
        return self._patience.get(level, self.config.patience)

    def _expected_s(self, level: int) -> float:
        """Return how long a chunk of a level would keep the engine or the refiner busy."""
        most, commit_s = self.config.most_steps, median(self._commit_s)
        denoise_s = median(self._denoise_s)
        if level <= most:
            return denoise_s * level / self.num_steps + commit_s
        if self._refined_s is None:
            return denoise_s + commit_s
        # The refiner is taken to be as much faster or slower by now as the steps are.
        before_s, refine_s = self._refined_s
        return max(denoise_s + commit_s, refine_s * denoise_s / max(before_s, 1e-9))

    def _change_to(self, level: int) -> None:
        self._level = level
        self._forget()

    def _forget(self) -> None:
        self._denoise_s: deque[float] = deque(maxlen=self.config.window)
        self._commit_s: deque[float] = deque(maxlen=self.config.window)
        self._refine_s: deque[float] = deque(maxlen=self.config.window)
        self._late: deque[bool] = deque(maxlen=self.config.window)
        self._room = 0
