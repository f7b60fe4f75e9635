"""Whether what a stage must hold fits into the memory of this machine, told before anything is built."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from engine.machine.hardware import machine_bytes
from model.config import ModelConfig
from training.parallel.cost_model import (
    FROZEN_BYTES,
    GIB,
    memory_bytes,
    num_parameters,
    state_bytes,
    whole_bytes,
)
from training.stages.config import StageConfig


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a training has on this machine."""

    num_processes: int
    """Of the whole training, on all machines."""
    memory_each: int | None
    """Bytes of the machine for each process here; None where it cannot be told."""
    gpu_each: int | None = None
    """Bytes of each process's GPU; None where processors compute."""

    @property
    def processes(self) -> str:
        """How many, in words."""
        return "1 process" if self.num_processes == 1 else f"{self.num_processes} processes"

    @property
    def computing(self) -> int | None:
        """Bytes for each process where it computes."""
        return self.memory_each if self.gpu_each is None else self.gpu_each


def budget_alone() -> MemoryBudget:
    """Look how much memory there is for a process on its own, which computes on processors."""
    return MemoryBudget(1, machine_bytes())


def budget_here(num_processes: int, num_here: int) -> MemoryBudget:
    """Look how much memory there is for each of several processes, of which `num_here` are on this machine."""
    whole = machine_bytes()
    each = None if whole is None else whole // num_here
    if not torch.cuda.is_available():
        return MemoryBudget(num_processes, each)
    # Unlike `mem_get_info`, properties take no memory of a GPU that is another process's.
    return MemoryBudget(num_processes, each, torch.cuda.get_device_properties(0).total_memory)


def expected_gib(
    stage: StageConfig, config: ModelConfig, budget: MemoryBudget, context_parallel: int, clips_at_once: int
) -> float:
    """Estimate what a process of a training holds where it computes, as `flaneur train needs` does.

    Args:
        context_parallel: Processes that share one clip.
        clips_at_once: Clips of a step that are beside one another in a process; the others follow.
    """
    groups = max(1, budget.num_processes // context_parallel)
    batches = -(-stage.batch_size // (groups * clips_at_once))
    laid_out = replace(stage, context_parallel=context_parallel)
    recompute = budget.num_processes > 1
    state, gathered, activations = memory_bytes(laid_out, config, budget.num_processes, batches, recompute)
    return (state + gathered + clips_at_once * activations) / GIB


def check_memory(stage: StageConfig, config: ModelConfig, budget: MemoryBudget) -> None:
    """Refuse a stage whose weights and optimiser alone are more than the budget.

    Raises:
        ValueError: They are.
    """
    whole, state = whole_bytes(stage, config), state_bytes(stage, config, budget.num_processes)
    if budget.gpu_each is not None:
        # Networks come to a GPU one after another, each whole until it is shared out.
        state = max(state, FROZEN_BYTES * num_parameters(config)[1])
        _check(state, budget.gpu_each, "of its GPU", "more processes", stage, config, budget)
        state = 0.0
    _check(state, budget.memory_each, "of memory", "more machines with torchrun", stage, config, budget)
    _check(whole, budget.memory_each, "of memory", "fewer processes on each machine", stage, config, budget)


def _check(
    least: float,
    there: int | None,
    where: str,
    remedy: str,
    stage: StageConfig,
    config: ModelConfig,
    budget: MemoryBudget,
) -> None:
    if there is not None and least > there:
        raise ValueError(
            f"{stage.stage} of {config.name} holds at least {least / GIB:.0f} GiB {where} in each of {budget.processes}, "
            f"and there are {there / GIB:.0f} GiB for one here; use {remedy}, or a smaller network with --config"
        )
