"""The order of names that people expect: by the numbers in them, so that 2 comes before 10."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Return the key to sort names by: runs of digits as numbers, the rest without regard to case, then as written."""
    parts = _DIGITS.split(name.replace("\\", "/").casefold())
    # Text stands at even places and digits at odd ones; a folder's mark comes before all other text.
    key = [(1, int(part)) if place % 2 else (0, part.replace("/", "\0")) for place, part in enumerate(parts)]
    return tuple(key), name
