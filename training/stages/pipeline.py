"""The paper's stages one after another: each takes over what the one before left, and every outcome is kept.

What the clips are is the data's affair (`training/chain_data.py`). A stage that has its outcome is not run again, one that was
stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from model.vae.pocket import AutoencoderConfig
from training.data.batches import ClipBatches
from training.distillation.distribution_matching import DistributionMatchingStage
from training.distillation.ode_regression import OdeRegressionStage, store_trajectories, trajectories_tag
from training.loop import run_stage
from training.parallel.shards import whole
from training.parallel.single_process import ALONE, Cluster
from training.pocket.run import PocketRun
from training.stage import Stage
from training.stages.autoencoder import AutoencoderStage
from training.stages.best_clips import KEPT_SHARE, best_clips_stage
from training.stages.config import StageConfig
from training.stages.conversions import (
    autoencoder_swap_stage,
    base_config,
    base_stage,
    chunk_causal_stage,
    framewise_gdn_stage,
    hybrid_attention_stage,
    minute_camera_stage,
)
from training.stages.data import ChainData, WalkData
from training.stages.flow_matching import FlowMatchingStage
from training.stages.model_file import (
    CRITIC,
    GENERATOR,
    SIZES,
    check_sizes,
    load_models,
    model_path,
    save_autoencoder_file,
    save_models,
    starting_models,
)
from training.stages.scenic_model import ScenicModel
from training.stages.table import TEACHER

AUTOENCODERS = ("base-autoencoder", "autoencoder")
"""Stages that train an autoencoder; the first one's latents are the base model's alone."""


STAGES_FOLDER, TRAJECTORIES_FOLDER = "stages", "trajectories"
"""Of a run folder, which gets states, logs and outcomes; and within it."""
FOLLOWING = "following the teacher"
"""Phase before `ode-regression`."""


@dataclass(frozen=True)
class ChainConfig:
    """What all stages share."""

    stages: Mapping[str, StageConfig]
    base_autoencoder: AutoencoderConfig
    """What the base model speaks; the run's own autoencoder replaces it."""
    kept_share: float = KEPT_SHARE
    """Of the walks, for the fine-tuning on the best."""


