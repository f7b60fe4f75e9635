"""Runs by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from training.miniature import miniature_recipe, miniature_run
from training.pocket import PocketRun
from training.recipe import PocketRecipe

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
