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
    direction = plucker_maps(replace(config, temporal_stride=1), poses, intrinsics)[..., :3]
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
    config = replace(tiny(), temporal_stride=1)
    # A principal point on a grid point: the integer latent grid has no half-cell offset.
    intrinsics = torch.tensor([[[14.0, 14.0, 8.0, 0.0]]])
    poses = torch.eye(4)[None, None]
    direction, moment = plucker_maps(config, poses, intrinsics)[0, 0, 1].split(3)
    assert direction.tolist() == [0, 0, 1]
    assert moment.tolist() == [0, 0, 0]


def test_plucker_channels_are_frame_major() -> None:
    torch.manual_seed(0)
    config = tiny()
    poses, intrinsics = random_poses(2, 6), centred_intrinsics(2, 6)
    maps = plucker_maps(config, poses, intrinsics)
    assert maps.shape == (2, 3, config.tokens_per_frame, config.plucker_channels)
    single = plucker_maps(replace(config, temporal_stride=1), poses, intrinsics)
    torch.testing.assert_close(maps[:, :, :, 6:], single[:, 1::2])


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
