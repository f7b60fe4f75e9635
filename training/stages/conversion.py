"""One stage's model made into the next one's: what is kept, what is left behind, what begins anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from model.config import ModelConfig
from training.stages.generator import ScenicModel

if TYPE_CHECKING:
    from model.block import Block

CAMERA_PARTS = ("_cam", "plucker_")
"""Parts of parameter names that belong to the two camera branches."""


def is_camera(name: str) -> bool:
    """Whether a parameter belongs to a camera branch."""
    return any(part in name for part in CAMERA_PARTS)


@torch.no_grad()
def rebuilt(
    model: ScenicModel, config: ModelConfig, renewed: Callable[[str], bool] = lambda name: False
) -> ScenicModel:
    """Build the model of another config with the same weights, except those that `renewed` names, which begin anew.

    Weights of parts that the new config lacks are left behind.

    Raises:
        ValueError: A weight that should be kept is missing or of another shape.
    """
    fresh = ScenicModel(config, len(model.scenes))
    old = model.state_dict()
    for name, tensor in fresh.state_dict().items():
        if renewed(name):
            continue
        if name not in old or old[name].shape != tensor.shape:
            raise ValueError(
                f"the model {model.world.config.name} has no {name} of shape {tuple(tensor.shape)}; start from the stage before"
            )
        tensor.copy_(old[name])
    return fresh.to(next(model.parameters()).dtype)


@torch.no_grad()
def silence_cameras(model: ScenicModel) -> None:
    """Set the outputs of both camera branches to zero, so that the model does not hear where the camera is."""
    for block in model.world.blocks:
        block = cast("Block", block)
        for linear in (block.attn.out_proj_cam, block.plucker_proj):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
