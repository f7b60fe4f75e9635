"""Random weights to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from model.block import Block
    from model.world_model import WorldModel

OPEN_GATE_BIAS = 1.278464542761074
"""SiLU of this is 1, so output gates begin fully open."""
CAMERA_GAIN = 0.1
"""Share of a Xavier initialisation that wakes the ray-frame branch of a fresh model."""
LATENT_GAIN = 0.1
"""The same for the latents' embedder: at full noise they say nothing, and pose and scene should be heard first."""


@torch.no_grad()
def initialise(model: WorldModel, fresh: bool) -> None:
    """Set all weights; `fresh` gives the camera branches small weights where they would be zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    text = model.y_embedder.y_proj
    for linear in (model.t_embedder.mlp[0], model.t_embedder.mlp[2], model.t_block[1], text.fc1, text.fc2):
        assert isinstance(linear, nn.Linear)
        nn.init.normal_(linear.weight, std=0.02)
    # The released model inherits captions from a text-to-video model; a fresh one has to listen to them from the start.
    nn.init.constant_(model.attention_y_norm.weight, 1.0 if fresh else 0.01)
    nn.init.zeros_(model.raymap_embedder.proj.weight)
    if fresh:
        model.x_embedder.proj.weight.mul_(LATENT_GAIN)
    for block in model.blocks:
        _initialise_block(cast("Block", block), fresh)


def _initialise_block(block: Block, fresh: bool) -> None:
    attn = block.attn
    nn.init.zeros_(attn.beta_proj.weight)
    nn.init.constant_(attn.beta_proj.bias, 5.0)
    nn.init.zeros_(attn.gate_proj.weight)
    nn.init.zeros_(attn.output_gate.weight)
    nn.init.constant_(attn.output_gate.bias, OPEN_GATE_BIAS)
    nn.init.zeros_(block.mlp.t_conv.weight)
    rows = attn.qkv.weight.chunk(3)
    for linear, row in zip((attn.q_proj_cam, attn.k_proj_cam, attn.v_proj_cam), rows, strict=True):
        linear.weight.copy_(row)
    if not attn.is_softmax:
        for convolution in (attn.conv_k, attn.conv_k_cam):
            nn.init.zeros_(convolution.weight)
            convolution.weight[..., -1] = 1
    for linear, gain in ((block.plucker_proj, 1.0), (attn.out_proj_cam, CAMERA_GAIN)):
        if fresh:
            nn.init.xavier_uniform_(linear.weight, gain=gain)
        else:
            nn.init.zeros_(linear.weight)
