"""What a stage is about to do, in words and numbers, for people to read before it begins."""

from __future__ import annotations

import math

from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
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
