"""Work that must not hold up the picture: files are written and read one after another beside the walk.

It outlives the walk it was begun in: what became of it is told on whatever screen is on by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class _Chore:
    """Something begun and not told of."""

    what: str
    future: Future[Any]
    then: Callable[[Any], None]
    failed: Callable[[Exception], None]

    def tell(self) -> None:
        """Say what became of it; it must be done."""
        error = self.future.exception()
        if error is None:
            self.then(self.future.result())
        elif isinstance(error, Exception):
            self.failed(error)
        else:
            raise error


class Chores:
    """One thread for files, while there is work; what became of each piece is told on the client thread."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._begun: deque[_Chore] = deque()

    @property
    def in_hand(self) -> str | None:
        """What is being done, such as "the clip"; None where nothing is."""
        return self._begun[0].what if self._begun else None

    def begin(
        self,
        what: str,
        run: Callable[[], ResultT],
        then: Callable[[ResultT], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run something on the thread; `update` tells `then` of its result, or `failed` of its error."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "flaneur-chores")
        self._begun.append(_Chore(what, self._executor.submit(run), then, failed))

    def update(self) -> bool:
        """Tell of what is done by now; say whether anything was."""
        told = False
        while self._begun and self._begun[0].future.done():
            told = True
            self._begun.popleft().tell()
        if not self._begun and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
        return told

    def finish(self) -> list[Exception]:
        """Wait for everything begun: nobody should lose a file by leaving early; return what went wrong."""
        errors = [chore.future.exception() for chore in self._begun]
        self._begun.clear()
        self.update()
        return [error for error in errors if isinstance(error, Exception)]
