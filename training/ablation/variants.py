"""The paper's ablation at pocket size: what the key scale, the softmax blocks and the two camera branches are worth.

Every variant is trained on the same batches for the same steps from the same seeds and then measured on walks that none has seen:
by the velocity loss, by how well the camera alone tells the picture, and by rollouts of a minute on their own frames.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.files.atomic import replacing
from evaluation.rollouts import HELD_OUT_SEED
from model.conditioning import Conditioning
from model.config import ModelConfig, pocket
from model.rollout import RolloutState
from model.vae.guided import GuidedAutoencoder
from training.data.batches import WalkClips, WindowBatch
from training.data.clip import FPS
from training.data.holodeck.rendering import RenderJob, render_walks
from training.data.holodeck.walk_set import INTRINSICS
from training.data.latents import LatentWalk, encode_walks
from training.loop import LoopConfig, run_stage
from training.optimizer import NO_MATRIX, OptimizerConfig
from training.stage_log import read_log
from training.stages.config import NoiseConfig, StageConfig
from training.stages.conversions import disable_cameras
from training.stages.flow_matching import FlowMatchingStage, predict_velocity, velocity_loss
from training.stages.noise import ChunkMixture
from training.stages.scenic_model import ScenicModel

CAMERA_BRANCHES = {"UCPE": "_cam", "Pluecker": "plucker_"}
"""Part of parameter names by which each branch is known."""
POOLED = 2
"""Side of the squares of latents that are averaged into one."""
DIVERGED = 1e3
"""Latents have unit variance; a rollout beyond this has left the world."""


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    table: str
    """Question that the row answers."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Fields of the model's config and their values."""
    branches: tuple[str, ...] = ("UCPE", "Pluecker")
    """Camera branches that learn; the others stay silent."""


VARIANTS = (
    Variant("whole", "all"),
    Variant("key scale 1/sqrt(D)", "key scale", (("key_scale", "head"),)),
    Variant("no key scale", "key scale", (("key_scale", "none"),)),
    Variant("GDN alone", "attention", (("softmax_every_n", 99),)),
    Variant("UCPE alone", "camera", branches=("UCPE",)),
    Variant("Pluecker alone", "camera", branches=("Pluecker",)),
    Variant("no camera", "camera", branches=()),
    Variant("linear attention alone", "attention", (("softmax_every_n", 99), ("linear_attention", True))),
)


@dataclass(frozen=True)
class AblationConfig:
    """What all variants share."""

    places: tuple[str, ...] = ("town", "garden")
    num_walks: int = 10
    """Of each place, to train on."""
    num_held_out: int = 2
    """Of each place, to measure on."""
    walk_latents: int = 60
    """Of a walk: 15 seconds. Small models learn so much in minutes."""
    num_steps: int = 240
    seeds: tuple[int, ...] = (0,)
    num_latent_frames: int = 5
    batch_size: int = 8
    num_validation_batches: int = 8
    num_chunks: int = 240
    """Of a rollout: one minute."""

    def stage(self, name: str, seed: int) -> StageConfig:
        """The stage that every variant runs: chunk-causal flow matching with AdamW, the clip at 0.5 as in the paper."""
        return StageConfig(
            stage=name,
            data="walks through the holodeck's places",
            num_latent_frames=self.num_latent_frames,
            batch_size=self.batch_size,
            optimizer=OptimizerConfig(adam_lr=3e-3, min_side=NO_MATRIX, ema_decay=0.98, clip_norm=0.5),
            loop=LoopConfig(self.num_steps, log_every=1, precision="float32"),
            noise=NoiseConfig(ChunkMixture(), shift=3.0, image_conditioning=1.0),
            seed=seed,
        )


@dataclass(frozen=True)
class AblationResult:
    """What one training of a variant came to."""

    variant: str
    seed: int
    validation_loss: float
    gain_db: float
    """Error of repeating the first latent over that of the latent told from pose and scene alone."""
    skipped_steps: int
    """Training steps whose gradients were not finite."""
    first_skipped: int | None
    diverged: int
    """Rollouts that left the world or stopped being finite."""
    num_rollouts: int
    first_diverged_s: float | None
    """Seconds into the earliest of them."""
    parameters: int
    """That learned."""


