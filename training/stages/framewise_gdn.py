"""Frame-wise GDN stage: blocks that only added up learn to erase what they overwrite and to forget.

Every weight is kept. The gates begin almost open (write 0.993, keep 0.993 a frame), so at first only the erasing is new.
"""

from __future__ import annotations

from dataclasses import replace

from training.clips import ClipBatches
from training.configs import StageConfig
from training.stages.conversion import is_camera, rebuilt
from training.stages.flow_matching import FlowMatchingStage
from training.stages.generator import ScenicModel


def to_framewise_gdn(model: ScenicModel) -> ScenicModel:
    """Replace cumulative linear attention by the gated delta rule."""
    return rebuilt(model, replace(model.world.config, linear_attention=False))


def framewise_gdn_stage(config: StageConfig, before: ScenicModel, clips: ClipBatches) -> FlowMatchingStage:
    model = to_framewise_gdn(before)
    return FlowMatchingStage(config, model, clips, trained=lambda name: not is_camera(name))
