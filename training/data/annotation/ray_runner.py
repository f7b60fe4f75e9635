"""Clip jobs on the machines of a Ray cluster.

Jobs are tasks that depend on nothing but what they are sent and write their own files, so a worker that dies costs its clip
another try and no more. Workers write into the set's folder: on several machines it lies on a file system that all of them share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import ray  # pyright: ignore[reportMissingImports]  # an extra that the tests do without
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

from training.data.annotation.results import ClipResult
from training.data.annotation.runners import ClipJob, do_job
from training.data.clip import LeftOut

TRIES = 3
"""More of a clip whose worker died."""
AHEAD = 4
"""Jobs a processor that are handed to the cluster at once; it keeps the others' plans out of its memory."""
LOCAL = "local"


def in_ray(address: str, num_workers: int) -> Callable[[Sequence[ClipJob]], Iterator[ClipResult | LeftOut]]:
    """Do jobs on a cluster.

    Args:
        address: Of the cluster, or "local" for one that is started on this machine and ends with the work.
        num_workers: Processors of a local cluster.
    """

    def run(jobs: Sequence[ClipJob]) -> Iterator[ClipResult | LeftOut]:
        _connect(address, num_workers)
        try:
            yield from _all(jobs)
        finally:
            ray.shutdown()

    return run


def _connect(address: str, num_workers: int) -> None:
    shared = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": False}
    try:
        if address == LOCAL:
            ray.init(num_cpus=num_workers, include_dashboard=False, **shared)
        else:
            ray.init(address=address, **shared)
    # A node that does not start in time is a bare Exception.
    except Exception as error:
        if address == LOCAL:
            raise ValueError(
                f"Ray does not start on this machine ({_first_line(error)}); try again when less runs here, or take "
                "--workers without --ray"
            ) from error
        raise ValueError(
            f"no Ray cluster answers at {address} ({_first_line(error)}); start one with `ray start --head`, or leave "
            "the address out"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _all(jobs: Sequence[ClipJob]) -> Iterator[ClipResult | LeftOut]:
    cpu, gpu = (ray.remote(num_cpus=1, num_gpus=share, max_retries=TRIES)(do_job) for share in (0, 1))
    room = max(1, AHEAD * int(ray.cluster_resources().get("CPU", 1)))
    has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    waiting, running = list(reversed(jobs)), {}
    while waiting or running:
        while waiting and len(running) < room:
            job = waiting.pop()
            # Steps that want a GPU wait for one in a pool of their own, so the others never do; where there is none, none waits.
            task = gpu if job.settings.needs_gpu and has_gpu else cpu
            running[task.remote(job)] = job
        [done], _ = ray.wait(list(running))
        job = running.pop(done)
        try:
            yield ray.get(done)
        except RayError as error:
            kind = type(error).__name__
            yield LeftOut(
                job.plan.key, f"{job.plan.key} ended {TRIES + 1} workers ({kind}); look at its source"
            )
