"""The paper's stages one after another: each starts from the checkpoint of the one before, and every checkpoint is kept.

A stage that has its checkpoint is not run again, one that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from model.refiner import Refiner, load_refiner
from training.data.batches import ClipBatches
from training.data.memory_clips import Video
from training.data.refiner_pairs import RefinerPairs
from training.distillation.distribution_matching import DistributionMatchingStage
from training.distillation.ode_regression import (
    OdeRegressionStage,
    StoredTrajectories,
    store_trajectories,
    trajectories_tag,
)
from training.distillation.quantized import QuantizedDistillationStage
from training.loop import run_stage
from training.parallel.shards import whole
from training.parallel.single_process import ALONE, Cluster
from training.progress import RecipeProgress
from training.stages.autoencoder import AutoencoderStage
from training.stages.builders import BUILDERS, AnyStage
from training.stages.config import Preset, StageConfig
from training.stages.data import StageData
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
    save_refiner_stage,
    starting_models,
)
from training.stages.refining import RefinerStage, new_refiner, pairs_tag, store_pairs
from training.stages.scenic_model import ScenicModel
from training.stages.table import STAGES, TEACHER

STAGES_FOLDER, TRAJECTORIES_FOLDER, PAIRS_FOLDER = "stages", "trajectories", "pairs"
"""Of a run folder, which gets states, logs and checkpoints; and within it."""
FOLLOWING = "teacher trajectories"
"""Phase before `ode-regression`."""
PAIRING = "clips made again"
"""Phase before `refiner`."""


class Pipeline:
    """The stages of one run folder; what builders ask of it is described in `builders.Inputs`."""

    def __init__(
        self,
        preset: Preset,
        folder: Path,
        data: StageData,
        cluster: Cluster = ALONE,
        progress: RecipeProgress | None = None,
        pair_folders: Sequence[Path] = (),
    ) -> None:
        """Prepare.

        Args:
            folder: Gets states, logs and checkpoints.
            cluster: Processes that train together, all of which call the same methods.
            pair_folders: Of pairs for the refiner; made here where there are none.
        """
        self.preset, self.folder, self.data, self.cluster = preset, folder, data, cluster
        self.progress = progress or RecipeProgress({}, shown=False)
        self.start_from: Path | None = None
        self.pair_folders = tuple(pair_folders)

    def checkpoint(self, name: str) -> Path:
        """Where a stage's checkpoint lies or will lie."""
        return model_path(self.folder, name)

    def train(self, name: str, start_from: Path | None = None) -> Path:
        """Bring a stage to its end, unless it is there already; returns its checkpoint.

        Args:
            start_from: Checkpoint to start from; that of the stage before where None.

        Raises:
            ValueError: What the stage needs is not there.
        """
        path = self.checkpoint(name)
        if path.exists():
            return path
        self.start_from = start_from
        config = self.preset.stage(name)
        torch.manual_seed(config.seed)
        stage = BUILDERS[name](self, config)
        self.cluster.adopt(stage)
        run_stage(stage, config.loop, self.folder, config.seed, progress=self.progress, cluster=self.cluster)
        self._save(path, stage)
        self.cluster.wait()
        return path

    def _save(self, path: Path, stage: AnyStage) -> None:
        """Write a checkpoint; weights that are shared out are gathered from all processes."""
        if isinstance(stage, RefinerStage):
            refiner, adapter = stage.finished()
            if self.cluster.is_first:
                save_refiner_stage(path, refiner, adapter)
            return
        if isinstance(stage, AutoencoderStage):
            autoencoder = stage.finished_model()
            if self.cluster.is_first:
                save_autoencoder_file(path, autoencoder)
            return
        models = finished_models(stage)
        if self.cluster.is_first:
            save_models(path, stage.name, models)

    def videos(self) -> Sequence[Video]:
        with self.cluster.in_turn():
            return self.data.videos()

    def clips(
        self,
        config: StageConfig,
        autoencoder: str = "autoencoder",
        best_only: bool = False,
        dealt: bool = True,
    ) -> ClipBatches:
        path = self.needed(config.stage, autoencoder) if self.data.is_encoded_here else None
        with self.cluster.in_turn():
            return self.data.clips(config, path, best_only, dealt)

    @property
    def num_scenes(self) -> int:
        return self.data.num_scenes

    @property
    def base_channels(self) -> int:
        own = self.preset.base_autoencoder.latent_channels
        return own if self.data.is_encoded_here else self.preset.model.in_channels

    def before(self, config: StageConfig, keeps_latents: bool = True) -> dict[str, ScenicModel]:
        earlier = STAGES[config.stage].starts_from
        assert earlier is not None
        path = self.start_from or self.needed(config.stage, earlier)
        wanted = self.preset.model
        models = starting_models(path, wanted, self.num_scenes)
        names = (*SIZES, "in_channels") if keeps_latents else SIZES
        check_sizes(path, models[GENERATOR].world.config, wanted, names)
        return models

    def generator_before(self, config: StageConfig, keeps_latents: bool = True) -> ScenicModel:
        return self.before(config, keeps_latents)[GENERATOR]

    def teacher(self, config: StageConfig) -> ScenicModel:
        return load_models(self.needed(config.stage, TEACHER))[GENERATOR]

    def refiner(self, config: StageConfig) -> Refiner:
        assert config.refining is not None
        if self.start_from is not None:
            return load_refiner(self.start_from, torch.float32).model
        if config.refining.rank is not None and self.preset.walks is None:
            raise ValueError(
                f"{config.stage} of {self.preset.name} trains adapters on LTX-2's own refiner; name its folder with --from"
            )
        return new_refiner(config.refining)

    def pairs(self, config: StageConfig) -> RefinerPairs:
        if self.pair_folders:
            return RefinerPairs.find(self.pair_folders)
        generator = load_models(self.needed(config.stage, "self-forcing-long"))[GENERATOR]
        self.cluster.keep_whole(generator)
        clips = self.clips(config, dealt=False)
        folder = (
            self.folder
            / PAIRS_FOLDER
            / pairs_tag(generator, config, self.data.identity(self.checkpoint("autoencoder")))
        )
        with self.progress.sharing(PAIRING) as tell:
            return store_pairs(folder, generator, clips, config, self.cluster, tell)

    def store_trajectories(self, config: StageConfig, clips: ClipBatches) -> StoredTrajectories:
        teacher = self.teacher(config)
        self.cluster.keep_whole(teacher)
        identity = self.data.identity(self.checkpoint("autoencoder"))
        folder = self.folder / TRAJECTORIES_FOLDER / trajectories_tag(teacher, config, identity)
        with self.progress.sharing(FOLLOWING) as tell:
            return store_trajectories(folder, teacher, clips, config, self.cluster, tell)

    def needed(self, name: str, earlier: str) -> Path:
        """Find an earlier stage's checkpoint; a preset may train the stage for it.

        Raises:
            ValueError: It is not there.
        """
        path = self.checkpoint(earlier)
        if path.exists():
            return path
        if not self.preset.trains_what_is_needed:
            raise ValueError(
                f"{name} needs the checkpoint of {earlier}, and {path} is not there; run `flaneur train {earlier}` first, "
                "or name a network with --from"
            )
        start_from = self.start_from
        with torch.random.fork_rng():
            self.train(earlier)
        self.start_from = start_from
        return path


def finished_models(
    stage: FlowMatchingStage | OdeRegressionStage | DistributionMatchingStage | QuantizedDistillationStage,
) -> dict[str, ScenicModel]:
    """Build a stage's models with their EMA weights, whole, by role."""
    if isinstance(stage, DistributionMatchingStage):
        optimizers = {GENERATOR: stage.optimizer.student, CRITIC: stage.optimizer.critic}
        models = {GENERATOR: stage.model, CRITIC: stage.critic}
    else:
        optimizers, models = {GENERATOR: stage.optimizer}, {GENERATOR: stage.model}
    finished: dict[str, ScenicModel] = {}
    for role, optimizer in optimizers.items():
        model = models[role]
        weights = {name: whole(tensor) for name, tensor in model.state_dict().items()}
        finished[role] = ScenicModel(model.world.config, len(model.scenes))
        finished[role].load_state_dict(weights | optimizer.ema_state())
    return finished
