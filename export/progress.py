"""What long work is told to say of how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]
"""Told the steps done."""
Stage = Callable[[str, int | None], Progress]
"""Opens a progress bar: told the work and its number of steps, it returns what is told the steps done."""


def unseen(_what: str, _total: int | None) -> Progress:
    """Open no bar."""
    return lambda _done: None
