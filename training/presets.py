"""All presets by the names that the command line gives them: the stages at one size, and recipes of the pocket."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from model.config import ModelConfig, pocket, sana_wm, tiny
from model.vae.pocket import AutoencoderConfig
from training.data.clip_quality import BEST_SHARE
from training.data.holodeck.walk_set import WalkSettings
from training.pocket.recipe import Batches, PocketRecipe
from training.stages.config import Preset, StageConfig
from training.stages.presets import paper_stages, pocket_stages


def pocket_preset() -> Preset:
    """Every stage at pocket size; the base model has half as many latent channels."""
    config = pocket()
    return Preset(
        "pocket",
        config,
        pocket_stages(),
        AutoencoderConfig(config.in_channels, config.temporal_stride),
        AutoencoderConfig(48, 4, 64, 128, (1, 2), (2, 2)),
        WalkSettings(),
        BEST_SHARE,
    )


def paper_preset() -> Preset:
    """The paper's stages, on sets of clips; it trains no autoencoder."""
    released = AutoencoderConfig()
    return Preset(
        "the paper", sana_wm(), paper_stages(), released, released, walks=None, one_clip_at_a_time=True
    )


def miniature_preset() -> Preset:
    """Two steps of every stage on thumbnails: it shows that all works, and learns little."""
    return Preset(
        "miniature",
        miniature_model(),
        {name: _shrunk(stage) for name, stage in pocket_stages().items()},
        miniature_autoencoder(),
        AutoencoderConfig(8, 2, 8, 8, (1, 1), (1, 1)),
        MINIATURE_WALKS,
        best_share=0.5,
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    "pocket": pocket_preset,
    "miniature": miniature_preset,
    "paper": paper_preset,
}
"""Of `flaneur train STAGE`."""

MINIATURE_WALKS = WalkSettings(
    places=("garden", "town"),
    num_walks=1,
    num_autoencoder_walks=1,
    walk_frames=65,
    intrinsics=(20.8, 20.8, 16.0, 16.0),
)


def miniature_model() -> ModelConfig:
    return replace(
        tiny(),
        name="miniature",
        in_channels=16,
        num_layers=2,
        softmax_every_n=2,
        spatial_stride=16,
        frame_height=32,
        frame_width=32,
    )


def miniature_autoencoder() -> AutoencoderConfig:
    config = miniature_model()
    return AutoencoderConfig(config.in_channels, config.temporal_stride, 8, 16, (1, 1), (1, 1))


def _shrunk(stage: StageConfig) -> StageConfig:
    loop = replace(stage.loop, num_steps=2, max_minutes=math.inf, log_every=1, precision="float32")
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


def miniature_recipe() -> PocketRecipe:
    """The pocket's recipe on thumbnails, a few steps of every stage.

    It computes in float32 and counts steps, not minutes, so that what is resumed can be compared with what never stopped.
    """
    return PocketRecipe(
        walks=MINIATURE_WALKS,
        num_glimpsed_walks=1,
        autoencoder_minutes=math.inf,
        autoencoder_whole_minutes=math.inf,
        memory_minutes=math.inf,
        pose_minutes=math.inf,
        self_forcing_minutes=math.inf,
        num_steps=6,
        batches=Batches(2, (16, 16), 1, 32, 2, 3, 4, 2),
        timesteps=(1000, 700),
        precision="float32",
        save_every_s=0.0,
        num_measured_walks=1,
        measured_s=4.0,
    )


RECIPES: dict[str, Callable[[], PocketRecipe]] = {"pocket": PocketRecipe, "miniature": miniature_recipe}
"""Of `flaneur train pocket`; model and autoencoder are those of the preset of the same name."""
