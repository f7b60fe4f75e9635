"""Chains, their models and the choice among clips, by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model.config import ModelConfig, pocket, sana_wm
from model.vae.pocket import AutoencoderConfig
from training.data.archives.reader import ArchiveOptions, sekai_game
from training.pocket.presets import miniature_model
from training.stages.config import StageConfig
from training.stages.pipeline import ChainConfig
from training.stages.presets import paper_stages, pocket_stages


def pocket_chain() -> ChainConfig:
    """Every stage at pocket size; the base speaks half as many latent channels."""
    return ChainConfig(pocket_stages(), AutoencoderConfig(48, 4, 64, 128, (1, 2), (2, 2)))


def paper_chain() -> ChainConfig:
    """The paper's stages, on sets of clips; it trains no autoencoder."""
    return ChainConfig(paper_stages(), AutoencoderConfig())


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


CHAINS: dict[str, Callable[[], ChainConfig]] = {
    "pocket": pocket_chain,
    "miniature": miniature_chain,
    "paper": paper_chain,
}
MODELS: dict[str, Callable[[], ModelConfig]] = {
    "pocket": pocket,
    "miniature": miniature_model,
    "paper": sana_wm,
}
FILTERS: dict[str, Callable[[], ArchiveOptions]] = {"none": ArchiveOptions, "sekai-game": sekai_game}
"""Which clips of archives are wanted, by name."""
