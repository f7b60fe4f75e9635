"""One stage's model made into the next one's: what is kept, what is left behind, what begins anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from model.config import ModelConfig
from training.stages.scenic_model import ScenicModel

if TYPE_CHECKING:
    from model.block import Block


CAMERA_PARTS = ("_cam", "plucker_")
"""Parts of parameter names that belong to the two camera branches."""


def is_camera(name: str) -> bool:
    """Whether a parameter belongs to a camera branch."""
    return any(part in name for part in CAMERA_PARTS)


def is_no_camera(name: str) -> bool:
    """Whether a parameter belongs to the rest of a model."""
    return not is_camera(name)


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
def disable_cameras(model: ScenicModel) -> None:
    """Set the outputs of both camera branches to zero, so that the model does not hear where the camera is."""
    for block in model.world.blocks:
        block = cast("Block", block)
        for linear in (block.attn.out_proj_cam, block.plucker_proj):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)


def base_config(config: ModelConfig, in_channels: int) -> ModelConfig:
    """Take a world model back to where the paper begins: linear attention in every block, latents of another autoencoder."""
    return replace(
        config, in_channels=in_channels, linear_attention=True, softmax_every_n=config.num_layers + 1
    )


RENEWED = ("world.x_embedder.", "world.final_layer.linear.")
"""Beginnings of the names that begin anew: the patchify layer and the output projection."""


def is_renewed(name: str) -> bool:
    return name.startswith(RENEWED)


def swap_autoencoder(model: ScenicModel, config: ModelConfig) -> ScenicModel:
    """Put the model on the latents of `config`."""
    return rebuilt(model, config, is_renewed)


def to_framewise_gdn(model: ScenicModel) -> ScenicModel:
    """Replace cumulative linear attention by the gated delta rule."""
    return rebuilt(model, replace(model.world.config, linear_attention=False))


def to_hybrid(model: ScenicModel, softmax_every_n: int) -> ScenicModel:
    """Make every n-th block a softmax block."""
    return rebuilt(model, replace(model.world.config, softmax_every_n=softmax_every_n))


@torch.no_grad()
def add_cameras(model: ScenicModel) -> None:
    """Begin the camera branches: projections, norms and key convolutions from the base, outputs of zero."""
    disable_cameras(model)
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
