"""Building the pocket world: every stage, the bundle, the worlds and the report, held together in one run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from engine.files.bundle import Bundle
from evaluation.evaluate import evaluate_worlds
from evaluation.scores import EvaluationReport, as_markdown
from model.checkpoint import load_checkpoint, weights_sha256
from model.vae.guided import GuidedAutoencoder
from training.data.latents import load_autoencoder
from training.pocket.publish import (
    CHECKPOINTS,
    WORLD_FILE,
    WORLDS,
    depth_graph_in,
    in_half,
    mend_publishing,
    publish,
)
from training.pocket.recipe import DEPTH, GENERATOR, OWN_HISTORY
from training.pocket.run import MEASURING, PUBLISHING, PocketRun
from training.presets import PRESETS, RECIPES
from training.progress import RecipeProgress
from training.report.page import write_report
from training.run_folder import RunFolder, RunRecord, Start, holding, read_record
from training.throughput import machine_name

GOING_ON_LR = 0.3
"""Factor on the learning rates of a generator and a decoder that are trained already: at full rate they lose what they know."""
GENERATOR_STAGES = (GENERATOR, OWN_HISTORY)
"""Of the recipe, those that take over what the run began with."""


def prepare(
    preset: str,
    runs: Path,
    minutes: float | None = None,
    num_steps: int | None = None,
    start_from: Path | None = None,
    only: str | None = None,
) -> PocketRun:
    """Prepare a run.

    Args:
        minutes: Training time in total, of the stages that will run, in the recipe's proportions; the recipe's own where None.
        num_steps: At which every stage ends; the recipe's own where None.
        start_from: Folder that `publish` filled; the autoencoder is taken from there, the generator goes on.
        only: The one stage that is trained; what the others would make is taken from `start_from`.

    Raises:
        ValueError: The recipe does not go with what was asked for.
    """
    recipe, sizes = RECIPES[preset](), PRESETS[preset]()
    if start_from is not None:
        if preset != "pocket":
            raise ValueError(
                f"the {preset} has its own sizes and cannot start from {start_from}; leave that out"
            )
        has_depth = depth_graph_in(start_from) is not None
        recipe = replace(
            recipe,
            autoencoder_minutes=0.0,
            generator_lr=GOING_ON_LR,
            decoder_lr=GOING_ON_LR,
            depth_lr=GOING_ON_LR if has_depth else recipe.depth_lr,
            depth_minutes=0.0 if has_depth and only != DEPTH else recipe.depth_minutes,
        )
    if only is not None:
        if start_from is None:
            raise ValueError("one stage alone goes on from earlier weights; name them with --start-from")
        recipe = recipe.only(only)
    if minutes is not None:
        recipe = recipe.scaled(minutes)
    if num_steps is not None:
        recipe = replace(recipe, num_steps=num_steps)
    return PocketRun(recipe, runs, sizes.model, start_from, sizes.autoencoder, sizes.depth)


def train_pocket(
    run: PocketRun,
    destination: Path,
    expected_s: Mapping[str, float],
    say: Callable[[str], None],
) -> Path:
    """Make the pocket world, or go on making it.

    Args:
        destination: Gets `bundles/pocket`, `checkpoints` and `worlds/*.world`.
        expected_s: Seconds that each phase will take, for the bars.

    Returns:
        The report page.

    Raises:
        ValueError: Another process trains in the run's folder, or it holds a training that began with other weights.
    """
    recipe = run.recipe
    with holding(run.directory):
        mend_publishing(destination)
        run.folder, run.progress = RunFolder(run.directory, _record(run)), RecipeProgress(expected_s)
        run.folder.write()
        clips = run.render()
        autoencoder = run.autoencoder(clips)
        latents = run.encode(autoencoder, clips)
        model = run.generator(latents)
        autoencoder = run.decoder(autoencoder, clips, latents, lambda: run.roll_out(model, latents))
        depth = run.depth(clips)
        run.folder.publishing(weights_sha256(in_half(model.world)))
        with run.timing(PUBLISHING), run.progress.phase(PUBLISHING):
            bundle = publish(
                model,
                autoencoder,
                run.places,
                run.keyframes(),
                recipe.clips.intrinsics,
                recipe.timesteps,
                destination,
                say,
                depth,
            )
        say(as_markdown(_measured(run, bundle, destination, autoencoder)))
        return write_report(run.directory)


def _measured(
    run: PocketRun, bundle: Bundle, destination: Path, autoencoder: GuidedAutoencoder
) -> EvaluationReport:
    """Measure what was published on held-out walks."""
    recipe = run.recipe
    with run.timing(MEASURING), run.progress.sharing(MEASURING) as tell:
        return evaluate_worlds(
            bundle,
            destination / WORLDS,
            run.directory / "report",
            autoencoder,
            recipe.num_measured_walks,
            recipe.measured_s,
            progress=tell,
        )


def _record(run: PocketRun) -> RunRecord:
    return RunRecord(
        recipe=asdict(run.recipe),
        model=run.config.to_dict(),
        stages=tuple(run.stages),
        machine=machine_name(),
        started_from=checked_start(run),
    )


def checked_start(run: PocketRun) -> Start | None:
    """Say what a run begins with, or began with; None is nothing.

    A folder that has trained a generator belongs to the weights which that began with. Where it has published over them, what
    lies there now is its own and as good.

    Raises:
        ValueError: The folder's generator began with something else, or the weights cannot be read.
    """
    asked = None if run.start_from is None else read_start(run, run.start_from)
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
    """Hash the weights in a folder that `publish` filled.

    Raises:
        ValueError: They are missing or damaged.
    """
    autoencoder = load_autoencoder(published / CHECKPOINTS)
    if autoencoder.config != run.autoencoder_config:
        raise ValueError(f"the autoencoder in {published} is of another size; train from nothing instead")
    world = load_checkpoint(published / CHECKPOINTS / WORLD_FILE, dtype=torch.float32)
    return Start(
        folder=str(published),
        autoencoder=weights_sha256(autoencoder.encoder),
        generator=weights_sha256(world),
    )
