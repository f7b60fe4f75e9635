"""Minute-scale stage with cameras: clips of a minute, and two branches that tell the model where it stands.

The ray-frame (UCPE) branch begins as a copy of the attention beside it, and both branches with outputs of zero, so that training
starts from exactly what the model said without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from training.clips import ClipBatches
from training.configs import StageConfig
from training.stages.conversion import silence_cameras
from training.stages.flow_matching import FlowMatchingStage
from training.stages.generator import ScenicModel

if TYPE_CHECKING:
    from model.block import Block


@torch.no_grad()
def add_cameras(model: ScenicModel) -> None:
    """Begin the camera branches: projections, norms and key convolutions from the base, outputs of zero."""
    silence_cameras(model)
    for block in model.world.blocks:
        attn = cast("Block", block).attn
        rows = attn.qkv.weight.chunk(3)
        for linear, row in zip((attn.q_proj_cam, attn.k_proj_cam, attn.v_proj_cam), rows, strict=True):
            linear.weight.copy_(row)
            linear.bias.zero_()
        attn.q_norm_cam.weight.copy_(attn.q_norm.weight)
        attn.k_norm_cam.weight.copy_(attn.k_norm.weight)
        if not attn.is_softmax:
            attn.conv_k_cam.weight.copy_(attn.conv_k.weight)


def minute_camera_stage(config: StageConfig, before: ScenicModel, clips: ClipBatches) -> FlowMatchingStage:
    """Train everything on long clips; the model before is changed."""
    add_cameras(before)
    return FlowMatchingStage(config, before, clips)
