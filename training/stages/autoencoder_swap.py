"""Autoencoder adaptation: another autoencoder is put under a trained model, which learns to speak its latents.

What reads latents and what writes them begins anew; everything between keeps its weights, and all of it learns.
"""

from __future__ import annotations

from model.config import ModelConfig
from training.clips import ClipBatches
from training.configs import StageConfig
from training.stages.conversion import is_camera, rebuilt
from training.stages.flow_matching import FlowMatchingStage
from training.stages.generator import ScenicModel

RENEWED = ("world.x_embedder.", "world.final_layer.linear.")
"""Beginnings of the names that begin anew: the patchify layer and the output projection."""


def is_renewed(name: str) -> bool:
    return name.startswith(RENEWED)


def swap_autoencoder(model: ScenicModel, config: ModelConfig) -> ScenicModel:
    """Put the model on the latents of `config`."""
    return rebuilt(model, config, is_renewed)


def autoencoder_swap_stage(
    config: StageConfig, before: ScenicModel, model_config: ModelConfig, clips: ClipBatches
) -> FlowMatchingStage:
    """Adapt the whole model, camera branches apart, to latents it has never seen."""
    model = swap_autoencoder(before, model_config)
    return FlowMatchingStage(config, model, clips, trained=lambda name: not is_camera(name))
