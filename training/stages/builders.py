"""A function for each stage of the table that builds it from what a pipeline holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from export.quantization.layers import STEP_RULES, rules_for, shipped_table
from model.checkpoint import weights_sha256
from model.refiner import Refiner
from training.data.batches import ClipBatches
from training.data.memory_clips import MemoryClips, Video
from training.data.refiner_pairs import RefinerPairs
from training.distillation.distribution_matching import DistributionMatchingStage
from training.distillation.ode_regression import OdeRegressionStage, StoredTrajectories
from training.distillation.quantized import QuantizedDistillationStage
from training.stages.autoencoder import AutoencoderStage
from training.stages.config import Preset, StageConfig
from training.stages.conversions import (
    add_cameras,
    base_config,
    disable_cameras,
    is_no_camera,
    swap_autoencoder,
    to_framewise_gdn,
    to_hybrid,
)
from training.stages.flow_matching import FlowMatchingStage
from training.stages.model_file import CRITIC, GENERATOR
from training.stages.refining import RefinerStage
from training.stages.scenic_model import ScenicModel

AnyStage = (
    AutoencoderStage
    | FlowMatchingStage
    | OdeRegressionStage
    | DistributionMatchingStage
    | QuantizedDistillationStage
    | RefinerStage
)


class Inputs(Protocol):
    """What a builder asks of a pipeline."""

    preset: Preset

    @property
    def num_scenes(self) -> int:
        """Rows of the table of texts that a model starts with."""
        ...

    @property
    def base_channels(self) -> int:
        """Latent channels of the base model."""
        ...

    def videos(self) -> Sequence[Video]:
        """Videos [F, H, W, 3] for an autoencoder."""
        ...

    def clips(
        self, config: StageConfig, autoencoder: str = ..., best_only: bool = ..., dealt: bool = ...
    ) -> ClipBatches:
        """Clips for a stage of the generator.

        Args:
            autoencoder: Stage whose latents they are, where clips are encoded here.
            best_only: Whether only the best are wanted, where clips can be judged here.
            dealt: Whether each process gets clips of its own.
        """
        ...

    def before(self, config: StageConfig, keeps_latents: bool = ...) -> Mapping[str, ScenicModel]:
        """Read the models that a stage starts from, by role."""
        ...

    def generator_before(self, config: StageConfig, keeps_latents: bool = ...) -> ScenicModel:
        """Read the generator that a stage starts from."""
        ...

    def teacher(self, config: StageConfig) -> ScenicModel:
        """Read the model that teaches a distilled stage."""
        ...

    def refiner(self, config: StageConfig) -> Refiner:
        """Read the refiner that adapters are trained on, or draw a new one."""
        ...

    def pairs(self, config: StageConfig) -> RefinerPairs:
        """Give pairs for the refiner, made by the first stage where there are none."""
        ...

    def store_trajectories(self, config: StageConfig, clips: ClipBatches) -> StoredTrajectories:
        """Store the teacher's trajectories that are missing."""
        ...


def _autoencoder(inputs: Inputs, config: StageConfig) -> AutoencoderStage:
    preset = inputs.preset
    sizes = preset.base_autoencoder if config.stage == "base-autoencoder" else preset.autoencoder
    clips = [MemoryClips.of_video(video) for video in inputs.videos()]
    return AutoencoderStage(sizes, clips, config.batch_size, config.crop, config.stage, config.optimizer)


def _base(inputs: Inputs, config: StageConfig) -> FlowMatchingStage:
    """Start from random weights, with disabled camera branches that are not trained."""
    # Weights are drawn after the clips are there, as they were in earlier versions.
    clips = inputs.clips(config, autoencoder="base-autoencoder")
    model = ScenicModel(base_config(inputs.preset.model, inputs.base_channels), inputs.num_scenes)
    disable_cameras(model)
    return FlowMatchingStage(config, model, clips, trained=is_no_camera)


def _autoencoder_swap(inputs: Inputs, config: StageConfig) -> FlowMatchingStage:
    own = inputs.preset.model
    before = inputs.generator_before(config, keeps_latents=False)
    clips = inputs.clips(config)
    model = swap_autoencoder(before, base_config(own, own.in_channels))
    return FlowMatchingStage(config, model, clips, trained=is_no_camera)


def _framewise_gdn(inputs: Inputs, config: StageConfig) -> FlowMatchingStage:
    before = inputs.generator_before(config)
    clips = inputs.clips(config)
    return FlowMatchingStage(config, to_framewise_gdn(before), clips, trained=is_no_camera)


def _hybrid_attention(inputs: Inputs, config: StageConfig) -> FlowMatchingStage:
    before = inputs.generator_before(config)
    clips = inputs.clips(config)
    model = to_hybrid(before, inputs.preset.model.softmax_every_n)
    return FlowMatchingStage(config, model, clips, trained=is_no_camera)


def _minute_camera(inputs: Inputs, config: StageConfig) -> FlowMatchingStage:
    model = inputs.generator_before(config)
    clips = inputs.clips(config)
    add_cameras(model)
    return FlowMatchingStage(config, model, clips)


def _best_clips(inputs: Inputs, config: StageConfig) -> FlowMatchingStage:
    return FlowMatchingStage(config, inputs.generator_before(config), inputs.clips(config, best_only=True))


def _chunk_causal(inputs: Inputs, config: StageConfig) -> FlowMatchingStage:
    return FlowMatchingStage(
        config, inputs.generator_before(config), inputs.clips(config), mode="chunk_causal"
    )


def _ode_regression(inputs: Inputs, config: StageConfig) -> OdeRegressionStage:
    student = inputs.generator_before(config)
    # Trajectories are made one by one, whoever makes them: each process finds its clips by their number.
    clips = inputs.clips(config, dealt=False)
    return OdeRegressionStage(config, student, inputs.store_trajectories(config, clips))


def _distribution_matching(inputs: Inputs, config: StageConfig) -> DistributionMatchingStage:
    before = inputs.before(config)
    clips = inputs.clips(config)
    teacher = inputs.teacher(config)
    critic = before.get(CRITIC) or inputs.teacher(config)
    return DistributionMatchingStage(config, before[GENERATOR], teacher, critic, clips)


def _qad(inputs: Inputs, config: StageConfig) -> QuantizedDistillationStage:
    student = inputs.generator_before(config)
    name, rules = student.world.config.name, STEP_RULES
    if shipped_table(name) is not None:
        # It is for the shipped weights, which the students of this pipeline do not have.
        rules = rules_for(None, name, weights_sha256(student.world), lambda _other: None)
    return QuantizedDistillationStage(config, student, inputs.clips(config), rules)


def _refiner(inputs: Inputs, config: StageConfig) -> RefinerStage:
    network = inputs.refiner(config)
    return RefinerStage(config, network, inputs.pairs(config))


BUILDERS: dict[str, Callable[[Inputs, StageConfig], AnyStage]] = {
    "base-autoencoder": _autoencoder,
    "base": _base,
    "autoencoder": _autoencoder,
    "autoencoder-swap": _autoencoder_swap,
    "framewise-gdn": _framewise_gdn,
    "hybrid-attention": _hybrid_attention,
    "minute-camera": _minute_camera,
    "best-clips": _best_clips,
    "chunk-causal": _chunk_causal,
    "ode-regression": _ode_regression,
    "self-forcing-short": _distribution_matching,
    "self-forcing-long": _distribution_matching,
    "qad": _qad,
    "refiner": _refiner,
}
"""By the stage's name."""
