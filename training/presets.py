"""All presets by the names that the command line gives them: the stages at one size, and recipes of the pocket."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from model.config import ModelConfig, pocket, sana_wm, tiny
from model.vae.depth import DepthConfig
from model.vae.guided import GuidedAutoencoderConfig
from training.data.clip_quality import BEST_SHARE
from training.data.holodeck.walk_set import WalkSettings
from training.pocket.clips import ClipSettings
from training.pocket.keyframes import Placement
from training.pocket.recipe import Batches, ClipCounts, PocketRecipe
from training.stages.config import Preset, RefiningConfig, StageConfig
from training.stages.presets import POCKET_REFINER, paper_stages, pocket_stages


def pocket_preset() -> Preset:
    """Every stage at pocket size; the base model has half as many latent channels."""
    config = pocket()
    return Preset(
        "pocket",
        config,
        pocket_stages(),
        GuidedAutoencoderConfig(config.in_channels, config.temporal_stride),
        GuidedAutoencoderConfig(48, 4, (32, 64, 96), 16, (48, 96, 128), (1, 2, 1)),
        WalkSettings(),
        BEST_SHARE,
    )


def paper_preset() -> Preset:
    """The paper's stages, on sets of clips; it trains no autoencoder."""
    released = GuidedAutoencoderConfig()
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
        GuidedAutoencoderConfig(8, 2, (8, 8, 8), 8, (8, 8, 8), (1, 1, 1)),
        MINIATURE_WALKS,
        best_share=0.5,
        trains_what_is_needed=True,
        depth=DepthConfig((8, 8, 16), (1, 2)),
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    "pocket": pocket_preset,
    "miniature": miniature_preset,
    "paper": paper_preset,
}
"""Of `flaneur train STAGE`."""

MINIATURE_INTRINSICS = (41.6, 41.6, 32.0, 32.0)
MINIATURE_WALKS = WalkSettings(
    places=("garden", "town"),
    num_walks=1,
    num_autoencoder_walks=1,
    walk_frames=65,
    intrinsics=MINIATURE_INTRINSICS,
)


def miniature_model() -> ModelConfig:
    return replace(
        tiny(),
        name="miniature",
        in_channels=16,
        num_layers=2,
        softmax_every_n=2,
        spatial_stride=32,
        frame_height=64,
        frame_width=64,
        memory_channels=17,
    )


def miniature_autoencoder() -> GuidedAutoencoderConfig:
    config = miniature_model()
    return GuidedAutoencoderConfig(
        config.in_channels, config.temporal_stride, (8, 8, 16), 8, (8, 16, 16), (1, 1, 1)
    )


def _shrunk(stage: StageConfig) -> StageConfig:
    loop = replace(stage.loop, num_steps=2, max_minutes=math.inf, log_every=1, precision="float32")
    crop = None if stage.crop is None else (32, 32)
    distillation = stage.distillation
    if distillation is not None:
        distillation = replace(
            distillation,
            timesteps=(1000, 700),
            teacher_steps_between=1,
            num_trajectories=min(2, distillation.num_trajectories),
            num_cached_chunks=None if distillation.num_cached_chunks is None else 3,
        )
    shrunk = replace(
        stage, num_latent_frames=4, batch_size=2, crop=crop, loop=loop, distillation=distillation
    )
    return shrunk if stage.refining is None else replace(shrunk, refining=_miniature_refining())


def _miniature_refining() -> RefiningConfig:
    """Adapters on a network of random weights."""
    sizes = miniature_model()
    network = replace(
        POCKET_REFINER,
        in_channels=sizes.in_channels,
        out_channels=sizes.in_channels,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=sizes.text_dim,
        memory_channels=sizes.memory_channels,
    )
    return RefiningConfig(network, rank=2, num_pairs=2, timesteps=(1000.0, 700.0), block_size=1)


def miniature_recipe() -> PocketRecipe:
    """The pocket's recipe on thumbnails, a few steps of every stage.

    It computes in float32 and counts steps, not minutes, so that what is resumed can be compared with what never stopped.
    """
    sizes = miniature_model()
    return PocketRecipe(
        placement=Placement(most=4, num_positions=2, num_views=4, side=64),
        counts=ClipCounts(
            MINIATURE_WALKS.places,
            1,
            2,
            2,
            1,
            1,
            viewed_places=1,
            still_lifes=1,
            viewed_per_file=1,
            views_per_place=2,
        ),
        clips=ClipSettings(
            3, sizes.frame_width, sizes.frame_height, MINIATURE_INTRINSICS, sizes.temporal_stride
        ),
        autoencoder_minutes=math.inf,
        generator_minutes=math.inf,
        own_history_minutes=math.inf,
        decoder_minutes=math.inf,
        depth_minutes=math.inf,
        num_steps=6,
        batches=Batches(2, (32, 32), 2),
        timesteps=(1000, 700),
        precision="float32",
        save_every_s=0.0,
        num_measured_walks=1,
        measured_s=2.0,
    )


RECIPES: dict[str, Callable[[], PocketRecipe]] = {"pocket": PocketRecipe, "miniature": miniature_recipe}
"""Of `flaneur train pocket`; model and autoencoder are those of the preset of the same name."""
