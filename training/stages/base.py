"""Base stage: a camera-blind model with cumulative linear attention, for the others to begin from.

It stands where the paper has a released text-and-image-to-video model: the same kind of attention, on latents that the next
stage replaces.
"""

from __future__ import annotations

from dataclasses import replace

from model.config import ModelConfig
from training.clips import ClipBatches
from training.configs import StageConfig
from training.stages.conversion import is_camera, silence_cameras
from training.stages.flow_matching import FlowMatchingStage
from training.stages.generator import ScenicModel


def base_config(config: ModelConfig, in_channels: int) -> ModelConfig:
    """Take a world model back to where the paper begins: linear attention in every block, latents of another autoencoder."""
    return replace(
        config, in_channels=in_channels, linear_attention=True, softmax_every_n=config.num_layers + 1
    )


def base_stage(
    config: StageConfig, model_config: ModelConfig, num_scenes: int, clips: ClipBatches
) -> FlowMatchingStage:
    """Begin with random weights; the camera branches stay silent and do not learn."""
    model = ScenicModel(model_config, num_scenes)
    silence_cameras(model)
    return FlowMatchingStage(config, model, clips, trained=lambda name: not is_camera(name))
