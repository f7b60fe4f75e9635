"""Whether what a stage must hold fits into the memory of this machine, told before anything is built."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from model.config import ModelConfig
from training.configs import StageConfig
from training.parallel.needs import GIB, least_bytes, memory_bytes


@dataclass(frozen=True)
class Room:
    """The memory that a training has on this machine."""

    num_processes: int
    """Of the whole training, on all machines."""
    num_here: int
    """Of them on this machine."""
    bytes_each: int | None
    """For each process here: of its GPU, or its share of the machine; None where it cannot be told."""

    @property
    def processes(self) -> str:
        """How many, in words."""
        return "1 process" if self.num_processes == 1 else f"{self.num_processes} processes"


def room_here(num_processes: int = 1, num_here: int = 1) -> Room:
    """Look how much memory there is."""
    if torch.cuda.is_available():
        return Room(num_processes, num_here, torch.cuda.mem_get_info()[1])
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return Room(num_processes, num_here, None)
    return Room(num_processes, num_here, whole // num_here)


def expected_gib(stage: StageConfig, config: ModelConfig, room: Room) -> float:
    """Estimate what a process of a training holds, as `flaneur train needs` does."""
    is_shared = room.num_processes > 1
    groups = max(1, room.num_processes // stage.context_parallel)
    batches = -(-stage.batch_size // groups)
    parts = memory_bytes(stage, config, room.num_processes, batches, recompute=is_shared)
    return sum(parts) / GIB


def check_room(stage: StageConfig, config: ModelConfig, room: Room) -> None:
    """Refuse a stage whose weights and optimiser alone are more than there is room for.

    Raises:
        ValueError: They are.
    """
    least = least_bytes(stage, config, room.num_processes)
    if room.bytes_each is not None and least > room.bytes_each:
        raise ValueError(
            f"{stage.stage} of {config.name} holds at least {least / GIB:.0f} GiB in each of {room.processes}, "
            f"and there are {room.bytes_each / GIB:.0f} GiB for one here; use more "
            "machines with torchrun, or a smaller network with --config"
        )