class Chain:
    """The stages of one run folder."""

    def __init__(
        self,
        run: PocketRun,
        config: ChainConfig,
        directory: Path | None = None,
        cluster: Cluster = ALONE,
        data: ChainData | None = None,
    ) -> None:
        """Prepare.

        Args:
            run: Says what the finished model and autoencoder are like, and which walks there are.
            directory: Gets states, logs and outcomes; default: `stages` in the run's folder.
            cluster: Processes that train together, all of which call the same methods.
            data: The run's own walks where None.
        """
        self.run, self.config, self.cluster = run, config, cluster
        self.directory = directory or run.directory / STAGES_FOLDER
        self.data = data or WalkData(run, self._needed, config.kept_share)

    def outcome(self, name: str) -> Path:
        """Where a stage's outcome lies or will lie."""
        return model_path(self.directory, name)

    def train(self, name: str, start_from: Path | None = None) -> Path:
        """Bring a stage to its end, unless it is there already.

        Args:
            start_from: Outcome to start from; that of the stage before where None.

        Raises:
            ValueError: What the stage needs is not there.
        """
        path = self.outcome(name)
        if path.exists():
            return path
        config = self.config.stages[name]
        torch.manual_seed(config.seed)
        if name in AUTOENCODERS:
            with self.cluster.in_turn():
                stage = self._autoencoder_stage(config)
            self._run(stage, config)
            finished = stage.finished_model()
            if self.cluster.is_first:
                save_autoencoder_file(path, finished)
            self.cluster.wait()
            return path
        before = {} if name == "base" else self._before(config, start_from)
        with self.cluster.in_turn():
            clips = self.data.clips(config)
        stage = self._stage(config, before, clips)
        self._run(stage, config)
        models = finished_models(stage)
        if self.cluster.is_first:
            save_models(path, name, models)
        self.cluster.wait()
        return path

    def _run(self, stage: Stage, config: StageConfig) -> None:
        cluster = self.cluster
        cluster.adopt(stage)
        with self.run.timing(config.stage) if cluster.is_first else nullcontext():
            run_stage(
                stage, config.loop, self.directory, config.seed, progress=self.run.progress, cluster=cluster
            )

    def _autoencoder_stage(self, config: StageConfig) -> AutoencoderStage:
        sizes = self.run.autoencoder_config
        if config.stage == "base-autoencoder":
            sizes = self.config.base_autoencoder
        films = self.data.films()
        return AutoencoderStage(sizes, films, config.batch_size, config.crop, config.stage, config.optimizer)

    def _before(self, config: StageConfig, start_from: Path | None) -> dict[str, ScenicModel]:
        """Read what a stage starts from."""
        assert config.starts_from is not None
        path = start_from or self._needed(config.stage, config.starts_from)
        models = starting_models(path, self.run.config, self.data.num_scenes)
        # This one stage goes over to other latents.
        kept = SIZES if config.stage == "autoencoder-swap" else (*SIZES, "in_channels")
        check_sizes(path, models[GENERATOR].world.config, self.run.config, kept)
        return models

    def _stage(self, config: StageConfig, before: Mapping[str, ScenicModel], clips: ClipBatches) -> Stage:
        """Build a stage of the generator on the models that it starts from."""
        name, own = config.stage, self.run.config
        if name == "base":
            channels = self.data.base_channels or self.config.base_autoencoder.latent_channels
            return base_stage(config, base_config(own, channels), self.data.num_scenes, clips)
        if name in ("ode-regression", "self-forcing-short", "self-forcing-long"):
            return self._distilled(config, before, clips)
        model = before[GENERATOR]
        if name == "autoencoder-swap":
            return autoencoder_swap_stage(config, model, base_config(own, own.in_channels), clips)
        if name == "framewise-gdn":
            return framewise_gdn_stage(config, model, clips)
        if name == "hybrid-attention":
            return hybrid_attention_stage(config, model, own.softmax_every_n, clips)
        if name == "minute-camera":
            return minute_camera_stage(config, model, clips)
        if name == "best-clips":
            return best_clips_stage(config, model, clips)
        return chunk_causal_stage(config, model, clips)

    def _distilled(self, config: StageConfig, before: Mapping[str, ScenicModel], clips: ClipBatches) -> Stage:
        student = before[GENERATOR]
        teacher = load_models(self._needed(config.stage, TEACHER))[GENERATOR]
        if config.stage == "ode-regression":
            self.cluster.keep_whole(teacher)
            folder = self.trajectories(teacher)
            timing = self.run.timing(FOLLOWING) if self.cluster.is_first else nullcontext()
            with timing, self.run.progress.sharing(FOLLOWING) as tell:
                stored = store_trajectories(folder, teacher, clips, config, self.cluster, tell)
            return OdeRegressionStage(config, student, stored)
        critic = before.get(CRITIC) or load_models(self.outcome(TEACHER))[GENERATOR]
        return DistributionMatchingStage(config, student, teacher, critic, clips)

    def trajectories(self, teacher: ScenicModel) -> Path:
        """Where the trajectories of a teacher lie or will lie."""
        tag = trajectories_tag(teacher, self.config.stages["ode-regression"], self.data.identity)
        return self.directory / TRAJECTORIES_FOLDER / tag

    def _needed(self, name: str, earlier: str) -> Path:
        path = self.outcome(earlier)
        if not path.exists():
            raise ValueError(
                f"{name} needs what {earlier} makes, and {path} is not there; run `flaneur train {earlier}` first"
            )
        return path


def finished_models(stage: Stage) -> dict[str, ScenicModel]:
    """Build a stage's models with their averaged weights, whole, by role."""
    if isinstance(stage, DistributionMatchingStage):
        optimizers = {GENERATOR: stage.optimizer.student, CRITIC: stage.optimizer.critic}
        models = {GENERATOR: stage.model, CRITIC: stage.critic}
    else:
        assert isinstance(stage, FlowMatchingStage | OdeRegressionStage)
        optimizers, models = {GENERATOR: stage.optimizer}, {GENERATOR: stage.model}
    finished: dict[str, ScenicModel] = {}
    for role, optimizer in optimizers.items():
        model = models[role]
        weights = {name: whole(tensor) for name, tensor in model.state_dict().items()}
        finished[role] = ScenicModel(model.world.config, len(model.scenes))
        finished[role].load_state_dict(weights | optimizer.averaged_state())
    return finished
