"""Ray frames, Pluecker maps and rotary positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.attention.rotary import HeadMap, _rotate_real, axis_pairs, conjugate, rotary_table, rotate
from model.camera import (
    plucker_maps,
    ray_transforms,
    relative_poses,
    rigid_inverse,
    scale_translations,
    ucpe_poses,
    window_frames,
)
from model.config import pocket, sana_wm, tiny


def random_poses(*shape: int) -> torch.Tensor:
    rotation = torch.linalg.qr(torch.randn(*shape, 3, 3))[0]
    rotation = rotation * torch.linalg.det(rotation)[..., None, None]
    poses = torch.eye(4).expand(*shape, 4, 4).clone()
    poses[..., :3, :3] = rotation
    poses[..., :3, 3] = torch.randn(*shape, 3)
    return poses


def centred_intrinsics(*shape: int) -> torch.Tensor:
    return torch.tensor([14.0, 14.0, 12.0, 8.0]).expand(*shape, 4)


def test_rigid_inverse_undoes_the_pose() -> None:
    torch.manual_seed(0)
    poses = random_poses(3, 2)
    torch.testing.assert_close(rigid_inverse(poses) @ poses, torch.eye(4).expand_as(poses), atol=1e-5, rtol=0)
    torch.testing.assert_close(relative_poses(poses)[:, 0], torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)


def test_windows_of_the_released_stride_overlap_only_at_the_start() -> None:
    frames = window_frames(3, 8, 17)
    assert frames == [*range(8), *range(1, 9), *range(9, 17)]
    assert window_frames(2, 8, 4)[-1] == 3


def test_ray_pose_of_frame_zero_is_the_first_of_its_window() -> None:
    config = tiny()
    windows = torch.arange(6.0)[None, :, None]
    picked = ucpe_poses(config, windows, torch.tensor([[0, 1, 2]]))
    assert picked[0, :, 0].tolist() == [0, 3, 5]


def test_ray_transforms_are_rigid_and_look_along_the_ray() -> None:
    torch.manual_seed(0)
    config = tiny()
    poses, intrinsics = random_poses(1, 2), centred_intrinsics(1, 2)
    to_ray, to_world = ray_transforms(config, poses, intrinsics)
    identity = torch.eye(4).expand_as(to_ray)
    torch.testing.assert_close(to_ray @ to_world, identity, atol=1e-5, rtol=0)
    direction = plucker_maps(replace(config, ray_octaves=0, temporal_stride=1), poses, intrinsics)[..., :3]
    along = (to_ray[..., :3, :3] @ direction[..., None])[..., 0]
    torch.testing.assert_close(along, torch.tensor([0.0, 0, 1]).expand_as(along), atol=1e-5, rtol=0)


def test_relative_ray_transforms_ignore_the_world_frame() -> None:
    torch.manual_seed(0)
    config = tiny()
    poses, world = random_poses(1, 3), random_poses(1, 1)
    intrinsics = centred_intrinsics(1, 3)
    pairs = []
    for cameras in (poses, world @ poses):
        to_ray, to_world = ray_transforms(config, cameras, intrinsics)
        pairs.append(to_ray[:, 0] @ to_world[:, 2])
    torch.testing.assert_close(pairs[0], pairs[1], atol=1e-5, rtol=0)


def test_centre_ray_of_the_identity_camera_looks_forward() -> None:
    config = replace(tiny(), ray_octaves=0, ray_points=0, ray_axes=False, temporal_stride=1)
    # A principal point on a grid point: the integer latent grid has no half-cell offset.
    intrinsics = torch.tensor([[[14.0, 14.0, 8.0, 0.0]]])
    poses = torch.eye(4)[None, None]
    direction, moment = plucker_maps(config, poses, intrinsics)[0, 0, 1].split(3)
    assert direction.tolist() == [0, 0, 1]
    assert moment.tolist() == [0, 0, 0]


def test_plucker_channels_are_frame_major_with_octaves_after_the_six() -> None:
    torch.manual_seed(0)
    config = replace(tiny(), ray_points=0, ray_axes=False)
    poses, intrinsics = random_poses(2, 6), centred_intrinsics(2, 6)
    maps = plucker_maps(config, poses, intrinsics)
    assert maps.shape == (2, 3, config.tokens_per_frame, 2 * (6 + 12 * config.ray_octaves))
    plain = plucker_maps(replace(config, ray_octaves=0), poses, intrinsics)
    torch.testing.assert_close(maps[..., :6], plain[..., :6])
    torch.testing.assert_close(maps[..., 30:36], plain[..., 6:])
    torch.testing.assert_close(maps[..., 6:9], torch.sin(torch.pi * plain[..., :3]))


def test_cameras_that_see_the_same_place_at_the_same_distance_get_the_same_point() -> None:
    config = replace(tiny(), ray_octaves=0, ray_points=3, ray_axes=False, temporal_stride=1)
    intrinsics = torch.tensor([[[14.0, 14.0, 8.0, 0.0]]])
    # The second camera stands two nearest-point distances ahead and looks back: both see the spot between them.
    ahead, back = (
        torch.eye(4)[None, None],
        torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))[None, None].clone(),
    )
    back[..., 2, 3] = 2 * 0.8 * config.translation_scale
    seen = [plucker_maps(config, pose, intrinsics)[0, 0, 1, 6:].split(36) for pose in (ahead, back)]
    torch.testing.assert_close(seen[0][0], seen[1][0], atol=1e-4, rtol=0)
    assert (seen[0][1] - seen[1][1]).abs().max() > 0.1


def test_camera_axes_come_with_each_tokens_place_in_the_picture() -> None:
    torch.manual_seed(0)
    config = tiny()
    poses, intrinsics = random_poses(1, 2), centred_intrinsics(1, 2)
    maps = plucker_maps(config, poses, intrinsics)[..., -12:]
    torch.testing.assert_close(maps[0, 0, 0, 3:], poses[0, -1, :3, :3].flatten())
    # The ray in the camera's own frame, turned by the axes, is the ray in the world.
    ray = (maps[0, 0, :, 3:].unflatten(-1, (3, 3)) @ maps[0, 0, :, :3, None])[..., 0]
    direction = plucker_maps(config, poses, intrinsics)[
        0, 0, :, config.ray_channels : config.ray_channels + 3
    ]
    torch.testing.assert_close(ray, direction)


def test_translation_scale_leaves_rotations_alone() -> None:
    torch.manual_seed(0)
    poses = random_poses(2)
    scaled = scale_translations(poses, 0.25)
    torch.testing.assert_close(scaled[:, :3, 3], poses[:, :3, 3] * 0.25)
    torch.testing.assert_close(scaled[:, :3, :3], poses[:, :3, :3])
    assert torch.equal(scaled[:, 3], poses[:, 3])


@pytest.mark.parametrize(
    ("width", "pairs"), [(112, (20, 18, 18)), (56, (10, 9, 9)), (32, (6, 5, 5)), (16, (4, 2, 2))]
)
def test_rotary_pairs_follow_the_axis_rule(width: int, pairs: tuple[int, int, int]) -> None:
    assert axis_pairs(width) == pairs


def test_camera_rotations_are_the_first_pairs_of_the_main_table() -> None:
    config = sana_wm()
    index = torch.tensor([[7]])
    table, half = rotary_table(config, index), rotary_table(config, index, 56)
    expected = torch.cat([table[..., :10, :], table[..., 20:29, :], table[..., 38:47, :]], dim=-2)
    torch.testing.assert_close(half, expected)


def test_complex_and_real_rotation_agree_and_undo() -> None:
    torch.manual_seed(0)
    config = pocket()
    table = rotary_table(config, torch.tensor([[3, 200]])).unsqueeze(3)
    x = torch.randn(1, 2, config.tokens_per_frame, 2, config.head_dim)
    turned = rotate(x, table)
    torch.testing.assert_close(turned, _rotate_real(x.unflatten(-1, (-1, 2)), table).flatten(-2))
    torch.testing.assert_close(rotate(turned, conjugate(table)), x)


@pytest.mark.parametrize("with_rays", [False, True], ids=["rotation only", "with ray frames"])
def test_dense_head_maps_equal_the_sparse_ones(with_rays: bool) -> None:
    torch.manual_seed(0)
    config = tiny()
    index = torch.tensor([[0, 9]])
    width = config.head_dim // 2 if with_rays else config.head_dim
    to_ray, _ = ray_transforms(config, random_poses(1, 2), centred_intrinsics(1, 2))
    head_map = HeadMap(rotary_table(config, index, width).unsqueeze(3), to_ray if with_rays else None)
    x = torch.randn(1, 2, config.tokens_per_frame, 3, config.head_dim)
    assert head_map.dense().matrix is not None
    torch.testing.assert_close(head_map.dense()(x), head_map(x), atol=1e-5, rtol=1e-5)
