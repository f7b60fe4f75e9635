"""What stands between whoever asks and the chunks that answer: posted often, read once for each chunk.

Knows no threads: whoever shares one holds a lock around it.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

IntentT = TypeVar("IntentT")


class Mailbox(Protocol[IntentT]):
    """Where intents wait for the next chunk to be latched."""

    def post(self, intent: IntentT) -> None:
        """Note what is wanted now."""

    def take(self) -> IntentT:
        """Return what the next chunk is to know; what was wanted once is used up by it."""
        ...

    def let_go(self) -> None:
        """Drop touches that nobody has taken: when the next chunk comes they will be of long ago."""

    def forget(self) -> None:
        """Drop everything but what is held: the next chunk is of another rollout."""


class LatestWins(Generic[IntentT]):
    """Keeps what was posted last, and gives it to every chunk until the next post."""

    def __init__(self, intent: IntentT) -> None:
        self._intent = intent

    def post(self, intent: IntentT) -> None:
        self._intent = intent

    def take(self) -> IntentT:
        return self._intent

    def let_go(self) -> None:
        pass

    def forget(self) -> None:
        pass
