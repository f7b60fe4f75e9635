"""Background jobs: files are written and read one after another, without holding up the picture.

A job outlives the walk it was started in: its result is reported on whatever screen is on by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class _Job:
    """A job that was started and not reported."""

    name: str
    future: Future[Any]
    then: Callable[[Any], None]
    failed: Callable[[Exception], None]

    def report(self) -> None:
        """Hand on its result; it must be done."""
        error = self.future.exception()
        if error is None:
            self.then(self.future.result())
        elif isinstance(error, Exception):
            self.failed(error)
        else:
            raise error


class BackgroundJobs:
    """One thread for files, while there are jobs; their results are reported on the client thread."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._jobs: deque[_Job] = deque()

    @property
    def current(self) -> str | None:
        """The job under way, such as "the clip"; None where there is none."""
        return self._jobs[0].name if self._jobs else None

    def start(
        self,
        name: str,
        run: Callable[[], ResultT],
        then: Callable[[ResultT], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run something on the thread; `update` hands its result to `then`, or its error to `failed`."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "flaneur-jobs")
        self._jobs.append(_Job(name, self._executor.submit(run), then, failed))

    def update(self) -> bool:
        """Report the jobs that are done by now; say whether there was one."""
        reported = False
        while self._jobs and self._jobs[0].future.done():
            reported = True
            self._jobs.popleft().report()
        if not self._jobs and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
        return reported

    def finish(self) -> list[Exception]:
        """Wait for all jobs: nobody should lose a file by leaving early; return what went wrong."""
        errors = [job.future.exception() for job in self._jobs]
        self._jobs.clear()
        self.update()
        return [error for error in errors if isinstance(error, Exception)]
