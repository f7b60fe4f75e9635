"""How far a recipe has come: its phases, the time they have left, and the bars that show it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")


class Itinerary:
    """Phases of a recipe in their order, with the seconds each is thought to take."""

    def __init__(self, expected_s: Mapping[str, float]) -> None:
        self.planned = tuple(expected_s)
        self.left = dict(expected_s)
        """Seconds still ahead in each phase."""

    def begin(self, phase: str) -> None:
        """Enter a phase: planned ones before it are over, whatever was thought of them; one that was not planned ends none."""
        if phase in self.planned:
            over = self.planned[: self.planned.index(phase) + 1]
            self.left |= dict.fromkeys(over, 0.0)

    def update(self, phase: str, left_s: float) -> None:
        """Learn how long the present phase still takes."""
        self.left[phase] = max(0.0, left_s)

    @property
    def left_s(self) -> float:
        return sum(self.left.values())


class Phase:
    """The present phase's bar; anything can be told of it at any time."""

    def __init__(self, name: str, itinerary: Itinerary, bars: Progress | None) -> None:
        self.name, self.itinerary, self.bars = name, itinerary, bars
        self.task = None if bars is None else bars.add_task(name, total=1.0, left="", told="")

    def update(self, done: float, left_s: float, told: str = "") -> None:
        """Move the bar.

        Args:
            done: Share of the phase, in [0, 1].
            left_s: Seconds the phase still takes, as far as is known.
            told: What else there is to say.
        """
        self.itinerary.update(self.name, left_s)
        if self.bars is not None and self.task is not None:
            left = f"{as_duration(left_s)} left, {as_duration(self.itinerary.left_s)} for all"
            self.bars.update(self.task, completed=done, left=left, told=told)


class RecipeProgress:
    """Bars on stderr, one for every phase that has begun; silent where `shown` is off."""

    def __init__(self, expected_s: Mapping[str, float], shown: bool = True) -> None:
        self.itinerary = Itinerary(expected_s)
        self.shown = shown

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Show a phase while the block runs."""
        self.itinerary.begin(name)
        if not self.shown:
            yield Phase(name, self.itinerary, None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[told]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bars:
            phase = Phase(name, self.itinerary, bars)
            yield phase
            phase.update(1.0, 0.0)

    @contextmanager
    def sharing(
        self, name: str, clock: Callable[[], float] = time.monotonic
    ) -> Iterator[Callable[[float], None]]:
        """Show a phase that is told its share; what is done tells how long the rest will take."""
        with self.phase(name) as phase:
            start_s = clock()

            def tell(share: float) -> None:
                phase.update(share, (clock() - start_s) * (1.0 - share) / max(share, 1e-6))

            yield tell

    def over(
        self, name: str, items: Iterable[Item], total: int, clock: Callable[[], float] = time.monotonic
    ) -> Iterator[Item]:
        """Go through the items of a phase; those behind tell how long those ahead will take."""
        with self.sharing(name, clock) as tell:
            for done, item in enumerate(items, 1):
                tell(done / total)
                yield item


def as_duration(seconds: float) -> str:
    """Write seconds as a person would say them."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
