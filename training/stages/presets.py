"""The numbers of every stage: for the pocket on two processor cores, and the paper's for a cluster.

The paper's are those of its table 7 and of the public training configs; where neither says, a comment does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.refiner import RefinerConfig, released_refiner
from model.sampler import STREAMING_TIMESTEPS
from training.loop import LoopConfig
from training.optimizer import NO_MATRIX, OptimizerConfig
from training.stages.config import DistillationConfig, NoiseConfig, RefiningConfig, StageConfig
from training.stages.noise import ONE_LEVEL, ChunkMixture

VIDEOS = "videos of walks through holodeck places"
POCKET_TIMESTEPS = tuple(map(int, STREAMING_TIMESTEPS))
"""Of the pocket's students: the public streaming schedule."""


def _pocket_autoencoder(name: str, minutes: float) -> StageConfig:
    return StageConfig(
        name,
        data=VIDEOS,
        num_latent_frames=2,
        batch_size=10,
        crop=(96, 160),
        optimizer=OptimizerConfig(muon_lr=0.03, adam_lr=2e-3),
        loop=LoopConfig(20_000, minutes, decay=0.95, final_lr=0.02),
    )


def _pocket(name: str, minutes: float, length: int, **fields: Any) -> StageConfig:
    """A stage before distillation: Muon for matrices, half as much shift as the paper since frames have few tokens."""
    noise = NoiseConfig(fields.pop("mixture", ONE_LEVEL), shift=3.0)
    optimizer = OptimizerConfig(muon_lr=fields.pop("muon_lr", 0.01), adam_lr=fields.pop("adam_lr", 1e-3))
    return StageConfig(
        name,
        data=fields.pop("data", "latents of " + VIDEOS),
        num_latent_frames=length,
        batch_size=8,
        cut="anywhere",
        optimizer=optimizer,
        loop=LoopConfig(20_000, minutes),
        noise=noise,
    )


def _pocket_distilled(name: str, minutes: float, length: int, lr: float, **fields: Any) -> StageConfig:
    distillation = DistillationConfig(
        timesteps=POCKET_TIMESTEPS,
        teacher_steps_between=8,
        guidance=fields.pop("guidance", 1.0),
        score_shift=3.0,
        critic=OptimizerConfig(adam_lr=lr / 2, betas=(0.0, 0.999), min_side=NO_MATRIX, clip_norm=10.0),
        **fields,
    )
    return StageConfig(
        name,
        data="prompts and cameras of " + VIDEOS,
        num_latent_frames=length,
        batch_size=4,
        cut="anywhere",
        optimizer=OptimizerConfig(adam_lr=lr, betas=(0.0, 0.999), min_side=NO_MATRIX, clip_norm=10.0),
        loop=LoopConfig(20_000, minutes),
        distillation=distillation,
    )


def _pocket_ode() -> StageConfig:
    distillation = DistillationConfig(
        timesteps=POCKET_TIMESTEPS, teacher_steps_between=4, guidance=1.0, num_trajectories=96
    )
    return StageConfig(
        "ode-regression",
        data="trajectories of the teacher",
        num_latent_frames=9,
        batch_size=8,
        cut="anywhere",
        optimizer=OptimizerConfig(adam_lr=3e-4, adam_decay=0.01, min_side=NO_MATRIX),
        loop=LoopConfig(20_000, 15.0),
        distillation=distillation,
    )


def _pocket_qad() -> StageConfig:
    return StageConfig(
        "qad",
        data="first frames and cameras of walks; weights with worlds here take those",
        num_latent_frames=5,
        batch_size=4,
        cut="anywhere",
        # Few steps, so the average is short.
        optimizer=OptimizerConfig(adam_lr=2e-4, min_side=NO_MATRIX, ema_decay=0.99),
        # Weights in bfloat16 would be rounded twice.
        loop=LoopConfig(20_000, 15.0, precision="float32"),
        distillation=DistillationConfig(timesteps=POCKET_TIMESTEPS),
        quantization="nvfp4",
    )


POCKET_REFINER = RefinerConfig(
    in_channels=96,
    out_channels=96,
    num_attention_heads=4,
    attention_head_dim=32,
    cross_attention_dim=128,
    num_layers=2,
    caption_channels=128,
    vae_scale_factors=(4, 32, 32),
    memory_channels=97,
)
"""On a grid of 6 x 10: three quarters of a million parameters."""


def _pocket_refiner() -> StageConfig:
    # Less noise than the first stage's own errors, where all is known: it hides nothing that would have to be found again.
    refining = RefiningConfig(
        POCKET_REFINER, num_pairs=96, sigmas=(0.02, 0.0), block_size=1, degraded_share=0.0
    )
    return StageConfig(
        "refiner",
        data="clips that self-forcing-long made again, and their truth",
        num_latent_frames=3,
        batch_size=24,
        cut="anywhere",
        # There is little to learn and much noise in it: larger steps only wander.
        optimizer=OptimizerConfig(muon_lr=0.003, adam_lr=2e-3, ema_decay=0.995),
        loop=LoopConfig(20_000, 26.0),
        refining=refining,
    )