def ablation_walks(
    folder: Path, autoencoder: GuidedAutoencoder, config: AblationConfig
) -> tuple[list[LatentWalk], list[LatentWalk]]:
    """Draw and encode the walks to train on and those to measure on, each once; a quarter of their tokens is left.

    Args:
        folder: Where they are kept.
        autoencoder: The pocket's.
    """

    def walks(seeds: range, num_latents: int) -> list[LatentWalk]:
        model = pocket()
        frames = 1 + model.temporal_stride * (num_latents - 1)
        size = (model.frame_width, model.frame_height)
        jobs = [RenderJob(p, seed, frames, *size, FPS, INTRINSICS) for seed in seeds for p in config.places]
        for _ in render_walks(jobs, folder, torch.get_num_threads()):
            pass
        return [coarser(walk) for walk in encode_walks(jobs, config.places, autoencoder, folder)]

    held_out = range(HELD_OUT_SEED, HELD_OUT_SEED + config.num_held_out)
    return walks(range(config.num_walks), config.walk_latents), walks(held_out, config.num_chunks)


def shortened(walk: LatentWalk, num_latents: int) -> LatentWalk:
    """Keep the first latents of a walk."""
    return replace(walk, latents=walk.latents[:num_latents], c2w=walk.c2w[:num_latents])


def coarser(walk: LatentWalk) -> LatentWalk:
    """Average each four neighbouring latents of a frame, at the same variance, for a quarter of the tokens."""
    pooled = functional.avg_pool2d(walk.latents.float(), POOLED)
    return replace(walk, latents=(pooled * (walk.latents.float().std() / pooled.std())).half())


def ablation_model() -> ModelConfig:
    """A pocket of a quarter of the width and tokens: the paper's own Pluecker channels, no limit on what a frame erases."""
    return replace(
        pocket(),
        spatial_stride=POOLED * pocket().spatial_stride,
        name="ablation",
        hidden_size=64,
        num_heads=2,
        text_dim=64,
        text_length=16,
        mlp_ratio=3.0,
        write_limit=0.0,
        memory_channels=0,
    )


def run_variant(
    variant: Variant,
    seed: int,
    config: AblationConfig,
    walks: Sequence[LatentWalk],
    held_out: Sequence[LatentWalk],
    run_dir: Path,
    model_config: ModelConfig | None = None,
) -> AblationResult:
    """Train and measure one variant from one seed; one of the same settings and walks is only read from the run folder."""
    numbers = replace(model_config or ablation_model(), **dict(variant.changes))
    # The first walk's latents tell which autoencoder encoded them all.
    latents = walks[0].latents.float().numpy().tobytes()
    digest = hashlib.sha256(f"{config} {numbers}".encode() + latents).hexdigest()[:8]
    name = re.sub("[^a-zA-Z0-9]+", "-", f"{variant.name} {seed} {digest}")
    path = run_dir / f"{name}.result.json"
    if path.exists():
        return AblationResult(**json.loads(path.read_text()))
    torch.manual_seed(seed)
    num_scenes = 1 + max(walk.scene for walk in (*walks, *held_out))
    model = ScenicModel(numbers, num_scenes)
    disable_cameras(model)
    silent = [part for branch, part in CAMERA_BRANCHES.items() if branch not in variant.branches]
    stage = FlowMatchingStage(
        config.stage(name, seed),
        model,
        WalkClips(walks),
        "chunk_causal",
        trained=lambda parameter: not any(part in parameter for part in silent),
    )
    run_stage(stage, stage.config.loop, run_dir, seed)
    model.load_state_dict(stage.optimizer.ema_state(), strict=False)
    norms = {line["step"]: line["grad_norm"] for line in read_log(run_dir / f"{name}.log.jsonl")}
    skipped = sorted(step for step, norm in norms.items() if not math.isfinite(norm))
    result = _measured(variant, seed, stage, skipped, config, held_out)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(result), indent=1))
    return result


