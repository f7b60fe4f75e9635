"""Positional encodings of rays, which only the pocket has, and configs of older files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from model.camera import plucker_maps
from model.config import ModelConfig, tiny
from model.scene_memory import ray_maps
from tests.test_model_camera import centred_intrinsics, random_poses


def with_options(**changes: Any) -> ModelConfig:
    scene = tiny().scene
    assert scene is not None
    return replace(tiny(), scene=replace(scene, **changes))


def test_octaves_of_each_frame_come_after_its_pluecker_channels() -> None:
    torch.manual_seed(0)
    config = with_options(ray_points=0, ray_axes=False)
    poses, intrinsics = random_poses(2, 6), centred_intrinsics(2, 6)
    maps = ray_maps(config, poses, intrinsics)
    assert maps.shape == (2, 3, config.tokens_per_frame, 2 * (6 + 12 * 2))
    plain = plucker_maps(config, poses, intrinsics)
    torch.testing.assert_close(maps[..., :6], plain[..., :6])
    torch.testing.assert_close(maps[..., 30:36], plain[..., 6:])
    torch.testing.assert_close(maps[..., 6:9], torch.sin(torch.pi * plain[..., :3]))


def test_cameras_that_see_the_same_place_at_the_same_distance_get_the_same_point() -> None:
    config = replace(with_options(ray_octaves=0, ray_points=3, ray_axes=False), temporal_stride=1)
    intrinsics = torch.tensor([[[14.0, 14.0, 8.0, 0.0]]])
    # The second camera stands two nearest-point distances ahead and looks back: both see the spot between them.
    ahead, back = (
        torch.eye(4)[None, None],
        torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))[None, None].clone(),
    )
    back[..., 2, 3] = 2 * 0.8 * config.translation_scale
    seen = [ray_maps(config, pose, intrinsics)[0, 0, 1, 6:].split(36) for pose in (ahead, back)]
    torch.testing.assert_close(seen[0][0], seen[1][0], atol=1e-4, rtol=0)
    assert (seen[0][1] - seen[1][1]).abs().max() > 0.1


def test_camera_axes_come_with_each_tokens_place_in_the_picture() -> None:
    torch.manual_seed(0)
    config = tiny()
    poses, intrinsics = random_poses(1, 2), centred_intrinsics(1, 2)
    maps = ray_maps(config, poses, intrinsics)[..., -12:]
    torch.testing.assert_close(maps[0, 0, 0, 3:], poses[0, -1, :3, :3].flatten())
    # The ray in the camera's own frame, turned by the axes, is the ray in the world.
    ray = (maps[0, 0, :, 3:].unflatten(-1, (3, 3)) @ maps[0, 0, :, :3, None])[..., 0]
    direction = plucker_maps(config, poses, intrinsics)[0, 0, :, 6:9]
    torch.testing.assert_close(ray, direction)
