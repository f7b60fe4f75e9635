"""The pocket recipe made tiny: two places, thumbnails, a few steps of every stage; it shows that all works, and learns little.

It computes in float32 and counts steps, not minutes, so that what is resumed can be compared with what never stopped.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from model.config import ModelConfig, tiny
from model.vae.pocket import AutoencoderConfig
from training.pocket import PocketRun
from training.recipe import Batches, PocketRecipe

NUM_STEPS = 6


def miniature_recipe() -> PocketRecipe:
    return PocketRecipe(
        places=("garden", "town"),
        num_autoencoder_walks=1,
        num_walks=1,
        num_glimpsed_walks=1,
        walk_frames=65,
        intrinsics=(20.8, 20.8, 16.0, 16.0),
        autoencoder_minutes=math.inf,
        autoencoder_whole_minutes=math.inf,
        chain_minutes=math.inf,
        memory_minutes=math.inf,
        pose_minutes=math.inf,
        self_forcing_minutes=math.inf,
        num_steps=NUM_STEPS,
        batches=Batches(2, (16, 16), 1, 32, 2, 3, 4, 2),
        timesteps=(1000, 700),
        precision="float32",
        save_every_s=0.0,
        num_measured_walks=1,
        measured_s=4.0,
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


def miniature_run(directory: Path, recipe: PocketRecipe | None = None) -> PocketRun:
    """Prepare a run of the miniature."""
    config = miniature_model()
    autoencoder = AutoencoderConfig(config.in_channels, config.temporal_stride, 8, 16, (1, 1), (1, 1))
    return PocketRun(recipe or miniature_recipe(), directory, config, autoencoder_config=autoencoder)
