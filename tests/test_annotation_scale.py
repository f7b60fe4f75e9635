"""How long the unit of poses is: the paper's closed form on exact depth, given poses, given depth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("scenedetect")
pytest.importorskip("pycolmap")

from evaluation.poses.alignment import path_length
from evaluation.poses.estimator import CameraEstimate
from holodeck import get_place
from holodeck.walks import walk
from tests.test_annotation import (
    SIZE,
    GivenCameras,
    moving_picture,
    no_bar,
    plan_for,
    small_encoder,
    write_film,
)
from tests.test_annotation import films as films
from training.data.annotation.annotate import annotate
from training.data.annotation.cameras import (
    CameraSettings,
    depth_scale,
    fit_scale,
    frame_scale,
    scale_variation,
    similar_scale,
    smooth_scales,
)
from training.data.annotation.given import GivenDepth
from training.data.annotation.results import read_camera

LENS = np.array([104.0, 104.0, 80.0, 48.0], np.float32)


def exact_depth(name: str) -> NDArray[np.float32]:
    place = get_place(name)
    return place.depth(place.spawn, LENS, 160, 96).astype(np.float32)


@pytest.mark.parametrize("name", ["town", "gallery"])
def test_the_scale_of_exact_depth_is_found(name):
    metric = exact_depth(name)
    near = metric < 80.0
    assert frame_scale(metric / np.float32(3.7), metric, near) == pytest.approx(3.7)
    rng = np.random.default_rng(0)
    noisy = metric / np.float32(3.7) * np.exp(rng.normal(0.0, 0.05, metric.shape)).astype(np.float32)
    assert frame_scale(noisy, metric, near) == pytest.approx(3.7, rel=0.02)


def test_near_points_count_for_more():
    near, far = np.array([1.0, 1.0]), np.array([50.0])
    # Two near points say 2 metres a unit, one far point says 3; without weights the far one would decide.
    found = fit_scale(np.concatenate([near / 2.0, far / 3.0]), np.concatenate([near, far]))
    plain = np.array([0.5, 0.5, 50 / 3]) @ np.array([1, 1, 50]) / np.square([0.5, 0.5, 50 / 3]).sum()
    weights = 1.0 / np.array([1.0, 1.0, 50.0])
    by_hand = (weights * [0.5, 0.5, 50 / 3] * [1, 1, 50]).sum() / (
        weights * np.square([0.5, 0.5, 50 / 3])
    ).sum()
    assert found == pytest.approx(by_hand)
    assert found < plain


def test_frames_with_too_few_points_have_no_scale():
    metric = exact_depth("town")
    mask = np.zeros(metric.shape, bool)
    mask[:8, :8] = True
    assert frame_scale(metric, metric, mask) is None
    assert frame_scale(np.full_like(metric, np.nan), metric) is None
    with pytest.raises(ValueError, match="no frame has enough points"):
        smooth_scales([None, None])


def test_scales_are_smoothed_over_windows_and_clamped():
    steady = smooth_scales([2.0] * 64 + [None] * 30 + [4.0] * 100)
    assert steady[0] == 2.0
    # A window of 4.0 moves the average by a hundredth.
    assert 2.0 < steady[-1] < 2.1
    assert smooth_scales([30.0] * 5).tolist() == [10.0] * 5
    assert smooth_scales([0.01] * 5).tolist() == [0.1] * 5
    assert scale_variation([2.0, 2.0, None]) == pytest.approx(0.0)
    assert scale_variation([1.0, 3.0]) == pytest.approx(0.5, abs=1e-5)


def test_points_of_a_reconstruction_take_their_scale_from_exact_depth():
    place, size = get_place("town"), (160, 96)
    poses = walk(place, 49, 16, 3)
    maps = {n: place.depth(poses[n], LENS, *size) for n in range(0, 49, 8)}
    rng = np.random.default_rng(1)
    rows = []
    for n, depth in maps.items():
        for column, row in zip(rng.integers(0, 160, 60), rng.integers(0, 96, 60), strict=True):
            if depth[row, column] < 80.0:
                rows.append((n, column + 0.5, row + 0.5, depth[row, column] / 25.0))
    scale, variation = depth_scale(np.array(rows), lambda numbers: np.stack([maps[n] for n in numbers]), size)
    assert scale == pytest.approx(25.0, rel=1e-5)
    assert variation < 1e-4


def test_the_scale_of_given_poses_is_that_of_a_metric_track_without_its_outliers():
    metric = walk(get_place("town"), 97, 16, 5)
    given = metric.copy()
    given[:, :3, 3] /= 7.0
    wrong = metric.copy()
    wrong[::10, :3, 3] += 3.0
    assert similar_scale(given, wrong) == pytest.approx(7.0, rel=0.02)


class Seeing(GivenCameras):
    """Recovers points too, whose true depth is 2 metres a unit."""

    def estimate(self, frames: np.ndarray, fps: float, lens: np.ndarray | None = None) -> CameraEstimate:
        found = super().estimate(frames, fps, lens)
        points = [
            (n, x + 0.5, 30.5, 1.0 + 0.1 * n) for n in range(0, len(frames), 8) for x in range(0, 90, 3)
        ]
        return replace(found, points=np.array(points, np.float64))


def test_given_depth_scales_recovered_poses(tmp_path: Path):
    folder = tmp_path / "films"
    folder.mkdir()
    write_film(folder / "one.mp4", moving_picture(33, 1))
    depth = 2.0 + 0.2 * np.arange(33, dtype=np.float32)[:, None, None] + np.zeros((33, 32, 48), np.float32)
    np.save(folder / "one.depth.npy", depth)
    plan = plan_for(folder, tmp_path / "set")
    cameras = CameraSettings(estimator=Seeing(), depth=GivenDepth())
    plan = replace(plan, settings=replace(plan.settings, cameras=cameras))
    [clip] = annotate(plan, small_encoder(), no_bar).clips
    assert clip.kept
    assert clip.scale_from == "given depth"
    # The line of the stand-in goes 3 units a frame, and a unit is 2 metres.
    assert path_length(read_camera(plan.folder, clip.key)[0]) == pytest.approx(2.0 * 3.0 * 32, rel=1e-3)
    np.save(folder / "one.depth.npy", depth[:5])
    again = annotate(replace(plan, folder=tmp_path / "other"), small_encoder(), no_bar)
    assert "for 33 frames" in again.left_out[0].reason


def test_given_poses_are_taken_at_the_moments_of_the_frames(films: Path, tmp_path: Path):
    (films / "broken.mp4").unlink()
    (films / "still.mp4").unlink()
    c2w = np.tile(np.eye(4), (89, 1, 1))
    c2w[:, 0, 3] = 0.5 * np.arange(89)
    np.savez(films / "two shots.npz", c2w=c2w, intrinsics=np.tile([70.0, 70.0, 48.0, 32.0], (89, 1)))
    plan = plan_for(films, tmp_path / "set")
    cameras = CameraSettings(given=True, metres_per_unit=0.1)
    plan = replace(plan, settings=replace(plan.settings, cameras=cameras))
    done = annotate(plan, small_encoder(), no_bar)
    assert [clip.kept for clip in done.clips] == [True, True]
    poses, intrinsics, size = read_camera(plan.folder, done.clips[1].key)
    np.testing.assert_allclose(poses[:, 0, 3], 0.05 * np.arange(49, 82), atol=1e-6)
    np.testing.assert_allclose(intrinsics[0], [70.0, 70.0, 48.0, 32.0])
    assert size == SIZE
    assert (
        json.loads((plan.folder / "clips" / f"{done.clips[0].key}.json").read_text())["scale_from"] == "given"
    )
