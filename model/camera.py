"""Cameras as the network sees them: relative poses, ray frames and Pluecker maps (the only definition).

Camera-to-world, OpenCV axes (x right, y down, z forward). Intrinsics are (fx, fy, cx, cy) in pixels of the frame; on
the latent grid they are divided by the spatial stride, and rays go through the integer grid points (no half cell).
Everything here keeps the precision it is given: float32, or float64 beside a float64 network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.attention.rotary import HeadMap, conjugate, rotary_table
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


def grid_rays(config: ModelConfig, intrinsics: Tensor) -> Tensor:
    """Unit camera rays through the integer latent grid, [B, F, S, 3], from frame intrinsics [B, F, 4]."""
    device = intrinsics.device
    fx, fy, cx, cy = (intrinsics / config.spatial_stride)[:, :, None, :].unbind(-1)
    rows = torch.arange(config.latent_height, device=device).repeat_interleave(config.latent_width)
    columns = torch.arange(config.latent_width, device=device).repeat(config.latent_height)
    x = (columns.to(intrinsics.dtype) - cx) / fx
    y = (rows.to(intrinsics.dtype) - cy) / fy
    return functional.normalize(torch.stack([x, y, torch.ones_like(x)], dim=-1), dim=-1, eps=1e-6)


def world_rays(config: ModelConfig, c2w: Tensor, intrinsics: Tensor) -> Tensor:
    return grid_rays(config, intrinsics) @ c2w[..., :3, :3].transpose(-1, -2)


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
    forward = functional.normalize(world_rays(config, c2w, intrinsics), dim=-1, eps=1e-6)
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
    """Build the packed raw-frame Pluecker map, [B, T, S, 6 * r].

    Each frame gives (d, o x d), with d the unit world ray and o the (scaled) camera centre.

    Args:
        c2w: Relative poses in packed windows, [B, T * r, 4, 4].
        intrinsics: Of the same frames, in frame pixels, [B, T * r, 4].
    """
    direction = world_rays(config, c2w, intrinsics)
    origin = c2w[:, :, None, :3, 3].expand_as(direction)
    maps = torch.cat([direction, torch.linalg.cross(origin, direction)], dim=-1)
    return maps.unflatten(1, (-1, config.temporal_stride)).transpose(2, 3).flatten(-2)


def head_maps(
    config: ModelConfig, c2w: Tensor, intrinsics: Tensor, frame_index: Tensor
) -> tuple[HeadMap, ...]:
    """Build what attention does to head vectors: the rotary map, then ray maps of queries, of keys and back.

    Args:
        c2w, intrinsics: As for `plucker_maps`.
        frame_index: Absolute latent frame, [B, T].
    """
    poses = ucpe_poses(config, c2w, frame_index)
    to_ray, to_world = ray_transforms(config, poses, ucpe_poses(config, intrinsics, frame_index))
    table = rotary_table(config, frame_index, config.head_dim // 2, c2w.dtype).unsqueeze(3)
    maps = (
        HeadMap(rotary_table(config, frame_index, dtype=c2w.dtype).unsqueeze(3)),
        HeadMap(table, to_ray),
        HeadMap(table, to_world.transpose(-1, -2)),
        HeadMap(conjugate(table), to_ray.transpose(-1, -2)),
    )
    return tuple(head_map.dense() for head_map in maps) if torch.compiler.is_exporting() else maps
