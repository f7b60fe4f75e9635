"""What a stage is about to do, in words and numbers, and whether it fits into the memory of this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from engine.machine.hardware import machine_bytes
from model.config import ModelConfig
from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
from training.parallel.cost_model import (
    FROZEN_BYTES,
    GIB,
    memory_bytes,
    num_parameters,
    state_bytes,
    whole_bytes,
)
from training.stages.config import DistillationConfig, NoiseConfig, RefiningConfig, StageConfig
from training.stages.table import STAGES


def stage_plan(config: StageConfig, temporal_stride: int) -> dict[str, str]:
    """List a stage's numbers.

    Args:
        temporal_stride: Video frames per latent frame.
    """
    stage = STAGES[config.stage]
    frames = 1 + temporal_stride * (config.num_latent_frames - 1)
    clip = f"{config.num_latent_frames} latent frames, {frames} video frames"
    plan = {
        "stage": config.stage,
        "purpose": stage.purpose,
        "starts from": stage.starts_from or "random weights",
        "data": config.data,
        "clip": f"two groups of {temporal_stride} frames" if stage.is_autoencoder else clip,
        "batch": f"{config.batch_size} clips"
        + (f", each shared by {config.context_parallel} processes" if config.context_parallel > 1 else ""),
        "optimiser": _optimiser(config.optimizer),
        "length": _length(config.loop),
        "loss": stage.loss,
    }
    if config.refining is not None:
        return plan | _refining(config.refining)
    if config.quantization is not None and config.distillation is not None:
        steps = ", ".join(map(str, config.distillation.timesteps))
        return plan | {
            "student": f"timesteps {steps}, 0; large layers in {config.quantization}, whose weights learn",
            "teacher": "the same network in full precision",
        }
    if config.distillation is not None:
        return plan | _distillation(config.distillation, not stage.is_distribution_matching)
    return plan if stage.is_autoencoder else plan | {"noise": _noise(config.noise)}


def _optimiser(config: OptimizerConfig) -> str:
    adam = f"AdamW {config.adam_lr:g}, betas {config.betas}, decay {config.adam_decay:g}"
    average = f"averaged at {config.ema_decay:g}" if config.ema_decay else "no average"
    muon = "" if config.min_side > 1 << 20 else f"Muon {config.muon_lr:g} for matrices, "
    return f"{muon}{adam}, gradients cut at {config.clip_norm:g}, {average}"


def _length(loop: LoopConfig) -> str:
    steps = f"{loop.num_steps} steps"
    if math.isfinite(loop.max_minutes):
        steps += f" or {loop.max_minutes:g} minutes"
    if loop.final_lr == 1.0:
        return steps + ", constant rate"
    return steps + f", rate falling to {loop.final_lr:g} of itself over the last {100 * loop.decay:.0f} %"


def _noise(config: NoiseConfig) -> str:
    names = ("one level", "incremental", "anchored at the last chunk", "teacher forcing")
    rules = [f"{share:g} {name}" for share, name in zip(config.mixture.shares, names, strict=True) if share]
    return (
        f"logit-normal, shift {config.shift:g}; {', '.join(rules)}; first frame given with chance "
        f"{config.image_conditioning:g}, caption dropped with {config.caption_dropout:g}"
    )


def _refining(config: RefiningConfig) -> dict[str, str]:
    trained = "all weights of a new network"
    if config.rank is not None:
        trained = f"adapters of rank {config.rank} on the network named with --from"
    return {
        "pairs": f"{config.num_pairs} clips made again in {len(config.timesteps)} steps, or those of --data; in "
        f"{config.degraded_share:.0%} of samples a clip of less detail",
        "trained": trained,
        "block": f"{config.block_size} latent frames behind the first and any before it",
        "noise": f"logit-normal up to {config.sigmas[0]:g}, shifted by the number of tokens; a tenth uniform",
    }


def _distillation(config: DistillationConfig, is_regression: bool) -> dict[str, str]:
    plan = {"student": f"timesteps {', '.join(map(str, config.timesteps))}, 0"}
    if is_regression:
        between = config.teacher_steps_between
        plan["teacher"] = f"{config.num_trajectories} trajectories, {between} Euler steps between two of them"
        return plan
    memory = "all chunks" if config.num_cached_chunks is None else f"{config.num_cached_chunks} chunks"
    low, high = config.score_range
    return plan | {
        "memory": memory + (", the first of them for ever" if config.sink else ""),
        "turns": f"critic at every step, student at every {config.generator_every}th",
        "critic": _optimiser(config.critic),
        "scores": f"guidance {config.guidance:g}, shift {config.score_shift:g}, timesteps {low:g} to {high:g}",
    }


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
