"""Names of generated places."""

from __future__ import annotations

import re

PREFIX = "generated-"
MAX_SEED = 2**32 - 1
MAX_RANGE = 100_000
"""Most places that one range may name."""


def generated_name(seed: int) -> str:
    """The name of the place that grows from a seed."""
    return f"{PREFIX}{seed}"


def generated_seed(name: str) -> int | None:
    """The seed in the name of a generated place; None where a name is of another form or the seed too large."""
    match = re.fullmatch(rf"{PREFIX}(0|[1-9][0-9]{{0,9}})", name)
    seed = int(match.group(1)) if match else MAX_SEED + 1
    return seed if seed <= MAX_SEED else None


def expand_range(text: str) -> list[str]:
    """Expand `generated-FIRST..LAST`, both ends included, into names; any other text stays the one name that it is.

    Raises:
        ValueError: The range is empty or too long.
    """
    match = re.fullmatch(rf"{PREFIX}([0-9]{{1,10}})\.\.([0-9]{{1,10}})", text)
    if match is None:
        return [text]
    first, last = int(match.group(1)), int(match.group(2))
    if not 0 <= last - first < MAX_RANGE:
        raise ValueError(f"{text} names no or too many places; give a range of 1 to {MAX_RANGE}")
    return [generated_name(seed) for seed in range(first, last + 1)]
