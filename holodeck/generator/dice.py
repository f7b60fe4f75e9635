"""Random choices that are the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws from a seed; only `Random.random` is used, the one method whose stream Python guarantees."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def chance(self, probability: float) -> bool:
        """Be true with this probability."""
        return self._random.random() < probability

    def between(self, low: float, high: float) -> float:
        """Draw a number, rounded to a thousandth (a millimetre where it is a length)."""
        return round(low + (high - low) * self._random.random(), 3)

    def count(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return low + int((high - low + 1) * self._random.random())

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of some options."""
        return options[int(len(options) * self._random.random())]

    def weighted(self, options: Mapping[T, float]) -> T:
        """Draw a key with a probability in proportion to its value."""
        rest = self._random.random() * sum(options.values())
        for key, weight in options.items():
            rest -= weight
            if rest < 0:
                return key
        return next(reversed(list(options)))

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return the options in random order."""
        left = list(options)
        return [left.pop(int(len(left) * self._random.random())) for _ in options]
