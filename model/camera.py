"""Cameras as the network sees them: relative poses, ray frames and Pluecker maps (the only definition).

Camera-to-world, OpenCV axes (x right, y down, z forward). Intrinsics are (fx, fy, cx, cy) in pixels of the frame; on
the latent grid they are divided by the spatial stride, and rays go through the integer grid points (no half cell).
Everything here keeps the precision it is given: float32, or float64 beside a float64 network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from model.config import ModelConfig


def rigid_inverse(c2w: Tensor) -> Tensor:
    """Invert rigid transforms in closed form, [..., 4, 4]."""
    rotation = c2w[..., :3, :3].transpose(-1, -2)
    translation = -rotation @ c2w[..., :3, 3:]
    return torch.cat([torch.cat([rotation, translation], dim=-1), c2w[..., 3:, :]], dim=-2)


def relative_poses(c2w: Tensor) -> Tensor:
    """Express poses [B, F, 4, 4] in the frame of the first one."""
    return rigid_inverse(c2w[:, :1]) @ c2w


def window_frames(num_latent_frames: int, temporal_stride: int, num_frames: int) -> list[int]:
    """List the video frame behind every place of the packed Pluecker windows.

    Latent frame k has `temporal_stride` = r frames from max(0, r k - (r - 1)) on; a short tail repeats the last frame.
    """
    starts = [max(0, temporal_stride * k - (temporal_stride - 1)) for k in range(num_latent_frames)]
    return [min(start + j, num_frames - 1) for start in starts for j in range(temporal_stride)]


def ucpe_poses(config: ModelConfig, windows: Tensor, frame_index: Tensor) -> Tensor:
    """Pick the pose of each latent frame out of its window.

    Args:
        windows: Per-frame values in packed windows, [B, T * r, ...].
        frame_index: Absolute latent frame, [B, T]; latent 0 is video frame 0, latent k >= 1 is frame r k, the last.

    Returns:
        [B, T, ...].
    """
    frames = windows.unflatten(1, (-1, config.temporal_stride))
    first = (frame_index == 0).reshape(*frame_index.shape, *[1] * (windows.ndim - 2))
    return torch.where(first, frames[:, :, 0], frames[:, :, -1])


def _grid_rays(config: ModelConfig, intrinsics: Tensor) -> Tensor:
    """Unit camera rays through the integer latent grid, [B, F, S, 3], from frame intrinsics [B, F, 4]."""
    device = intrinsics.device
    fx, fy, cx, cy = (intrinsics / config.spatial_stride)[:, :, None, :].unbind(-1)
    rows = torch.arange(config.latent_height, device=device).repeat_interleave(config.latent_width)
    columns = torch.arange(config.latent_width, device=device).repeat(config.latent_height)
    x = (columns.to(intrinsics.dtype) - cx) / fx
    y = (rows.to(intrinsics.dtype) - cy) / fy
    return functional.normalize(torch.stack([x, y, torch.ones_like(x)], dim=-1), dim=-1, eps=1e-6)


def _world_rays(config: ModelConfig, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    return _grid_rays(config, intrinsics) @ c2w[..., :3, :3].transpose(-1, -2)


def scale_translations(c2w: Tensor, scale: float) -> Tensor:
    """Multiply the translations of poses [..., 4, 4]."""
    if scale == 1.0:
        return c2w
    factor = torch.tensor([1.0, 1.0, 1.0, scale], dtype=c2w.dtype, device=c2w.device)
    bottom = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=c2w.dtype, device=c2w.device)
    return c2w * torch.stack([factor, factor, factor, bottom])


def ray_transforms(config: ModelConfig, c2w: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Build the ray frame of every token: world-to-ray P and its inverse, each [B, T, S, 4, 4].

    Args:
        c2w: Relative poses, one per latent frame, [B, T, 4, 4].
        intrinsics: Of the same frames, in frame pixels, [B, T, 4].
    """
    forward = functional.normalize(_world_rays(config, c2w, intrinsics), dim=-1, eps=1e-6)
    down = c2w[:, :, None, :3, 1].expand_as(forward)
    right = functional.normalize(torch.linalg.cross(down, forward), dim=-1, eps=1e-6)
    below = functional.normalize(torch.linalg.cross(forward, right), dim=-1, eps=1e-6)
    rotation = torch.stack([right, below, forward], dim=-2)
    origin = c2w[:, :, None, :3, 3:].expand(*forward.shape, 1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=c2w.dtype, device=c2w.device)
    bottom = bottom.expand(*forward.shape[:-1], 1, 4)
    to_ray = torch.cat([torch.cat([rotation, -rotation @ origin], dim=-1), bottom], dim=-2)
    to_world = torch.cat([torch.cat([rotation.transpose(-1, -2), origin], dim=-1), bottom], dim=-2)
    return to_ray, to_world


