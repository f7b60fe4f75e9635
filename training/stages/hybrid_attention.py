"""Hybrid attention stage: every few blocks one becomes softmax attention, for what a state of fixed size cannot recall.

Such a block keeps all its projections and norms; only the convolutions on its keys are left behind.
"""

from __future__ import annotations

from dataclasses import replace

from training.clips import ClipBatches
from training.configs import StageConfig
from training.stages.conversion import is_camera, rebuilt
from training.stages.flow_matching import FlowMatchingStage
from training.stages.generator import ScenicModel


def to_hybrid(model: ScenicModel, softmax_every_n: int) -> ScenicModel:
    """Make every n-th block a softmax block."""
    return rebuilt(model, replace(model.world.config, softmax_every_n=softmax_every_n))


def hybrid_attention_stage(
    config: StageConfig, before: ScenicModel, softmax_every_n: int, clips: ClipBatches
) -> FlowMatchingStage:
    model = to_hybrid(before, softmax_every_n)
    return FlowMatchingStage(config, model, clips, trained=lambda name: not is_camera(name))
