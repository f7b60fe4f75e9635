"""What only the pocket model has (`SceneOptions`): per-scene weights and positional encodings of rays.

Per-scene weights are a small network per block whose weights a scene brings along, as rows in front of its text.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.camera import grid_rays, plucker_maps, world_rays
from model.config import ModelConfig, SceneOptions


class SceneMemory(nn.Module):
    """One block's use of the per-scene weights: gelu(norm(x) K^T) V."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Transform tokens x [B, N, C]; keys and values [B, U, C]."""
        return functional.gelu(self.norm(x) @ keys.transpose(1, 2), approximate="tanh") @ values


def split_memory(config: ModelConfig, text: Tensor) -> tuple[Tensor | None, int]:
    """Find the per-scene weights in a text [B, L, D].

    The first `memory_rows` rows are keys, then values, of block 0, of block 1, and so on.

    Returns:
        The weights, [B, num_layers, 2, U, D] (None where the model has none), and how many rows of the text they take.
    """
    rows = config.memory_rows
    if config.scene is None or not rows:
        return None, 0
    return text[:, :rows].unflatten(1, (config.num_layers, 2, config.scene.units)), rows


def random_memory(config: ModelConfig) -> Tensor:
    """Make weights to learn from: [num_layers, 2, U, D]; what all blocks add together is about as large as a token."""
    assert config.scene is not None
    shape = (config.num_layers, config.scene.units, config.text_dim)
    keys = torch.randn(shape) * config.text_dim**-0.5
    values = torch.randn(shape) * 0.5 * config.scene.units**-0.5
    return torch.stack([keys, values], dim=1)


def fade(latents: Tensor, timesteps: Tensor) -> Tensor:
    """Multiply latents [B, C, T, H, W] by 1 - timestep / 1000, timesteps [B, T]."""
    return latents * (1.0 - timesteps / 1000.0)[:, None, :, None, None]


def ray_maps(config: ModelConfig, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    """Build the packed Pluecker map with positional encodings, [B, T, S, plucker_channels]; arguments of `plucker_maps`.

    Behind (d, o x d) each frame gives, for each octave j, sin and cos of 2^j pi (d, o / 2). The points and axes of the last
    frame come after all frames.
    """
    scene, stride = config.scene, config.temporal_stride
    assert scene is not None
    maps = plucker_maps(config, c2w, intrinsics)
    if scene.ray_octaves:
        waves = _fourier_features(scene, c2w, world_rays(config, c2w, intrinsics))
        waves = waves.unflatten(1, (-1, stride)).transpose(2, 3)
        maps = torch.cat([maps.unflatten(-1, (stride, -1)), waves], dim=-1).flatten(-2)
    packed = [maps]
    last = c2w.unflatten(1, (-1, stride))[:, :, -1]
    last_intrinsics = intrinsics.unflatten(1, (-1, stride))[:, :, -1]
    if scene.ray_points:
        packed.append(_ray_points(config, scene, last, last_intrinsics))
    if scene.ray_axes:
        in_camera = grid_rays(config, last_intrinsics)
        axes = last[:, :, None, :3, :3].flatten(-2).expand(*in_camera.shape[:-1], 9)
        packed += [in_camera, axes]
    return torch.cat(packed, dim=-1)


def _fourier_features(scene: SceneOptions, c2w: Tensor, direction: Tensor) -> Tensor:
    octaves = math.pi * 2.0 ** torch.arange(scene.ray_octaves, device=c2w.device, dtype=c2w.dtype)
    direction_phase = (direction[..., None, :] * octaves[:, None]).flatten(-2)
    origin_phase = (c2w[:, :, None, None, :3, 3] * 0.5 * octaves[:, None]).flatten(-2)
    origins = [origin_phase.sin(), origin_phase.cos()]
    origins = [wave.expand(direction_phase.shape) for wave in origins]
    return torch.cat([direction_phase.sin(), direction_phase.cos(), *origins], dim=-1)


NEAREST_POINT_M, FARTHEST_POINT_M = 0.8, 20.0
POINT_OCTAVES = 6
"""Wavelengths of the points' phases: 20 m, halved five times, to 0.6 m."""
POINT_BLUR = 0.03
"""Spread of a point over its distance; finer waves than a token can tell apart fade out (as in mip-NeRF)."""


def _ray_points(config: ModelConfig, scene: SceneOptions, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    """Encode the positions of points along each ray, [B, T, S, 36 * ray_points].

    Args:
        c2w: One pose for each latent frame, translations scaled, [B, T, 4, 4].
        intrinsics: [B, T, 4].
    """
    direction = world_rays(config, c2w, intrinsics)
    places = torch.linspace(
        math.log(NEAREST_POINT_M), math.log(FARTHEST_POINT_M), scene.ray_points, device=c2w.device
    )
    distance = (places.exp() * config.translation_scale).to(c2w.dtype)
    points = c2w[:, :, None, None, :3, 3] + direction[..., None, :] * distance[:, None]
    # In metres the longest wave measures 20 m, whatever the scale.
    waves = 2.0 ** torch.arange(POINT_OCTAVES, device=c2w.device, dtype=c2w.dtype)
    waves = waves * (2.0 * math.pi / (20.0 * config.translation_scale))
    phase = points[..., None, :] * waves[:, None]
    fade = torch.exp(-0.5 * (POINT_BLUR * distance[:, None] * waves).square())[..., None]
    return torch.cat([phase.sin() * fade, phase.cos() * fade], dim=-1).flatten(-3)
