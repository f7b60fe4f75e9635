"""The pocket world from nothing: draw, encode, train, export, measure; every step is kept and a second call goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.files.atomic import replacing
from model.config import ModelConfig, pocket
from model.vae.pocket import AUTOENCODER_FILE, Autoencoder, AutoencoderConfig
from training.data.holodeck.rendering import RenderJob
from training.data.holodeck.walk_set import RENDERING, WalkSet
from training.data.latents import LatentWalk
from training.loop import run_stage
from training.optimizer import MasterOptimizer
from training.pocket.generator import GeneratorStage, NoiseMixture
from training.pocket.metric import pixel_metric
from training.pocket.per_scene import Glimpses, MemoryStage, gather_glimpses, is_on_token_path
from training.pocket.publish_walks import CHECKPOINTS, load_start
from training.pocket.recipe import PocketRecipe
from training.pocket.self_forcing import SelfForcingStage
from training.pocket.token_path import hush_branches
from training.progress import RecipeProgress
from training.report.page import write_report
from training.run_folder import RunFolder
from training.stages.autoencoder import AutoencoderStage
from training.stages.scenic_model import ScenicModel
from training.trainable import Trainable

FIRST_GLIMPSED_SEED = 10_000
ENCODING, GLIMPSING = "encoding walks", "sparse frames"
PUBLISHING, MEASURING = "publishing", "measuring"
"""Phases beside the stages."""


class PocketRun:
    """One run directory and the steps that fill it."""

    def __init__(
        self,
        recipe: PocketRecipe,
        directory: Path,
        config: ModelConfig | None = None,
        start_from: Path | None = None,
        autoencoder_config: AutoencoderConfig | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            start_from: Folder that `publish` filled, whose weights the run starts from.
        """
        self.recipe, self.directory, self.start_from = recipe, directory, start_from
        self.config = config or pocket()
        self.autoencoder_config = autoencoder_config or AutoencoderConfig(
            self.config.in_channels, self.config.temporal_stride
        )
        self.stages = recipe.stages()
        self.data = directory / "data"
        self.walks = WalkSet(recipe.walks, self.config, self.data)
        self.places = self.walks.places
        self.progress = RecipeProgress({}, shown=False)
        """Replaced where somebody watches."""
        self.folder: RunFolder | None = None
        """Gets the time of every phase, where it is to be kept."""

    def render(self, num_walks: int | None = None) -> list[RenderJob]:
        """Render the walks that are missing."""
        with self.timing(RENDERING):
            return self.walks.render(self.progress, torch.get_num_threads(), num_walks)

    def timing(self, phase: str) -> AbstractContextManager[None]:
        """Note the time of a block, where a record is kept."""
        return nullcontext() if self.folder is None else self.folder.timing(phase)

    def train(self, stage: Trainable, seed: int) -> None:
        """Bring one of the recipe's stages to its end."""
        loop = self.stages[stage.name].loop
        with self.timing(stage.name):
            run_stage(stage, loop, self.directory, seed, self.report, self.progress)

    def report(self) -> None:
        """Write the report page, where a record is kept."""
        if self.folder is not None:
            write_report(self.directory)

    @property
    def autoencoder_folder(self) -> Path:
        """Where the trained autoencoder is, or will be."""
        return self.directory if self.start_from is None else self.start_from / CHECKPOINTS

    def autoencoder(self) -> Autoencoder:
        """Train the autoencoder on crops, then on whole frames; afterwards just load it."""
        config = self.autoencoder_config
        if self.start_from is not None:
            return load_autoencoder(self.autoencoder_folder, config)
        path = self.directory / AUTOENCODER_FILE
        if not path.exists():
            jobs = self.render(self.recipe.walks.num_autoencoder_walks)
            walks = [np.load(self.data / f"{job.stem}.frames.npy", mmap_mode="r") for job in jobs]
            self._train_autoencoder(config, walks, path)
        return load_autoencoder(self.directory, config)

    def _train_autoencoder(
        self, config: AutoencoderConfig, walks: Sequence[NDArray[np.uint8]], path: Path
    ) -> None:
        torch.manual_seed(self.recipe.seed)
        first, second = self.stages["autoencoder"], self.stages["autoencoder-whole"]
        crop = self.recipe.batches.crop
        crops = AutoencoderStage(config, walks, first.batch_size, crop, optimizer=first.optimizer)
        self.train(crops, self.recipe.seed)
        whole = AutoencoderStage(
            config, walks, second.batch_size, None, name="autoencoder-whole", optimizer=second.optimizer
        )
        whole.optimizer.start_from(crops.optimizer)
        self.train(whole, self.recipe.seed)
        finished = whole.finished_model()
        with replacing(path) as temporary:
            save_file({n: tensor.contiguous() for n, tensor in finished.state_dict().items()}, temporary)

    def latent_walks(self, autoencoder: Autoencoder) -> list[LatentWalk]:
        """Draw and encode every walk, each once."""
        self.render()
        fast = Autoencoder(autoencoder.config)
        fast.load_state_dict(autoencoder.state_dict())
        with self.timing(ENCODING):
            return self.walks.encode(fast, self.progress, ENCODING)

    def glimpsed_jobs(self) -> list[RenderJob]:
        """Walks of which single moments are drawn."""
        return self.walks.jobs(
            range(FIRST_GLIMPSED_SEED, FIRST_GLIMPSED_SEED + self.recipe.num_glimpsed_walks)
        )

    def glimpses(self, autoencoder: Autoencoder) -> list[Glimpses]:
        """Draw and encode moments of further walks, each once."""
        jobs = self.glimpsed_jobs()
        found = gather_glimpses(jobs, self.places, autoencoder, self.data, torch.get_num_threads())
        with self.timing(GLIMPSING):
            return list(self.progress.over(GLIMPSING, found, len(jobs)))

    def generator(
        self, walks: Sequence[LatentWalk], glimpses: Sequence[Glimpses], autoencoder: Autoencoder
    ) -> ScenicModel:
        """Train the generator through its stages and return the EMA weights, fp32."""
        metric = pixel_metric(autoencoder, walks)
        torch.manual_seed(self.recipe.seed)
        model = ScenicModel(self.config, len(self.places))
        if self.start_from is not None:
            load_start(model, self.start_from, self.places)
        self._memorise(model, walks, glimpses, metric)
        pose = self._learn_to_hear(model, walks, metric)
        forcing = self._walk_on_own_frames(model, walks, metric, pose)
        model.load_state_dict(forcing.ema_state(), strict=False)
        return model.float().eval()

    def _memorise(
        self, model: ScenicModel, walks: Sequence[LatentWalk], glimpses: Sequence[Glimpses], metric: Tensor
    ) -> None:
        """Train the token path alone and leave its EMA weights in the model, everything else silent.

        Weights that a training starts from are hushed too: what their tokens told one another leaned on the memory before.
        """
        hush_branches(model.world)
        told = self.stages["memory"]
        memory = MemoryStage(model, walks, glimpses, told.batch_size, told.optimizer, metric)
        self.train(memory, self.recipe.seed)
        model.load_state_dict(memory.optimizer.ema_state(), strict=False)

    def _learn_to_hear(
        self, model: ScenicModel, walks: Sequence[LatentWalk], metric: Tensor
    ) -> MasterOptimizer:
        """Train whole pictures, mostly from pose and scene alone."""
        told = self.stages["generator-pose"]
        pose = GeneratorStage(
            "generator-pose",
            model,
            walks,
            NoiseMixture(pose_only=0.85),
            told.batch_size,
            self.recipe.batches.pose_window,
            told.optimizer,
            metric,
            is_off_token_path,
        )
        self.train(pose, self.recipe.seed + 1)
        return pose.optimizer

    def _walk_on_own_frames(
        self, model: ScenicModel, walks: Sequence[LatentWalk], metric: Tensor, before: MasterOptimizer
    ) -> MasterOptimizer:
        """Train rollouts, from the EMA weights of the stage before."""
        told = self.stages["self-forcing"]
        forcing = SelfForcingStage(
            "self-forcing",
            model,
            walks,
            self.recipe.timesteps,
            self.recipe.batches.rollouts,
            told.batch_size,
            optimizer=told.optimizer,
            metric=metric,
            trained=is_off_token_path,
        )
        forcing.optimizer.start_from(before)
        self.train(forcing, self.recipe.seed + 2)
        return forcing.optimizer


def is_off_token_path(name: str) -> bool:
    """Whether a parameter is trained after the memory stage; what was learned by heart stays as it is."""
    return not is_on_token_path(name)


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