def pocket_stages() -> dict[str, StageConfig]:
    """Every stage at pocket size, by name: four and a half hours on two cores, and the trajectories of the teacher."""
    stages = (
        _pocket_autoencoder("base-autoencoder", 10.0),
        _pocket("base", 30.0, 5),
        _pocket_autoencoder("autoencoder", 20.0),
        _pocket("autoencoder-swap", 20.0, 5),
        _pocket("framewise-gdn", 20.0, 5),
        _pocket("hybrid-attention", 20.0, 5),
        _pocket("minute-camera", 60.0, 17),
        _pocket("best-clips", 10.0, 17, muon_lr=0.002, adam_lr=2e-4),
        _pocket("chunk-causal", 30.0, 17, mixture=ChunkMixture(), muon_lr=0.005, adam_lr=5e-4),
        _pocket_ode(),
        _pocket_distilled("self-forcing-short", 20.0, 9, 1e-4),
        _pocket_distilled("self-forcing-long", 20.0, 25, 5e-5, num_cached_chunks=5, sink=True),
        _pocket_qad(),
        _pocket_refiner(),
    )
    return {stage.stage: stage for stage in stages}


VIDEO_SFT = "SANA-Video's fine-tuning clips, 5 s"
SANA_WM_DATA = "the 212 975 clips of SANA-WM, 60 s"
CHUNK_NOISE = NoiseConfig(ChunkMixture())


def _constant(num_steps: int) -> LoopConfig:
    """A learning rate that never moves."""
    return LoopConfig(num_steps, warmup=0.0, decay=1.0, final_lr=1.0)


def _paper(
    name: str, data: str, length: int, batch_size: int, lr: float, steps: int, **fields: Any
) -> StageConfig:
    """A stage before distillation: AdamW, gradients cut at 0.5, a constant rate."""
    return StageConfig(
        name,
        data=data,
        num_latent_frames=length,
        batch_size=batch_size,
        optimizer=OptimizerConfig(
            adam_lr=lr, betas=(0.9, 0.999), eps=1e-10, min_side=NO_MATRIX, ema_decay=0.0, clip_norm=0.5
        ),
        loop=_constant(steps),
        **fields,
    )


def _paper_distilled(name: str, length: int, steps: int, **fields: Any) -> StageConfig:
    adam = OptimizerConfig(
        adam_lr=1e-5, betas=(0.0, 0.999), min_side=NO_MATRIX, ema_decay=0.0, clip_norm=10.0
    )
    return StageConfig(
        name,
        data="prompts, first frames and cameras of the trajectories",
        num_latent_frames=length,
        batch_size=2,
        context_parallel=4,
        optimizer=adam,
        loop=_constant(steps),
        distillation=DistillationConfig(critic=replace(adam, adam_lr=2e-6), **fields),
    )


def _paper_ode() -> StageConfig:
    return StageConfig(
        "ode-regression",
        data="stored trajectories of the teacher (not released)",
        num_latent_frames=43,
        batch_size=8,
        optimizer=OptimizerConfig(
            adam_lr=2e-5,
            betas=(0.9, 0.999),
            adam_decay=0.01,
            min_side=NO_MATRIX,
            ema_decay=0.0,
            clip_norm=1.0,
        ),
        loop=_constant(3000),
        # How many there were is not published: one for each clip of each step.
        distillation=DistillationConfig(num_trajectories=24_000),
    )


def _paper_qad() -> StageConfig:
    """The authors quantise without training; length, batch and rate are those of the stage before, a third of its steps."""
    adam = OptimizerConfig(adam_lr=2e-6, betas=(0.9, 0.999), min_side=NO_MATRIX, ema_decay=0.0)
    return StageConfig(
        "qad",
        data="prompts, first frames and cameras of the trajectories",
        num_latent_frames=43,
        batch_size=2,
        optimizer=adam,
        loop=_constant(1000),
        distillation=DistillationConfig(),
        quantization="nvfp4",
    )


def _paper_refiner() -> StageConfig:
    """Adapters of rank 384 on the multi-step refiner. Batch, rate and steps are not published: as those of minute-camera."""
    adam = OptimizerConfig(
        adam_lr=1e-5, betas=(0.9, 0.999), eps=1e-10, min_side=NO_MATRIX, ema_decay=0.0, clip_norm=0.5
    )
    return StageConfig(
        "refiner",
        data="clips that self-forcing-long made again, and their truth (not released)",
        num_latent_frames=16,
        batch_size=32,
        optimizer=adam,
        loop=_constant(31_000),
        refining=RefiningConfig(released_refiner(), rank=384, num_pairs=24_000),
    )


def paper_stages() -> dict[str, StageConfig]:
    """The paper's stages by name; it takes autoencoder and base model as they were released."""
    minute: dict[str, Any] = {"length": 121, "lr": 1e-5, "context_parallel": 2}
    short: dict[str, Any] = {"data": VIDEO_SFT, "length": 11, "batch_size": 64, "lr": 5e-5}
    stages = (
        # Of the swap only the 50 000 steps are published; batch and rate are those of the stage after it.
        _paper("autoencoder-swap", steps=50_000, **short),
        _paper("framewise-gdn", steps=30_000, **short),
        _paper("hybrid-attention", steps=30_000, **short),
        _paper("minute-camera", SANA_WM_DATA, batch_size=32, steps=31_000, **minute),
        _paper("best-clips", "the best 50 000 of them", batch_size=32, steps=10_000, **minute),
        # Its steps are not published: as many as the fine-tuning before it.
        _paper("chunk-causal", SANA_WM_DATA, batch_size=4, steps=10_000, noise=CHUNK_NOISE, **minute),
        _paper_ode(),
        _paper_distilled("self-forcing-short", 43, 700),
        _paper_distilled("self-forcing-long", 121, 3000, num_cached_chunks=2, sink=True),
        _paper_qad(),
        _paper_refiner(),
    )
    return {stage.stage: stage for stage in stages}
