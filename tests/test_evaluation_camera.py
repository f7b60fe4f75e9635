"""Recovered cameras and benchmark tracks: alignment, PnP on true frames, splines, collisions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy.spatial.transform import Rotation

from evaluation.benchmark_tracks import HARD, RADIUS_M, SIMPLE, catmull_rom, hard_track, simple_track, squad
from evaluation.camera_following import compare_poses, locate, views_around
from evaluation.consistency import revisit_pairs
from evaluation.poses.alignment import camera_errors, fit_similarity, rotation_angles_deg
from holodeck import get_place, place_names
from holodeck.walks import clear_points

INTRINSICS = np.array([104.0, 104.0, 80.0, 48.0], np.float32)
SIZE = (160, 96)


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(0, 2, (count, 3))
    return poses


def test_alignment_recovers_a_known_similarity_transform():
    wanted = random_poses(12)
    turn = Rotation.from_rotvec([0.3, -1.1, 0.4]).as_matrix()
    ours = wanted.copy()
    ours[:, :3, :3] = turn @ wanted[:, :3, :3]
    ours[:, :3, 3] = 0.37 * wanted[:, :3, 3] @ turn.T + np.array([3.0, -1.0, 8.0])
    assert camera_errors(ours, wanted).translation_m > 1.0
    fit = fit_similarity(ours, wanted)
    np.testing.assert_allclose(fit(ours), wanted, atol=1e-9)
    assert fit.scale == pytest.approx(1 / 0.37)


def test_alignment_fits_poses_on_a_line_and_on_a_spot():
    line = np.tile(np.eye(4), (10, 1, 1))
    line[:, 2, 3] = np.arange(10)
    turn = Rotation.from_rotvec([0.1, 0.7, 0.0]).as_matrix()
    ours = line.copy()
    ours[:, :3, :3] = turn
    ours[:, :3, 3] = 2.0 * line[:, :3, 3] @ turn.T
    np.testing.assert_allclose(fit_similarity(ours, line)(ours), line, atol=1e-9)
    spot = np.tile(np.eye(4), (10, 1, 1))
    fit = fit_similarity(spot, line)
    assert fit.scale == 1.0
    assert camera_errors(fit(spot), line).rotation_deg == pytest.approx(0.0, abs=1e-6)


def noisy_arc(
    radius_m: float, arc_deg: float, noise_m: float, error_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """A camera on an arc, looking ahead, and the same poses with errors, [61, 4, 4] each."""
    rng = np.random.default_rng(3)
    yaw = np.linspace(0.0, arc_deg, 61)[:, None]
    wanted = np.tile(np.eye(4), (61, 1, 1))
    wanted[:, :3, :3] = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    turn = np.radians(yaw[:, 0])
    wanted[:, :3, 3] = radius_m * np.stack([1 - np.cos(turn), np.zeros(61), np.sin(turn)], 1)
    ours = wanted.copy()
    away = rng.normal(size=(61, 3))
    away *= np.radians(error_deg) / np.linalg.norm(away, axis=1, keepdims=True)
    ours[:, :3, :3] = wanted[:, :3, :3] @ Rotation.from_rotvec(away).as_matrix()
    ours[:, :3, 3] += rng.normal(0.0, noise_m, (61, 3))
    return ours, wanted


@pytest.mark.parametrize(("radius_m", "arc_deg", "noise_m"), [(2.0, 30.0, 0.1), (0.3, 720.0, 0.1)])
def test_narrow_tracks_keep_the_rotation_error_that_is_true(radius_m, arc_deg, noise_m):
    # Fitted to positions alone, the same poses come out tens of degrees off.
    ours, wanted = noisy_arc(radius_m, arc_deg, noise_m, 1.2)
    found = camera_errors(fit_similarity(ours, wanted)(ours), wanted)
    assert found.rotation_deg == pytest.approx(1.2, abs=0.15)


def test_camera_errors_are_those_of_their_definitions():
    wanted = random_poses(5)
    ours = wanted.copy()
    ours[:, :3, :3] = wanted[:, :3, :3] @ Rotation.from_rotvec([0, 0.2, 0]).as_matrix()
    ours[:, 0, 3] += 0.5
    errors = camera_errors(ours, wanted)
    assert errors.rotation_deg == pytest.approx(np.degrees(0.2))
    assert errors.translation_m == pytest.approx(0.5)
    by_hand = [np.sqrt(((a - b)[:3] ** 2).sum()) for a, b in zip(ours, wanted, strict=True)]
    assert errors.matrix == pytest.approx(np.mean(by_hand))


def test_too_few_located_frames_say_nothing():
    wanted = random_poses(20)
    few = compare_poses([*wanted[:7], *[None] * 13], wanted)
    assert (few.num_frames, few.num_located, few.aligned, few.as_is) == (20, 7, None, None)
    enough = compare_poses([*wanted[:8], *[None] * 12], wanted)
    assert enough.aligned is not None
    assert enough.aligned.rotation_deg == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("blur_px", "limit_deg", "limit_m"), [(0.0, 0.25, 0.05), (3.0, 0.6, 0.1)])
def test_poses_of_true_frames_are_recovered(blur_px, limit_deg, limit_m):
    # Half a pixel is 0.3 degrees; edges that are blurred say less.
    angles, distances = [], []
    for name in ("town", "gallery"):
        place = get_place(name)
        poses = simple_track(place, 97, 16, 0)
        for pose in poses[16::20]:
            frame = place.render(pose, INTRINSICS, *SIZE)
            if blur_px:
                frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), blur_px), np.uint8)
            found = locate(frame, views_around(place, pose, INTRINSICS, SIZE), INTRINSICS)
            assert found is not None
            angles.append(rotation_angles_deg(found, pose))
            distances.append(np.linalg.norm(found[:3, 3] - pose[:3, 3]))
    assert np.mean(angles) < limit_deg
    assert np.mean(distances) < limit_m
    assert max(angles) < 3 * limit_deg


def test_a_picture_from_elsewhere_is_located_where_it_was_taken_or_not_at_all():
    place = get_place("town")
    asked = place.spawn
    taken = asked.copy()
    taken[:3, :3] = asked[:3, :3] @ Rotation.from_euler("y", 3.0, degrees=True).as_matrix()
    taken[:3, 3] += 0.2 * asked[:3, 0]
    views = views_around(place, asked, INTRINSICS, SIZE)
    found = locate(place.render(taken, INTRINSICS, *SIZE), views, INTRINSICS)
    assert found is not None
    assert rotation_angles_deg(found, taken) < 0.5
    assert rotation_angles_deg(found, asked) > 2.0
    blank = np.full((96, 160, 3), 120, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 4.0).astype(np.float64)
    clouds = ((soft - soft.min()) * 255 / np.ptp(soft)).astype(np.uint8)
    for nothing in (blank, noise, clouds):
        assert locate(nothing, views, INTRINSICS) is None


def test_splines_go_through_their_knots():
    rng = np.random.default_rng(1)
    knots = rng.normal(0, 1, (7, 3))
    np.testing.assert_allclose(catmull_rom(knots, np.arange(7.0)), knots, atol=1e-12)
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.5, (7, 3)), 0))
    there = squad(turns, np.arange(7.0))
    assert (there.inv() * turns).magnitude().max() < 1e-9
    between = squad(turns, np.linspace(0, 6, 400))
    np.testing.assert_allclose(np.linalg.norm(between.as_quat(), axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(catmull_rom(knots[:2], np.array([0.5])), knots[:2].mean(0, keepdims=True))
    with pytest.raises(ValueError, match="between 0 and 6"):
        catmull_rom(knots, np.array([6.1]))
    with pytest.raises(ValueError, match="two knots"):
        catmull_rom(knots[:1], np.array([0.0]))


def test_splines_are_smooth_across_knots():
    rng = np.random.default_rng(2)
    knots = rng.normal(0, 1, (6, 3))
    turns = Rotation.from_rotvec(rng.normal(0, 0.3, (6, 3)))
    step = 1e-5
    for k in range(1, 5):
        times = np.array([k - step, k, k + step])
        here = catmull_rom(knots, times)
        # Centripetal splines keep their direction at a knot; how fast they pass it depends on the next one's distance.
        came, goes = here[1] - here[0], here[2] - here[1]
        np.testing.assert_allclose(came / np.linalg.norm(came), goes / np.linalg.norm(goes), atol=1e-3)
        spun = squad(turns, times)
        before, after = (spun[:-1].inv() * spun[1:]).as_rotvec() / step
        np.testing.assert_allclose(before, after, atol=1e-3)


def test_a_steady_turn_stays_steady():
    turns = Rotation.from_euler("y", 20.0 * np.arange(6)[:, None], degrees=True)
    spun = squad(turns, np.linspace(0, 5, 101))
    steps = np.degrees((spun[:-1].inv() * spun[1:]).magnitude())
    # The first and last segments start from rest's own quadrangle and differ a little.
    np.testing.assert_allclose(steps[20:-20], 1.0, atol=1e-6)


@pytest.mark.parametrize("name", place_names())
def test_every_template_fits_every_place_without_touching_anything(name):
    place = get_place(name)
    for lay, templates in ((simple_track, SIMPLE), (hard_track, HARD)):
        assert len(templates) == 10
        for seed in range(10):
            poses = lay(place, 97, 16, seed)
            assert poses.shape == (97, 4, 4)
            np.testing.assert_allclose(poses[0], place.spawn, atol=1e-9)
            assert clear_points(place, poses[:, :3, 3], RADIUS_M).all()
            rotation = poses[:, :3, :3]
            np.testing.assert_allclose(
                rotation @ np.swapaxes(rotation, 1, 2), np.eye(3)[None].repeat(97, 0), atol=1e-9
            )
            assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() * 16 < 2.6


def test_tracks_keep_the_published_limits_and_all_come_back():
    place = get_place("town")
    for lay in (simple_track, hard_track):
        for seed in range(10):
            track = lay(place, 961, 16, seed)
            assert rotation_angles_deg(track[:-1], track[1:]).max() * 16 <= 12.0 + 1e-3
            assert np.linalg.norm(np.diff(track[:, :3, 3], axis=0), axis=1).max() * 16 <= 0.4 + 1e-4
            assert len(revisit_pairs(track, 16.0))
    heights = -hard_track(place, 961, 16, 4)[:, 1, 3]
    assert heights.max() - heights.min() > 1.0
