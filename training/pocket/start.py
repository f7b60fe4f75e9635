"""What a run of the pocket begins with, and that it goes on with the same."""

from __future__ import annotations

from pathlib import Path

import torch

from model.checkpoint import load_checkpoint, weights_sha256
from model.vae.pocket import AUTOENCODER_FILE
from training.pocket.publish import CHECKPOINTS, WORLD_FILE
from training.pocket.run import PocketRun, load_autoencoder
from training.run_folder import Start, read_record
from training.stages.model_file import load_autoencoder_file, model_path
from training.stages.pipeline import STAGES_FOLDER

GENERATOR_STAGES = ("memory", "generator-pose", "self-forcing")
"""Of the recipe, those that take over what the run began with."""


def checked_start(run: PocketRun) -> Start | None:
    """Say what a run begins with, or began with; None is nothing.

    A folder that has trained a generator belongs to the weights which that began with. Where it has published over them, what
    lies there now is its own and as good.

    Raises:
        ValueError: The folder's generator began with something else, or the weights cannot be read.
    """
    asked = None if run.start_from is None else read_start(run, run.start_from)
    _check_paper_autoencoder(run)
    earlier = read_record(run.directory)
    is_begun = any((run.directory / f"{name}.state.safetensors").exists() for name in GENERATOR_STAGES)
    # Records of earlier versions did not say.
    if not is_begun or earlier is None or "started_from" not in earlier.model_fields_set:
        return asked
    was = earlier.started_from
    if asked is None:
        if was is not None:
            raise ValueError(
                f"{run.directory} holds a training that began with the weights in {was.folder}; say --start-from {was.folder} to "
                "go on with it, or name another folder with --runs"
            )
        return None
    known = () if was is None else (was.generator, *earlier.made)
    if was is None or asked.autoencoder != was.autoencoder or asked.generator not in known:
        raise ValueError(
            f"{run.directory} holds a training that did not begin with the weights in {run.start_from}; name another folder "
            "with --runs"
        )
    return was


def read_start(run: PocketRun, published: Path) -> Start:
    """Hash the weights in a folder that `publish` filled: where the paper's stages teach a generator, of the autoencoder alone.

    Raises:
        ValueError: They are missing or damaged.
    """
    autoencoder = load_autoencoder(published / CHECKPOINTS, run.autoencoder_config)
    generator = ""
    if not run.recipe.chain_minutes:
        world = load_checkpoint(published / CHECKPOINTS / WORLD_FILE, dtype=torch.float32)
        generator = weights_sha256(world)
    return Start(folder=str(published), autoencoder=weights_sha256(autoencoder), generator=generator)


def _check_paper_autoencoder(run: PocketRun) -> None:
    """Refuse paper stages that were run by themselves with another autoencoder, before one is trained for nothing.

    Raises:
        ValueError: So it is.
    """
    taken = model_path(run.directory / STAGES_FOLDER, "autoencoder")
    if not run.recipe.chain_minutes or not taken.exists():
        return
    own = run.autoencoder_folder / AUTOENCODER_FILE
    if own.exists():
        mine = weights_sha256(load_autoencoder(run.autoencoder_folder, run.autoencoder_config))
        if mine == weights_sha256(load_autoencoder_file(taken)):
            return
    raise ValueError(f"{taken} is another autoencoder than this run's; name another folder with --runs")
