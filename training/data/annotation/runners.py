"""Where clips are judged: in this process, or in several on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from training.data.annotation.clip_job import ClipSettings, annotate_clip
from training.data.annotation.results import ClipResult
from training.data.annotation.shots import ClipPlan
from training.data.clip import LeftOut
from training.data.holodeck.rendering import in_parallel


@dataclass(frozen=True)
class ClipJob:
    """All that judging one clip takes; it can be sent to another process."""

    plan: ClipPlan
    settings: ClipSettings
    caption: str
    identity: str
    folder: Path


Runner = Callable[[Sequence[ClipJob]], Iterator[ClipResult | LeftOut]]
"""Does clip jobs, in any order."""


def do_job(job: ClipJob) -> ClipResult | LeftOut:
    """Judge a clip; one that is damaged is named."""
    try:
        return annotate_clip(job.plan, job.settings, job.caption, job.identity, job.folder)
    except (ValueError, OSError) as error:
        return LeftOut(job.plan.key, str(error))


def in_this_process(jobs: Sequence[ClipJob]) -> Iterator[ClipResult | LeftOut]:
    """Do one job after the other."""
    yield from map(do_job, jobs)


def in_processes(num_workers: int) -> Runner:
    """Do jobs in so many processes of this machine."""

    def run(jobs: Sequence[ClipJob]) -> Iterator[ClipResult | LeftOut]:
        yield from in_parallel([partial(do_job, job) for job in jobs], num_workers)

    return run
