"""Hands actions to methods by name, until the screens fill an `actions.ActionTable`, which replaces this."""

from __future__ import annotations

from collections.abc import Sequence


class Answering:
    """Hands actions to whoever answers them, in methods called `do_NAME` and, where they last, `end_NAME`."""

    def __init__(self, owners: Sequence[object]) -> None:
        self.owners = owners
        self._held: set[tuple[int, str]] = set()

    def begin(self, name: str, now_s: float, key: int | None = None) -> None:
        """Begin an action; one that a key began lasts until that key ends it."""
        if key is not None:
            self._held.add((key, name))
        self._call(f"do_{name}", now_s)

    def end(self, key: int, now_s: float) -> None:
        """End what a key began."""
        for held in [held for held in self._held if held[0] == key]:
            self._held.discard(held)
            self._call(f"end_{held[1]}", now_s)

    def end_all(self, now_s: float) -> None:
        """End everything that a key began: its release may never be seen."""
        for key, _ in list(self._held):
            self.end(key, now_s)

    def _call(self, method: str, now_s: float) -> None:
        for owner in self.owners:
            if (answer := getattr(owner, method, None)) is not None:
                answer(now_s)
