"""Runs by the names that the command line gives them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from model.config import ModelConfig, tiny
from model.vae.pocket import AutoencoderConfig
from training.pocket.recipe import Batches, PocketRecipe
from training.pocket.run import PocketRun

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


RECIPES: dict[str, Callable[[], PocketRecipe]] = {"pocket": PocketRecipe, "miniature": miniature_recipe}


def prepare(
    preset: str,
    runs: Path,
    minutes: float | None = None,
    num_steps: int | None = None,
    start_from: Path | None = None,
    chain_minutes: float | None = None,
) -> PocketRun:
    """Prepare a run.

    Args:
        minutes: Training time in total, of the stages that will run, in the recipe's proportions; the recipe's own where None.
        num_steps: At which every stage ends; the recipe's own where None.
        chain_minutes: Of the paper's stages together, before anything is put into proportion; the recipe's own where None.
        start_from: Folder that `publish` filled; the autoencoder is taken from there, the memory of places goes on unless the
            paper's stages come before it.

    Raises:
        ValueError: The recipe does not go with what was asked for.
    """
    recipe = RECIPES[preset]()
    if start_from is not None:
        if preset != "pocket":
            raise ValueError(
                f"the {preset} has its own sizes and cannot start from {start_from}; leave that out"
            )
        recipe = replace(recipe, autoencoder_minutes=0.0, autoencoder_whole_minutes=0.0)
    if chain_minutes is not None:
        recipe = replace(recipe, chain_minutes=chain_minutes)
    if minutes is not None:
        recipe = recipe.scaled(minutes)
    if num_steps is not None:
        recipe = replace(recipe, num_steps=num_steps)
    return (
        PocketRun(recipe, runs, start_from=start_from) if preset == "pocket" else miniature_run(runs, recipe)
    )
