"""Embeddings of timesteps and text, and the final projection to velocity."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig
from model.precision import wide_dtype

TIME_CHANNELS = 256
"""Width of the sinusoid that timesteps become first."""


class VoxelEmbedder(nn.Module):
    """A per-voxel linear map, under the checkpoint's name `proj`."""

    def __init__(self, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class TimestepEmbedder(nn.Module):
    """Sinusoid, cosine first, then a two-layer network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.truncate = config.truncate_timesteps
        self.mlp = nn.Sequential(
            nn.Linear(TIME_CHANNELS, config.hidden_size),
            nn.SiLU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )

    def forward(self, timesteps: Tensor) -> Tensor:
        """Embed timesteps [B, T] in [0, 1000]; returns [B, T, C]."""
        half = TIME_CHANNELS // 2
        dtype = next(self.mlp.parameters()).dtype
        steps = torch.arange(half, dtype=wide_dtype(dtype), device=timesteps.device)
        frequencies = torch.exp(-math.log(10000.0) / half * steps)
        times = (timesteps.long() if self.truncate else timesteps).to(steps.dtype)
        angles = times[..., None] * frequencies
        wave = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(wave.to(dtype))


class TextProjection(nn.Module):
    """Two layers with a tanh GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.text_dim, config.hidden_size)
        self.fc2 = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, text: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(text), approximate="tanh"))


class TextEmbedder(nn.Module):
    """Projects text tokens to the model's width and holds the null caption."""

    y_embedding: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.y_proj = TextProjection(config)
        null_caption = torch.randn(config.text_length, config.text_dim) / config.text_dim**0.5
        self.register_buffer("y_embedding", null_caption)

    def forward(self, text: Tensor) -> Tensor:
        return self.y_proj(text.to(self.y_proj.fc1.weight.dtype))


class FinalLayer(nn.Module):
    """Modulated norm and projection back to latent channels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.in_channels)
        self.scale_shift_table = nn.Parameter(torch.randn(2, config.hidden_size) / config.hidden_size**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map tokens [B, T, S, C] with time embedding [B, T, C] to [B, T, S, in_channels]."""
        shift, scale = (self.scale_shift_table + time[:, :, None]).chunk(2, dim=2)
        return self.linear(modulate(x, shift, scale))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise tokens [B, T, S, C], then scale and shift per frame [B, T, 1, C]."""
    normed = functional.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(shift.to(normed.dtype), normed, 1 + scale.to(normed.dtype)).to(x.dtype)
