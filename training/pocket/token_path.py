"""The part of the network that answers token by token: ray and the scene's memory in, clean latents out, nobody hearing another.

Attention, cross-attention and feed-forward are left out. What is left costs a fifth of the whole and takes any mixture of
tokens, so a place can be learned by heart from thousands of pictures in one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from model.camera import scale_translations
from model.config import ModelConfig
from model.precision import full_precision, wide
from model.scene_memory import ray_maps
from model.world_model import MAX_TIMESTEP, WorldModel

if TYPE_CHECKING:
    from model.block import Block


def token_intrinsics(config: ModelConfig, intrinsics: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Move the principal point so that a lone token at the grid's origin looks along a token's ray.

    Args:
        intrinsics: In frame pixels, [..., 4].
        row, column: Of the tokens in the latent grid, [...].
    """
    offset = torch.stack([column, row], dim=-1) * config.spatial_stride
    return torch.cat([intrinsics[..., :2], intrinsics[..., 2:] - offset], dim=-1)


@torch.no_grad()
def hush_branches(model: WorldModel) -> None:
    """Set all but the token path to zero, so that at full noise the whole network says what `recall_tokens` says.

    Everything set here learns from there: each is the last factor of its branch.
    """
    for layer, block in enumerate(model.blocks):
        block = cast("Block", block)
        silent = [block.attn.proj, block.cross_attn.proj, block.mlp.point_conv.conv]
        if layer:
            silent.append(block.plucker_proj)
        for linear in silent:
            linear.weight.zero_()
            if linear.bias is not None:
                linear.bias.zero_()


def recall_tokens(model: WorldModel, memory: Tensor, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    """Say what tokens show at full noise, from their rays and their scene's memory alone.

    Args:
        model: With `latent_fade` and a `velocity_skip` of 1, so that noise is neither heard nor in the answer.
        memory: Of G scenes, [G, num_layers, 2, U, C].
        c2w: Relative poses of the video frames behind each of N tokens, [G, N, R, 4, 4].
        intrinsics: From `token_intrinsics`, the same for all R frames, [G, N, 4].

    Returns:
        Clean latents, [G, N, in_channels], at least float32.
    """
    dtype = model.x_embedder.proj.weight.dtype
    groups, stride = c2w.shape[0], c2w.shape[2]
    config = model.config.for_grid(1, 1)
    with full_precision(c2w):
        poses = scale_translations(c2w.flatten(1, 2), config.translation_scale)
        cameras = intrinsics[:, :, None].expand(-1, -1, stride, -1).flatten(1, 2)
        maps = ray_maps(config, poses, cameras)[:, :, 0]
    plucker = model.plucker_embedder(maps.to(dtype))
    assert model.x_embedder.proj.bias is not None
    x = model.x_embedder.proj.bias + cast("Block", model.blocks[0]).plucker_proj(plucker)
    for layer, block in enumerate(model.blocks):
        keys, values = memory[:, layer].to(dtype).unbind(1)
        x = x + cast("Block", block).memory(x, keys, values)
    time = model.t_embedder(torch.full((groups, 1), MAX_TIMESTEP, device=c2w.device))
    return -wide(model.final_layer(x[:, None], time)[:, 0])
