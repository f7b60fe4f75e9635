"""Work that must not hold up the picture: files are written and read one after another beside the walk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class Chores:
    """One thread for files; what became of each piece of work is told on the client thread."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "flaneur-chores")
        self._begun: deque[tuple[Future[Any], Callable[[Any], None], Callable[[Exception], None]]] = deque()

    @property
    def is_busy(self) -> bool:
        return bool(self._begun)

    def begin(
        self,
        run: Callable[[], ResultT],
        then: Callable[[ResultT], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run something on the thread; `update` tells `then` of its result, or `failed` of its error."""
        self._begun.append((self._executor.submit(run), then, failed))

    def update(self) -> bool:
        """Tell of what is done by now; say whether anything was."""
        told = False
        while self._begun and self._begun[0][0].done():
            future, then, failed = self._begun.popleft()
            told = True
            error = future.exception()
            if error is None:
                then(future.result())
            elif isinstance(error, Exception):
                failed(error)
            else:
                raise error
        return told

    def close(self) -> None:
        """Leave what was begun to finish by itself: nobody should lose a file by leaving early, nor wait for it.

        The program's end waits for what is not done by then.
        """
        self._executor.shutdown(wait=False)
        self._begun.clear()
