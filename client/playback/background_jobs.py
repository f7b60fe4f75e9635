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
        self._fraction: float | None = None
        self._shown: tuple[str, int | None] | None = None

    @property
    def current(self) -> str | None:
        """The job under way, such as "the clip"; None where there is none."""
        return self._jobs[0].name if self._jobs else None

    @property
    def is_busy(self) -> bool:
        """Whether a job is not done yet, reported or not."""
        return any(not job.future.done() for job in self._jobs)

    def report(self, fraction: float) -> None:
        """Say how far the job under way is, 0 to 1; called by the job, on its thread."""
        self._fraction = fraction

    @property
    def progress(self) -> tuple[str, int | None] | None:
        """The job under way and how far it is, in percent, None where it does not say; None where there is no job."""
        if self.current is None:
            return None
        fraction = self._fraction
        return self.current, None if fraction is None else round(100 * fraction)

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
        """Report the jobs that are done by now; say whether there was one, or one has come further."""
        while self._jobs and self._jobs[0].future.done():
            job = self._jobs.popleft()
            self._fraction = None
            job.report()
        before, self._shown = self._shown, self.progress
        if not self._jobs and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
        return self._shown != before

    def finish(self) -> list[Exception]:
        """Wait for all jobs: nobody should lose a file by leaving early; return what went wrong."""
        errors = [job.future.exception() for job in self._jobs]
        self._jobs.clear()
        self.update()
        return [error for error in errors if isinstance(error, Exception)]