def plucker_maps(config: ModelConfig, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    """Build the packed raw-frame Pluecker map, [B, T, S, plucker_channels].

    Each frame gives (d, o x d), then, for each octave j, sin and cos of 2^j pi (d, o / 2), with d the unit world ray
    and o the (scaled) camera centre. Frames follow one another along the channels; the points and axes of
    the last one come after them.

    Args:
        c2w: Relative poses in packed windows, [B, T * r, 4, 4].
        intrinsics: Of the same frames, in frame pixels, [B, T * r, 4].
    """
    direction = _world_rays(config, c2w, intrinsics)
    origin = c2w[:, :, None, :3, 3].expand_as(direction)
    channels = [direction, torch.linalg.cross(origin, direction)]
    if config.ray_octaves:
        octaves = math.pi * 2.0 ** torch.arange(config.ray_octaves, device=c2w.device, dtype=c2w.dtype)
        direction_phase = (direction[..., None, :] * octaves[:, None]).flatten(-2)
        origin_phase = (c2w[:, :, None, None, :3, 3] * 0.5 * octaves[:, None]).flatten(-2)
        channels += [direction_phase.sin(), direction_phase.cos()]
        shape = direction_phase.shape
        channels += [origin_phase.sin().expand(shape), origin_phase.cos().expand(shape)]
    maps = torch.cat(channels, dim=-1)
    maps = maps.unflatten(1, (-1, config.temporal_stride)).transpose(2, 3)
    packed = [maps.flatten(-2)]
    last = c2w.unflatten(1, (-1, config.temporal_stride))[:, :, -1]
    last_intrinsics = intrinsics.unflatten(1, (-1, config.temporal_stride))[:, :, -1]
    if config.ray_points:
        packed.append(_ray_points(config, last, last_intrinsics))
    if config.ray_axes:
        in_camera = _grid_rays(config, last_intrinsics)
        axes = last[:, :, None, :3, :3].flatten(-2).expand(*in_camera.shape[:-1], 9)
        packed += [in_camera, axes]
    return torch.cat(packed, dim=-1)


NEAREST_POINT_M, FARTHEST_POINT_M = 0.8, 20.0
POINT_OCTAVES = 6
"""Wavelengths of the points' phases: 20 m, halved five times, to 0.6 m."""
POINT_BLUR = 0.03
"""Spread of a point over its distance; finer waves than a token can tell apart fade out (as in mip-NeRF)."""


def _ray_points(config: ModelConfig, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    """Say where points along each ray lie, [B, T, S, 36 * ray_points].

    What stands at a place looks alike along every ray that ends there, so places are what a memory is best keyed by.

    Args:
        c2w: One pose for each latent frame, translations scaled, [B, T, 4, 4].
        intrinsics: [B, T, 4].
    """
    direction = _world_rays(config, c2w, intrinsics)
    places = torch.linspace(
        math.log(NEAREST_POINT_M), math.log(FARTHEST_POINT_M), config.ray_points, device=c2w.device
    )
    distance = (places.exp() * config.translation_scale).to(c2w.dtype)
    points = c2w[:, :, None, None, :3, 3] + direction[..., None, :] * distance[:, None]
    # In metres the longest wave measures 20 m, whatever the scale.
    waves = 2.0 ** torch.arange(POINT_OCTAVES, device=c2w.device, dtype=c2w.dtype)
    waves = waves * (2.0 * math.pi / (20.0 * config.translation_scale))
    phase = points[..., None, :] * waves[:, None]
    fade = torch.exp(-0.5 * (POINT_BLUR * distance[:, None] * waves).square())[..., None]
    return torch.cat([phase.sin() * fade, phase.cos() * fade], dim=-1).flatten(-3)
