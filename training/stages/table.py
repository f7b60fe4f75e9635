"""The table of stages, in the order of the paper: what each does, what it starts from, how it is built.

The command line reads it without torch, so builders import what they build when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from training.distillation.distribution_matching import DistributionMatchingStage
    from training.distillation.ode_regression import OdeRegressionStage
    from training.stages.autoencoder import AutoencoderStage
    from training.stages.config import StageConfig
    from training.stages.flow_matching import FlowMatchingStage
    from training.stages.pipeline import Pipeline

    AnyStage = AutoencoderStage | FlowMatchingStage | OdeRegressionStage | DistributionMatchingStage

Mode = Literal["bidirectional", "chunk_causal"]
RECONSTRUCTION = "reconstruction: Charbonnier, squares, gradients, 4x4 means, KL"
VELOCITY = "mean square error of the velocity, noise - x0"
CLEAN_ESTIMATE = "mean square error of the clean estimate"
MATCHING = "distribution matching for the student, flow matching for the critic"
TEACHER = "best-clips"
"""Stage whose model, which is bidirectional, teaches the distilled ones."""


@dataclass(frozen=True)
class Stage:
    """One stage, whatever its size."""

    name: str
    purpose: str
    starts_from: str | None
    """Stage whose weights it takes over; None starts from random ones."""
    loss: str
    build: Callable[[Pipeline, StageConfig], AnyStage]
    """Make it, from what a pipeline holds."""
    mode: Mode = "bidirectional"
    """Attention mask of whole clips; students are rolled out chunk by chunk beside it."""

    @property
    def is_autoencoder(self) -> bool:
        return self.loss == RECONSTRUCTION

    @property
    def is_distribution_matching(self) -> bool:
        return self.loss == MATCHING


def _autoencoder(pipeline: Pipeline, config: StageConfig) -> AutoencoderStage:
    from training.stages.autoencoder import AutoencoderStage

    preset = pipeline.preset
    sizes = preset.base_autoencoder if config.stage == "base-autoencoder" else preset.autoencoder
    return AutoencoderStage(
        sizes, pipeline.videos(), config.batch_size, config.crop, config.stage, config.optimizer
    )


def _base(pipeline: Pipeline, config: StageConfig) -> FlowMatchingStage:
    """Start from random weights, with disabled camera branches that are not trained."""
    from training.stages.conversions import base_config, disable_cameras, is_no_camera
    from training.stages.flow_matching import FlowMatchingStage
    from training.stages.scenic_model import ScenicModel

    # Weights are drawn after the clips are there, as they were in earlier versions.
    clips = pipeline.clips(config, autoencoder="base-autoencoder")
    model = ScenicModel(base_config(pipeline.preset.model, pipeline.base_channels), pipeline.num_scenes)
    disable_cameras(model)
    return FlowMatchingStage(config, model, clips, trained=is_no_camera)


def _autoencoder_swap(pipeline: Pipeline, config: StageConfig) -> FlowMatchingStage:
    from training.stages.conversions import base_config, is_no_camera, swap_autoencoder
    from training.stages.flow_matching import FlowMatchingStage

    own = pipeline.preset.model
    before = pipeline.generator_before(config, keeps_latents=False)
    clips = pipeline.clips(config)
    model = swap_autoencoder(before, base_config(own, own.in_channels))
    return FlowMatchingStage(config, model, clips, trained=is_no_camera)


def _framewise_gdn(pipeline: Pipeline, config: StageConfig) -> FlowMatchingStage:
    from training.stages.conversions import is_no_camera, to_framewise_gdn
    from training.stages.flow_matching import FlowMatchingStage

    before = pipeline.generator_before(config)
    clips = pipeline.clips(config)
    return FlowMatchingStage(config, to_framewise_gdn(before), clips, trained=is_no_camera)


def _hybrid_attention(pipeline: Pipeline, config: StageConfig) -> FlowMatchingStage:
    from training.stages.conversions import is_no_camera, to_hybrid
    from training.stages.flow_matching import FlowMatchingStage

    before = pipeline.generator_before(config)
    clips = pipeline.clips(config)
    model = to_hybrid(before, pipeline.preset.model.softmax_every_n)
    return FlowMatchingStage(config, model, clips, trained=is_no_camera)


def _minute_camera(pipeline: Pipeline, config: StageConfig) -> FlowMatchingStage:
    from training.stages.conversions import add_cameras
    from training.stages.flow_matching import FlowMatchingStage

    model = pipeline.generator_before(config)
    clips = pipeline.clips(config)
    add_cameras(model)
    return FlowMatchingStage(config, model, clips)


def _best_clips(pipeline: Pipeline, config: StageConfig) -> FlowMatchingStage:
    from training.stages.flow_matching import FlowMatchingStage

    return FlowMatchingStage(
        config, pipeline.generator_before(config), pipeline.clips(config, best_only=True)
    )


def _chunk_causal(pipeline: Pipeline, config: StageConfig) -> FlowMatchingStage:
    from training.stages.flow_matching import FlowMatchingStage

    return FlowMatchingStage(
        config, pipeline.generator_before(config), pipeline.clips(config), mode="chunk_causal"
    )


def _ode_regression(pipeline: Pipeline, config: StageConfig) -> OdeRegressionStage:
    from training.distillation.ode_regression import OdeRegressionStage

    student = pipeline.generator_before(config)
    # Trajectories are made one by one, whoever makes them: each process finds its clips by their number.
    clips = pipeline.clips(config, dealt=False)
    return OdeRegressionStage(config, student, pipeline.store_trajectories(config, clips))


def _distribution_matching(pipeline: Pipeline, config: StageConfig) -> DistributionMatchingStage:
    from training.distillation.distribution_matching import DistributionMatchingStage
    from training.stages.model_file import CRITIC, GENERATOR

    before = pipeline.before(config)
    clips = pipeline.clips(config)
    teacher = pipeline.teacher(config)
    critic = before.get(CRITIC) or pipeline.teacher(config)
    return DistributionMatchingStage(config, before[GENERATOR], teacher, critic, clips)


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "base-autoencoder",
            "train the causal autoencoder of the base model, on crops of videos",
            None,
            RECONSTRUCTION,
            _autoencoder,
        ),
        Stage(
            "base",
            "train a camera-blind model with cumulative linear attention to start from",
            None,
            VELOCITY,
            _base,
        ),
        Stage("autoencoder", "train the causal autoencoder that stays", None, RECONSTRUCTION, _autoencoder),
        Stage(
            "autoencoder-swap",
            "adapt the model to that autoencoder: new patch embedding and output projection, all is trained",
            "base",
            VELOCITY,
            _autoencoder_swap,
        ),
        Stage(
            "framewise-gdn",
            "replace cumulative linear attention by frame-wise gated delta nets",
            "autoencoder-swap",
            VELOCITY,
            _framewise_gdn,
        ),
        Stage(
            "hybrid-attention",
            "make every 4th block a softmax block that keeps its projections",
            "framewise-gdn",
            VELOCITY,
            _hybrid_attention,
        ),
        Stage(
            "minute-camera",
            "lengthen clips and add both camera branches, zero-initialised",
            "hybrid-attention",
            VELOCITY,
            _minute_camera,
        ),
        Stage(TEACHER, "fine-tune on the best clips", "minute-camera", VELOCITY, _best_clips),
        Stage(
            "chunk-causal",
            "attend to the own and earlier chunks alone, with a noise level for each chunk",
            TEACHER,
            VELOCITY,
            _chunk_causal,
            "chunk_causal",
        ),
        Stage(
            "ode-regression",
            "learn in few steps where the teacher's trajectories end",
            "chunk-causal",
            CLEAN_ESTIMATE,
            _ode_regression,
            "chunk_causal",
        ),
        Stage(
            "self-forcing-short",
            "match the teacher's distribution on own rollouts, with every chunk cached",
            "ode-regression",
            MATCHING,
            _distribution_matching,
        ),
        Stage(
            "self-forcing-long",
            "the same at full length, with a sink and a window cached",
            "self-forcing-short",
            MATCHING,
            _distribution_matching,
        ),
    )
}
"""All stages by name."""
