"""Several processes that work on one thing, for tests."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup

LONGEST_S = 300
"""After which a process that waits for others in vain gives up."""

Work = Callable[..., dict[str, Any]]


class Processes:
    """Processes for one piece of work after another, forked from one that has imported everything already.

    None works twice: torch remembers the rank that a process once had.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.context = multiprocessing.get_context("forkserver")
        # Torch imports its compiler with the first step, in each process.
        self.context.set_forkserver_preload(["torch._dynamo", "tests.sharding_cases", "tests.cluster_cases"])

    def run(self, size: int, work: Work, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
        """Call `work(group, *arguments, **named)` in `size` processes and return what each answers.

        Once in some hundred times a process dies within gloo ("double free or corruption"): the work is done again then, once.
        """
        try:
            return self._run(size, work, arguments, named)
        except BrokenProcessPool:
            print("a process died; its work is done again", file=sys.stderr)
            return self._run(size, work, arguments, named)

    def _run(
        self, size: int, work: Work, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> list[dict[str, Any]]:
        self.number += 1
        store = f"file://{self.folder / f'store-{self.number}'}"
        with ProcessPoolExecutor(size, self.context) as pool:
            futures = [pool.submit(_join, store, rank, size, work, arguments, named) for rank in range(size)]
            return [future.result() for future in futures]


def _join(
    store: str, rank: int, size: int, work: Work, arguments: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any]:
    torch.set_num_threads(1)
    limit = timedelta(seconds=LONGEST_S)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=limit)
    try:
        group = dist.group.WORLD
        assert isinstance(group, ProcessGroup)
        answer = work(group, *arguments, **named)
        dist.barrier()
        return answer
    finally:
        dist.destroy_process_group()
