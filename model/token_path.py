"""The part of the network that answers token by token: ray and scene in, velocity out, no token hearing another.

Self-attention and both convolutions are left out as if nobody stood beside a token, before it or after it. It costs a third of
the whole and takes any mixture of tokens, so a place can be learned by heart from thousands of pictures in one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from model.camera import plucker_maps, scale_translations
from model.config import ModelConfig
from model.cross_attention import rms_norm
from model.precision import full_precision, wide
from model.transformer import WorldModel

if TYPE_CHECKING:
    from model.transformer import Block


def token_intrinsics(config: ModelConfig, intrinsics: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Move the principal point so that a lone token at the grid's origin looks along a token's ray.

    Args:
        intrinsics: In frame pixels, [..., 4].
        row, column: Of the tokens in the latent grid, [...].
    """
    offset = torch.stack([column, row], dim=-1) * config.spatial_stride
    return torch.cat([intrinsics[..., :2], intrinsics[..., 2:] - offset], dim=-1)


@torch.no_grad()
def hush_neighbours(model: WorldModel) -> None:
    """Set what carries from token to token to zero, so that the whole network says what `predict_tokens` says.

    Everything set here learns from there: each is the last factor of its branch.
    """
    for block in model.blocks:
        block = cast("Block", block)
        for parameter in (block.attn.proj.weight, block.attn.proj.bias):
            parameter.zero_()
        depth = block.mlp.depth_conv.conv.weight
        centre = depth[:, :, 1, 1].clone()
        depth.zero_()[:, :, 1, 1] = centre
        block.mlp.t_conv.weight[:, :, 0].zero_()
        block.mlp.t_conv.weight[:, :, 2].zero_()


def predict_tokens(
    model: WorldModel, latents: Tensor, text: Tensor, timesteps: Tensor, c2w: Tensor, intrinsics: Tensor
) -> Tensor:
    """Predict the velocity of tokens that share nothing but their scene.

    Args:
        latents: Noisy, [G, N, C]: N tokens in each of G scenes.
        text: Scene tokens, [G, L, text_dim].
        timesteps: 0..1000, [G].
        c2w: Relative poses of the video frames behind each token, [G, N, R, 4, 4].
        intrinsics: From `token_intrinsics`, the same for all R frames, [G, N, 4].

    Returns:
        [G, N, C], at least float32.
    """
    dtype = model.x_embedder.proj.weight.dtype
    groups, stride = c2w.shape[0], c2w.shape[2]
    config = model.config.for_grid(1, 1)
    with full_precision(c2w):
        poses = scale_translations(c2w.flatten(1, 2), config.translation_scale)
        cameras = intrinsics[:, :, None].expand(-1, -1, stride, -1).flatten(1, 2)
        maps = plucker_maps(config, poses, cameras)[:, :, 0]
    plucker = model.plucker_embedder(maps.to(dtype))
    time = model.t_embedder(timesteps[:, None])
    modulation = model.t_block(time).unflatten(-1, (6, -1))
    caption = model.y_embedder(text)
    caption = rms_norm(caption, model.attention_y_norm).to(caption.dtype)
    nothing_masked = caption.new_zeros(groups, 1, 1, text.shape[1])
    x = model.x_embedder(latents.to(dtype))
    for block in model.blocks:
        x = cast("Block", block).without_neighbours(x, modulation, caption, nothing_masked, plucker)
    output = wide(model.final_layer(x[:, None], time)[:, 0])
    if config.velocity_skip:
        output = output + config.velocity_skip * latents
    return output
