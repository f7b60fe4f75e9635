"""Making the pocket world: every stage, the bundle, the worlds and the report, held together in one run folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from evaluation.evaluate import evaluate_worlds
from evaluation.scores import as_markdown
from model.checkpoint import weights_sha256
from model.vae.pocket import Autoencoder
from training.loop import LoopConfig
from training.pocket.publish import in_half, mend_publishing, publish
from training.pocket.run import MEASURING, PUBLISHING, PocketRun
from training.pocket.start import checked_start
from training.progress import RecipeProgress
from training.report.page import write_report
from training.run_folder import RunFolder, RunRecord, holding
from training.stages.model_file import GENERATOR, load_models, save_autoencoder_file, save_models
from training.stages.pipeline import Chain, ChainConfig
from training.stages.pipeline_presets import CHAINS
from training.stages.scenic_model import ScenicModel
from training.throughput import machine_name

TEACHING = (
    "base-autoencoder", "base", "autoencoder-swap", "framewise-gdn", "hybrid-attention", "minute-camera", "best-clips",
)  # fmt: skip
"""Stages of the paper up to its teacher, which see whole clips."""
DISTILLING = ("chunk-causal", "ode-regression", "self-forcing-short", "self-forcing-long")
"""Stages that make a student of it, which sees chunks."""


class PaperStages:
    """The paper's stages around the pocket's own: the teacher before places are learned by heart, its student after."""

    def __init__(self, run: PocketRun, config: ChainConfig, autoencoder: Autoencoder) -> None:
        """Put the pocket's own autoencoder where the chain looks for the one that stays.

        `checked_start` refused another one there.
        """
        self.chain = Chain(run, config)
        path = self.chain.outcome("autoencoder")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_autoencoder_file(path, autoencoder)

    def teach(self, model: ScenicModel) -> None:
        """Run the stages up to the teacher and leave its weights in a model."""
        for name in TEACHING:
            self.chain.train(name)
            self.chain.run.report()
        _take_over(model, self.chain.outcome(TEACHING[-1]))

    def distil(self, model: ScenicModel) -> None:
        """Make a student that begins with a model's weights, and leave its own in there."""
        start = self.chain.outcome("memory")
        if not start.exists():
            save_models(start, "memory", {GENERATOR: model})
        for name in DISTILLING:
            self.chain.train(name, start if name == DISTILLING[0] else None)
            self.chain.run.report()
        _take_over(model, self.chain.outcome(DISTILLING[-1]))


def _take_over(model: ScenicModel, outcome: Path) -> None:
    """Load what a stage left; how much its rollouts remember is no part of that."""
    model.load_state_dict(load_models(outcome)[GENERATOR].state_dict())


def chain_within(preset: str, minutes: float, num_steps: int | None = None) -> ChainConfig:
    """The paper's stages of a preset.

    Args:
        minutes: Shared out among them in the preset's proportions; stages that count steps stay as they are.
        num_steps: At which each of them ends; the preset's own where None.
    """
    config = CHAINS[preset]()
    total = sum(config.stages[name].loop.max_minutes for name in (*TEACHING, *DISTILLING))
    factor = minutes / total if math.isfinite(total) else 1.0

    def within(loop: LoopConfig) -> LoopConfig:
        steps = loop.num_steps if num_steps is None else num_steps
        return replace(loop, num_steps=steps, max_minutes=loop.max_minutes * factor)

    stages = {name: replace(stage, loop=within(stage.loop)) for name, stage in config.stages.items()}
    return replace(config, stages=stages)


def train_pocket(
    run: PocketRun,
    config: ChainConfig,
    destination: Path,
    expected_s: Mapping[str, float],
    say: Callable[[str], None],
) -> Path:
    """Make the pocket world, or go on making it.

    Args:
        config: The paper's stages, which are left out where the recipe gives them no time.
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
        autoencoder = run.autoencoder()
        paper = PaperStages(run, config, autoencoder) if recipe.chain_minutes else None
        model = run.generator(run.latent_walks(autoencoder), run.glimpses(autoencoder), autoencoder, paper)
        run.folder.publishing(weights_sha256(in_half(model.world)))
        with run.timing(PUBLISHING), run.progress.phase(PUBLISHING):
            bundle = publish(
                model, autoencoder, run.places, recipe.intrinsics, recipe.timesteps, destination, say
            )
        with run.timing(MEASURING), run.progress.sharing(MEASURING) as tell:
            scores = evaluate_worlds(
                bundle,
                destination / "worlds",
                run.directory / "report",
                autoencoder,
                recipe.num_measured_walks,
                recipe.measured_s,
                progress=tell,
            )
        say(as_markdown(scores))
        return write_report(run.directory)


def _record(run: PocketRun) -> RunRecord:
    own = tuple(run.stages)
    return RunRecord(
        recipe=asdict(run.recipe),
        model=run.config.to_dict(),
        stages=(*own[:2], *TEACHING, own[2], *DISTILLING, *own[3:]),
        machine=machine_name(),
        started_from=checked_start(run),
    )
