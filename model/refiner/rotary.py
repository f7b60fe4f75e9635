"""Rotary positions of the refiner: the midpoints of latent patches in seconds and pixels, and 1-D text positions.

Angles are computed in float32 from frequencies rounded from float64, whatever the network runs in: so the weights were trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from model.precision import wide
from model.refiner.config import ConnectorConfig, RefinerConfig, RopeType

RotaryTable = tuple[Tensor, Tensor]
"""Cosines and sines of the angles of each head's channel pairs, float32 [h, N, D / 2] each."""


def _frequencies(count: int, theta: float, device: torch.device) -> Tensor:
    # Plain numbers become a constant when a graph is exported; tensor arithmetic would be folded in float32.
    values = [theta ** (index / max(count - 1, 1)) * (math.pi / 2) for index in range(count)]
    return torch.tensor(values, dtype=torch.float32, device=device)


def _table(fractions: Tensor, width: int, num_heads: int, theta: float) -> RotaryTable:
    """Turn positions [N, axes], as fractions of their range, into angles: frequency-major, the remainder zero in front."""
    axes = fractions.shape[-1]
    frequencies = _frequencies(width // (2 * axes), theta, fractions.device)
    angles = ((2 * fractions - 1)[:, None, :] * frequencies[:, None]).flatten(1)
    padding = width // 2 - angles.shape[-1]
    angles = functional.pad(angles, (padding, 0))
    angles = angles.unflatten(-1, (num_heads, -1)).transpose(0, 1)
    return angles.cos(), angles.sin()


def video_rotary(config: RefinerConfig, frames: Tensor, height: int, width: int, fps: float) -> RotaryTable:
    """Build the table of the tokens of some latent frames, frame-major, then rows.

    Args:
        frames: Absolute indices of the latent frames in the clip, float32 [T].
        height, width: Of the latent grid.
        fps: Video frames per second.
    """
    stride, row_px, column_px = config.vae_scale_factors
    first = frames * stride + (config.causal_offset - stride)
    start, end = (edge.clamp(min=0) / fps for edge in (first, first + stride))
    time = (start + end) / 2 / config.pos_embed_max_pos
    rows = (torch.arange(height, dtype=torch.float32, device=frames.device) + 0.5) * row_px
    columns = (torch.arange(width, dtype=torch.float32, device=frames.device) + 0.5) * column_px
    grid = torch.stack(
        [
            time[:, None, None].expand(-1, height, width),
            (rows / config.base_height)[None, :, None].expand(len(frames), -1, width),
            (columns / config.base_width).expand(len(frames), height, -1),
        ],
        dim=-1,
    )
    return _table(grid.flatten(0, 2), config.hidden_size, config.num_attention_heads, config.rope_theta)


def text_rotary(config: ConnectorConfig, length: int, device: torch.device) -> RotaryTable:
    """Build the table of text positions 0 to length - 1."""
    positions = torch.arange(length, dtype=torch.float32, device=device)
    fractions = positions[:, None] / config.connector_rope_base_seq_len
    heads = config.video_connector_num_attention_heads
    return _table(fractions, config.caption_channels, heads, config.rope_theta)


def rotate(x: Tensor, table: RotaryTable, rope_type: RopeType) -> Tensor:
    """Rotate x [B, h, N, D] in float32 at least; pairs are (i, i + D / 2) where split, (2i, 2i + 1) where interleaved."""
    cos, sin = table
    pairs = x.unflatten(-1, (2, -1)) if rope_type == "split" else x.unflatten(-1, (-1, 2)).transpose(-1, -2)
    real, imaginary = (wide(part) for part in pairs.unbind(-2))
    turned = (real * cos - imaginary * sin, imaginary * cos + real * sin)
    if rope_type == "split":
        return torch.cat(turned, dim=-1).to(x.dtype)
    return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)
