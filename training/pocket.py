"""The pocket world from nothing: draw, encode, train, export, measure; every step is kept and a second call goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import holodeck
from engine.atomic import replacing
from evaluation.table import as_markdown
from export.sources import AUTOENCODER_FILE
from model.autoencoder import Autoencoder, AutoencoderConfig
from model.config import ModelConfig, pocket
from model.token_path import hush_neighbours
from training.data.latents import LatentWalk, encode_walks
from training.data.render import RenderJob, render_walks
from training.loop import LoopConfig, run_stage
from training.metric import pixel_metric
from training.optimizer import NO_MATRIX, MasterOptimizer, OptimizerConfig
from training.publish import load_start, publish
from training.scenes import evaluate_worlds
from training.stages.autoencoder import AutoencoderStage
from training.stages.generator import GeneratorStage, NoiseMixture, ScenicModel
from training.stages.memory import MemoryStage
from training.stages.self_forcing import SelfForcingStage

INTRINSICS = (104.0, 104.0, 80.0, 48.0)
"""fx, fy, cx, cy in pixels: 75 degrees across 160 pixels."""
FPS = 16
UNLIMITED_STEPS = 1_000_000


@dataclass(frozen=True)
class PocketRecipe:
    """How the pocket world is made; minutes are of training, on whatever machine this is."""

    num_autoencoder_walks: int = 4
    """Walks per place that the autoencoder sees."""
    num_walks: int = 20
    """Walks per place that the generator sees."""
    walk_frames: int = 961
    """One minute each."""
    autoencoder_minutes: float = 20.0
    """On crops."""
    autoencoder_whole_minutes: float = 14.0
    """Then on whole frames."""
    memory_minutes: float = 60.0
    """Generator, token by token: places learned by heart."""
    pose_minutes: float = 15.0
    """Generator, whole pictures, mostly from pose and scene alone: tokens learn to hear one another."""
    self_forcing_minutes: float = 45.0
    """Generator on its own frames."""
    timesteps: tuple[int, ...] = (1000,)
    """Step schedule that the last stage trains and the bundle plays."""
    seed: int = 0

    def scaled(self, minutes: float) -> PocketRecipe:
        """The same recipe with all training times in proportion, `minutes` in total."""
        names = [name for name in self.__dataclass_fields__ if name.endswith("_minutes")]
        factor = minutes / sum(getattr(self, name) for name in names)
        return replace(self, **{name: getattr(self, name) * factor for name in names})


class PocketRun:
    """One run directory and the steps that fill it."""

    def __init__(
        self,
        recipe: PocketRecipe,
        directory: Path,
        config: ModelConfig | None = None,
        start_from: Path | None = None,
    ) -> None:
        """Prepare a run; with `start_from`, a folder of published checkpoints, it begins with their weights."""
        self.recipe, self.directory, self.start_from = recipe, directory, start_from
        self.config = config or pocket()
        self.data = directory / "data"
        self.places = holodeck.place_names()

    def jobs(self, num_walks: int) -> list[RenderJob]:
        """Walks to render: the first `num_walks` of every place."""
        width, height = self.config.frame_width, self.config.frame_height
        frames = self.recipe.walk_frames
        seeds = range(num_walks)
        return [RenderJob(p, s, frames, width, height, FPS, INTRINSICS) for s in seeds for p in self.places]

    def render(self, num_walks: int) -> list[RenderJob]:
        """Draw the walks that are missing."""
        jobs = self.jobs(num_walks)
        done = render_walks(jobs, self.data, num_workers=torch.get_num_threads())
        for _ in track(done, "drawing walks", total=len(jobs)):
            pass
        return jobs

    def autoencoder(self) -> Autoencoder:
        """Train the autoencoder on crops, then on whole frames; afterwards just load it."""
        config = AutoencoderConfig(self.config.in_channels, self.config.temporal_stride)
        if self.start_from is not None:
            return load_autoencoder(self.start_from, config)
        path = self.directory / AUTOENCODER_FILE
        if not path.exists():
            jobs = self.render(self.recipe.num_autoencoder_walks)
            walks = [np.load(self.data / f"{job.stem}.frames.npy", mmap_mode="r") for job in jobs]
            self._train_autoencoder(config, walks, path)
        return load_autoencoder(self.directory, config)

    def _train_autoencoder(
        self, config: AutoencoderConfig, walks: Sequence[NDArray[np.uint8]], path: Path
    ) -> None:
        torch.manual_seed(self.recipe.seed)
        crops = AutoencoderStage(config, walks, optimizer=OptimizerConfig(muon_lr=0.03, adam_lr=2e-3))
        loop = LoopConfig(UNLIMITED_STEPS, self.recipe.autoencoder_minutes, decay=0.95, final_lr=0.15)
        run_stage(crops, loop, self.directory, self.recipe.seed)
        slow = OptimizerConfig(muon_lr=0.005, adam_lr=4e-4)
        whole = AutoencoderStage(
            config, walks, batch_size=4, crop=None, name="autoencoder-whole", optimizer=slow
        )
        whole.optimizer.start_from(crops.optimizer)
        loop = LoopConfig(UNLIMITED_STEPS, self.recipe.autoencoder_whole_minutes, decay=1.0, final_lr=0.01)
        run_stage(whole, loop, self.directory, self.recipe.seed)
        finished = whole.finished_model()
        with replacing(path) as temporary:
            save_file({n: tensor.contiguous() for n, tensor in finished.state_dict().items()}, temporary)

    def latent_walks(self, autoencoder: Autoencoder) -> list[LatentWalk]:
        """Draw and encode every walk, each once."""
        jobs = self.render(self.recipe.num_walks)
        fast = Autoencoder(autoencoder.config)
        fast.load_state_dict(autoencoder.state_dict())
        encoded = encode_walks(jobs, self.places, fast, self.data)
        return list(track(encoded, "encoding walks", total=len(jobs)))

    def generator(self, walks: Sequence[LatentWalk], autoencoder: Autoencoder) -> ScenicModel:
        """Train the generator through its three stages and return the averaged weights, fp32."""
        recipe, num_scenes = self.recipe, len(self.places)
        metric = pixel_metric(autoencoder, walks)
        torch.manual_seed(recipe.seed)
        model = ScenicModel(self.config, num_scenes)
        if self.start_from is not None:
            load_start(model, self.start_from)
        self._memorise(model, walks, metric)
        # What was learned by heart is shaken loose by the rates that wake fresh weights.
        gentle = OptimizerConfig(muon_lr=0.001, adam_lr=1.2e-4)
        mixture = NoiseMixture(pose_only=0.85)
        pose = GeneratorStage(
            "generator-pose", model, walks, mixture, batch_size=10, window=5, optimizer=gentle, metric=metric
        )
        loop = LoopConfig(UNLIMITED_STEPS, recipe.pose_minutes, decay=0.7, final_lr=0.4)
        run_stage(pose, loop, self.directory, recipe.seed + 1)
        forcing = SelfForcingStage(
            "self-forcing", model, walks, recipe.timesteps, optimizer=gentle, metric=metric
        )
        forcing.optimizer.start_from(pose.optimizer)
        loop = LoopConfig(UNLIMITED_STEPS, recipe.self_forcing_minutes, decay=0.8, final_lr=0.01)
        run_stage(forcing, loop, self.directory, recipe.seed + 2)
        return averaged_model(self.config, num_scenes, forcing.optimizer)

    def _memorise(self, model: ScenicModel, walks: Sequence[LatentWalk], metric: Tensor) -> None:
        """Train the token path alone and leave its averaged weights in the model, everything else silent.

        Weights that a training starts from are hushed too: what their tokens told one another leaned on the memory before.
        """
        hush_neighbours(model.world)
        # AdamW alone: its steps cost nothing beside a batch, and matrices this small gain nothing from Muon.
        adam = OptimizerConfig(adam_lr=2e-3, min_side=NO_MATRIX, ema_decay=0.99)
        memory = MemoryStage(model, walks, optimizer=adam, metric=metric)
        loop = LoopConfig(UNLIMITED_STEPS, self.recipe.memory_minutes, decay=0.5, final_lr=0.01)
        run_stage(memory, loop, self.directory, self.recipe.seed)
        model.load_state_dict(memory.optimizer.averaged_state(), strict=False)


def averaged_model(config: ModelConfig, num_scenes: int, optimizer: MasterOptimizer) -> ScenicModel:
    """The averaged weights as an fp32 model."""
    model = ScenicModel(config, num_scenes)
    model.load_state_dict(optimizer.averaged_state(), strict=False)
    return model.eval()


def train_pocket(
    runs: Path,
    destination: Path,
    minutes: float | None = None,
    start_from: Path | None = None,
    dry_run: bool = False,
    report: Callable[[str], None] | None = None,
) -> None:
    """Make the pocket world, or go on making it.

    Args:
        runs: Where walks, latents and training states are kept.
        destination: Gets `bundles/pocket` and `worlds/*.world`.
        start_from: Folder of published checkpoints; the autoencoder is taken from there, the memory of places goes on.
        minutes: Training time in total, in the recipe's proportions; the recipe's own where None.
        dry_run: Only print the recipe.
    """
    recipe = PocketRecipe() if minutes is None else PocketRecipe().scaled(minutes)
    say = report or Console(stderr=True).print
    if dry_run:
        say(json.dumps({"recipe": asdict(recipe), "model": pocket().to_dict()}, indent=2))
        return
    runs.mkdir(parents=True, exist_ok=True)
    run = PocketRun(recipe, runs, start_from=start_from)
    autoencoder = run.autoencoder()
    model = run.generator(run.latent_walks(autoencoder), autoencoder)
    bundle = publish(model, autoencoder, run.places, INTRINSICS, recipe.timesteps, destination, say)
    say(as_markdown(evaluate_worlds(bundle, destination / "worlds", runs / "report", autoencoder)))


def load_autoencoder(runs: Path, config: AutoencoderConfig | None = None) -> Autoencoder:
    """The trained autoencoder of a run directory, fp32.

    Raises:
        ValueError: There is none yet, or it is damaged or of another size.
    """
    path = runs / AUTOENCODER_FILE
    model = Autoencoder(config or AutoencoderConfig(pocket().in_channels, pocket().temporal_stride))
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"cannot use the autoencoder {path}; run `flaneur train pocket` to make it"
        ) from error
    return model.eval()