@torch.no_grad()
def _measured(
    variant: Variant,
    seed: int,
    stage: FlowMatchingStage,
    skipped: Sequence[int],
    config: AblationConfig,
    held_out: Sequence[LatentWalk],
) -> AblationResult:
    """Measure a trained variant; noise, levels and windows are the same for all."""
    rng = np.random.default_rng(1000)
    torch.manual_seed(1000)
    clips = WalkClips([shortened(walk, config.walk_latents) for walk in held_out])
    losses, gains = [], []
    for _ in range(config.num_validation_batches):
        batch = clips.draw(config.batch_size, config.num_latent_frames, rng)
        sigma, counted = stage.levels(rng)
        losses.append(float(velocity_loss(stage.model, batch, sigma, counted, "chunk_causal")))
        gains.append(_errors(stage.model, batch))
    first, told = np.mean(gains, 0)
    ends = rollout_ends(stage.model, held_out, config.num_chunks)
    diverged = [end for end in ends if end is not None]
    chunk_s = stage.model.world.config.temporal_stride / FPS
    return AblationResult(
        variant=variant.name,
        seed=seed,
        validation_loss=float(np.mean(losses)),
        gain_db=float(10 * np.log10(first / told)) if math.isfinite(told) else math.nan,
        skipped_steps=len(skipped),
        first_skipped=skipped[0] if skipped else None,
        diverged=len(diverged),
        num_rollouts=len(ends),
        first_diverged_s=min(diverged) * chunk_s if diverged else None,
        parameters=sum(p.numel() for p in stage.optimizer.parameters),
    )


def _errors(model: ScenicModel, batch: WindowBatch) -> tuple[float, float]:
    """Mean square errors of repeating the first latent and of the latents told from full noise."""
    sigma = torch.ones(batch.frame_index.shape)
    sigma[:, 0] = 0.0
    noisy = torch.randn_like(batch.latents)
    noisy[:, :, :1] = batch.latents[:, :, :1]
    velocity = predict_velocity(model, noisy, sigma, batch, "chunk_causal")
    truth = batch.latents[:, :, 1:]
    told = (noisy - velocity)[:, :, 1:]
    return float((batch.latents[:, :, :1] - truth).square().mean()), float((told - truth).square().mean())


@torch.no_grad()
def rollout_ends(model: ScenicModel, walks: Sequence[LatentWalk], num_chunks: int) -> list[int | None]:
    """Follow walks on the model's own frames, one step a chunk; says at which chunk each diverged, if it did."""
    poses = torch.stack([walk.c2w[:num_chunks] for walk in walks])
    text, mask = model.text(torch.tensor([walk.scene for walk in walks]))
    intrinsics = torch.stack([walk.intrinsics for walk in walks])[:, None].expand(-1, poses.shape[2], -1)
    ends: list[int | None] = [None] * len(walks)
    state: RolloutState | None = None
    latents = torch.stack([walk.latents[:1] for walk in walks]).float().transpose(1, 2)

    def step(x: Tensor, time: float, index: int) -> tuple[Tensor, RolloutState]:
        times, starts = torch.full((len(walks), 1), time), torch.full((len(walks),), index)
        conditioning = Conditioning(text, mask, poses[:, index], intrinsics, starts)
        return model.world.step(x, times, conditioning, state)

    for index in range(poses.shape[1]):
        if index:
            noise = torch.randn_like(latents)
            latents = noise - step(noise, 1000.0, index)[0]
        size = latents.flatten(1).abs().amax(1)
        for row, (end, largest) in enumerate(zip(ends, size.tolist(), strict=True)):
            if end is None and not largest < DIVERGED:
                ends[row] = index
        state = step(latents, 0.0, index)[1]
    return ends
