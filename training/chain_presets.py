"""Chains by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from model.autoencoder import AutoencoderConfig
from model.config import pocket, sana_wm
from training.chain import Chain, ChainConfig
from training.configs import StageConfig
from training.miniature import miniature_model
from training.parallel.cluster import joined
from training.presets import prepare
from training.progress import RecipeProgress
from training.run_folder import holding
from training.stage_plan import stage_plan
from training.stage_presets import pocket_stages, stage_config


def pocket_chain() -> ChainConfig:
    """Every stage at pocket size; the base speaks half as many latent channels."""
    return ChainConfig(pocket_stages(), AutoencoderConfig(48, 4, 64, 128, (1, 2), (2, 2)))


def miniature_chain() -> ChainConfig:
    """Two steps of every stage on thumbnails: it shows that all works, and learns little."""
    small = AutoencoderConfig(8, 2, 8, 8, (1, 1), (1, 1))
    return ChainConfig(
        {name: _shrunk(stage) for name, stage in pocket_stages().items()}, small, kept_share=0.5
    )


def _shrunk(stage: StageConfig) -> StageConfig:
    loop = replace(stage.loop, num_steps=2, max_minutes=float("inf"), log_every=1, precision="float32")
    crop = None if stage.crop is None else (16, 16)
    distillation = stage.distillation
    if distillation is not None:
        distillation = replace(
            distillation,
            timesteps=(1000, 700),
            teacher_steps_between=1,
            num_trajectories=min(2, distillation.num_trajectories),
            num_cached_chunks=None if distillation.num_cached_chunks is None else 3,
        )
    return replace(stage, num_latent_frames=4, batch_size=2, crop=crop, loop=loop, distillation=distillation)


CHAINS: dict[str, Callable[[], ChainConfig]] = {"pocket": pocket_chain, "miniature": miniature_chain}


def plan_of(name: str, preset: str) -> dict[str, str]:
    """Say what a stage would do.

    Raises:
        ValueError: The paper does not train it.
    """
    if preset == "paper":
        return stage_plan(stage_config(name, "paper"), sana_wm().temporal_stride)
    stride = (pocket() if preset == "pocket" else miniature_model()).temporal_stride
    return stage_plan(CHAINS[preset]().stages[name], stride)


@dataclass(frozen=True)
class Launch:
    """What this process was started with, as one of several."""

    rank: int
    """Number of the process."""
    local_rank: int
    """Number of the process on its machine."""
    context_parallel: int
    """Processes in a row that share the frames of a clip."""


def train_one(
    name: str, preset: str, runs: Path, start_from: Path | None = None, launch: Launch | None = None
) -> Path:
    """Bring one stage of a run folder to its end and return its outcome.

    Args:
        launch: Where several processes do so together; None for this one alone.

    Raises:
        ValueError: What it needs is not there, or the preset is too large for one machine.
    """
    if preset == "paper":
        stage_config(name, "paper")
        raise ValueError(
            "the paper's stages need 64 GPUs and its 212 975 clips; see their plan with --dry-run, or use --preset pocket"
        )
    run, config = prepare(preset, runs), CHAINS[preset]()
    if launch is None:
        with holding(runs):
            run.progress = RecipeProgress({})
            return Chain(run, config).train(name, start_from)
    # A clip at a time: what does not fit beside one another follows one another.
    num_batches = config.stages[name].batch_size
    config = replace(config, stages={**config.stages, name: replace(config.stages[name], batch_size=1)})
    with (
        holding(runs) if launch.rank == 0 else nullcontext(),
        joined(launch.local_rank, launch.context_parallel, num_batches) as cluster,
    ):
        run.progress = RecipeProgress({}, shown=cluster.is_first)
        return Chain(run, config, cluster=cluster).train(name, start_from)
