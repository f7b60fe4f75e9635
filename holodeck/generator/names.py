"""Names of generated places."""

from __future__ import annotations

import re

PREFIX = "generated-"
MAX_SEED = 2**32 - 1


def generated_name(seed: int) -> str:
    """The name of the place that grows from a seed."""
    return f"{PREFIX}{seed}"


def generated_seed(name: str) -> int | None:
    """The seed in the name of a generated place; None where a name is of another form or the seed too large."""
    match = re.fullmatch(rf"{PREFIX}(0|[1-9][0-9]{{0,9}})", name)
    seed = int(match.group(1)) if match else MAX_SEED + 1
    return seed if seed <= MAX_SEED else None
