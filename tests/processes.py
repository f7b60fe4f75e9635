"""Several processes that work on one thing, for tests."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup

MOST = 4
LONGEST_S = 60
"""After which a process that waits for others in vain gives up."""

Work = Callable[..., dict[str, Any]]


class Processes:
    """A few processes that wait for work; they are forked from one that has imported torch already."""

    def __init__(self, pool: ProcessPoolExecutor, folder: Path) -> None:
        self.pool, self.folder, self.number = pool, folder, 0

    def run(self, size: int, work: Work, *arguments: Any) -> list[dict[str, Any]]:
        """Call `work(group, *arguments)` in `size` processes and return what each answers."""
        self.number += 1
        store = f"file://{self.folder / f'store-{self.number}'}"
        futures = [self.pool.submit(_join, store, rank, size, work, arguments) for rank in range(size)]
        return [future.result() for future in futures]


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """Keep processes at hand."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed.fsdp"])
    with ProcessPoolExecutor(MOST, context) as pool:
        yield Processes(pool, folder)


def _join(store: str, rank: int, size: int, work: Work, arguments: tuple[Any, ...]) -> dict[str, Any]:
    torch.set_num_threads(1)
    limit = timedelta(seconds=LONGEST_S)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=limit)
    try:
        group = dist.group.WORLD
        assert isinstance(group, ProcessGroup)
        answer = work(group, *arguments)
        dist.barrier()
        return answer
    finally:
        dist.destroy_process_group()
