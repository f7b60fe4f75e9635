"""Rotary positions over (time, row, column), interleaved pairs, real arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import ModelConfig


def axis_pairs(width: int) -> tuple[int, int, int]:
    """Return how many rotary pairs of a head of `width` go to time, row and column."""
    spatial = 2 * (width // 6)
    return (width - 2 * spatial) // 2, spatial // 2, spatial // 2


def _frequencies(config: ModelConfig, num_pairs: int, kept: int, device: torch.device) -> Tensor:
    exponent = torch.arange(num_pairs, dtype=torch.float64, device=device) / num_pairs
    return (config.rope_theta**-exponent)[:kept].float()


def rotary_tables(
    config: ModelConfig, frame_index: Tensor, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Build cos and sin for every token, each [B, T, S, pairs] float32.

    Args:
        frame_index: Absolute latent frame of each frame, [B, T] integer.
        width: Rotated channels of a head; the first frequencies of the full head's tables are taken for a part.
    """
    device = frame_index.device
    full = axis_pairs(config.head_dim)
    kept = axis_pairs(width or config.head_dim)
    rows = torch.arange(config.latent_height, device=device).repeat_interleave(config.latent_width)
    columns = torch.arange(config.latent_width, device=device).repeat(config.latent_height)
    time = frame_index[..., None].float() * _frequencies(config, full[0], kept[0], device)
    space = torch.cat(
        [
            rows[:, None].float() * _frequencies(config, full[1], kept[1], device),
            columns[:, None].float() * _frequencies(config, full[2], kept[2], device),
        ],
        dim=-1,
    )
    batch, frames = frame_index.shape
    num_tokens = config.tokens_per_frame

    def spread(over_time: Tensor, over_space: Tensor) -> Tensor:
        return torch.cat(
            [
                over_time[:, :, None].expand(batch, frames, num_tokens, -1),
                over_space.expand(batch, frames, num_tokens, -1),
            ],
            dim=-1,
        )

    return spread(time.cos(), space.cos()), spread(time.sin(), space.sin())


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i+1]) by its angle; [..., D] with tables broadcastable to [..., D / 2]."""
    pairs = x.unflatten(-1, (-1, 2))
    real, imaginary = pairs.unbind(-1)
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2)
