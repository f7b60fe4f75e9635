"""Measures of pictures and what is shown without a model, each against a law or a naive twin."""

from __future__ import annotations

import builtins
import math

import cv2
import numpy as np
import pytest

from evaluation.baselines import (
    first_frame_repeated,
    first_frame_reprojected,
    previous_frame_repeated,
    with_true_means,
)
from evaluation.consistency import measure_drift, revisit_pairs, score_revisits
from evaluation.image_metrics import OPENERS, gmsd, open_measures, psnr
from holodeck import get_place

INTRINSICS = np.array([104.0, 104.0, 80.0, 48.0], np.float32)
SIZE = (160, 96)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    place = get_place("town")
    return place.render(place.spawn, INTRINSICS, *SIZE)


def turned(c2w: np.ndarray, yaw_deg: float, pitch_deg: float = 0.0) -> np.ndarray:
    out = c2w.copy()
    out[:3, :3] = c2w[:3, :3] @ cv2.Rodrigues(np.radians([pitch_deg, yaw_deg, 0.0]))[0]
    return out


def test_psnr_of_a_constant_error_is_that_of_the_formula(picture):
    off = (picture.astype(int) % 246 + 10).astype(np.uint8)
    base = (off - 10).astype(np.uint8)
    assert psnr(base, off) == pytest.approx(20 * math.log10(255 / 10), abs=1e-9)


def test_every_measure_is_perfect_for_equal_pictures_and_worse_the_more_they_are_blurred(picture):
    pytest.importorskip("skimage")
    measures, missing = open_measures(["ssim", "gmsd", "flip"])
    assert [m.name for m in measures] + [m.split()[0].lower() for m in missing] == ["ssim", "gmsd", "flip"]
    for measure in measures:
        scores = [measure.compare(picture, picture)]
        scores += [measure.compare(picture, cv2.GaussianBlur(picture, (0, 0), s)) for s in (1.0, 2.0, 4.0)]
        best = 1.0 if measure.higher_is_better else 0.0
        assert scores[0] == pytest.approx(best, abs=1e-6)
        assert scores == sorted(scores, reverse=measure.higher_is_better)


def test_ssim_is_the_mean_over_uniform_windows_of_the_published_formula(picture):
    pytest.importorskip("skimage")
    (measure,), _ = open_measures(["ssim"])
    other = cv2.GaussianBlur(picture, (0, 0), 2.0)
    values = []
    for channel in range(3):
        x, y = (image[..., channel].astype(np.float64) for image in (picture, other))
        for row in range(0, 96 - 10, 7):
            for column in range(0, 160 - 10, 11):
                a, b = (image[row : row + 11, column : column + 11].ravel() for image in (x, y))
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                cov = np.cov(a, b)
                values.append(
                    (2 * a.mean() * b.mean() + c1)
                    * (2 * cov[0, 1] + c2)
                    / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2))
                )
    # The twin stands at every 7th row and 11th column only.
    assert measure.compare(picture, other) == pytest.approx(np.mean(values), abs=0.03)


def test_gmsd_is_that_of_a_twin_written_out(picture):
    other = cv2.GaussianBlur(picture, (0, 0), 1.5)

    def gradient(image: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
        grey = grey.reshape(48, 2, 80, 2).mean((1, 3))
        padded = np.pad(grey, 1, mode="edge")
        rows = padded[:-2] + padded[1:-1] + padded[2:]
        columns = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        return np.hypot((rows[:, 2:] - rows[:, :-2]) / 3, (columns[2:] - columns[:-2]) / 3)

    a, b = gradient(picture), gradient(other)
    assert gmsd(picture, other) == pytest.approx(np.std((2 * a * b + 170) / (a * a + b * b + 170)), abs=1e-5)


def test_a_missing_library_is_one_sentence_and_the_rest_is_measured(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("skimage", "flip_evaluator", "lpips"):
            raise ModuleNotFoundError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    measures, missing = open_measures(list(OPENERS))
    assert [measure.name for measure in measures] == ["psnr", "gmsd"]
    assert len(missing) == 3
    assert all("pip install" in sentence and "\n" not in sentence for sentence in missing)
    with pytest.raises(ValueError, match="choose from psnr"):
        open_measures(["vmaf"])


def test_the_reprojected_first_frame_is_the_truth_where_the_camera_only_turns():
    place = get_place("town")
    poses = np.stack([turned(place.spawn, yaw, pitch) for yaw, pitch in ((0, 0), (6, 0), (-10, 4), (15, -5))])
    truth = np.stack([place.render(pose, INTRINSICS, *SIZE) for pose in poses])
    shown = first_frame_reprojected(truth[0], poses, INTRINSICS)
    np.testing.assert_array_equal(shown[0], truth[0])
    for pose, ours, true in zip(poses[1:], shown[1:], truth[1:], strict=True):
        columns, rows = np.meshgrid(np.arange(160) + 0.5, np.arange(96) + 0.5)
        rays = np.stack([(columns - 80) / 104, (rows - 48) / 104, np.ones_like(rows)], -1)
        seen = rays @ pose[:3, :3].T @ poses[0][:3, :3]
        u, v = seen[..., 0] / seen[..., 2] * 104 + 80, seen[..., 1] / seen[..., 2] * 104 + 48
        covered = (u > 1) & (u < 159) & (v > 1) & (v < 95)
        # What is left is bilinear interpolation of an already softened picture.
        assert np.abs(ours[covered].astype(int) - true[covered]).mean() < 2.0


def test_the_ground_moves_rightly_under_a_camera_that_walks():
    place = get_place("town")
    ahead = place.spawn.copy()
    ahead[:3, 3] += 0.8 * place.spawn[:3, 2]
    poses = np.stack([place.spawn, ahead])
    truth = np.stack([place.render(pose, INTRINSICS, *SIZE) for pose in poses])
    # The lowest rows show nothing but ground here.
    below = slice(75, 94)
    with_ground = first_frame_reprojected(truth[0], poses, INTRINSICS)[1, below]
    without = first_frame_reprojected(truth[0], poses, INTRINSICS, ground=False)[1, below]
    assert psnr(truth[1, below], with_ground) > psnr(truth[1, below], without) + 3.0


def test_repeated_frames_are_those_of_the_truth():
    truth = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    assert (first_frame_repeated(truth) == 0).all()
    assert previous_frame_repeated(truth, 4)[:, 0, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]


def test_only_frames_from_one_place_with_an_absence_between_make_pairs():
    there_and_back = np.concatenate([np.linspace(0, 4, 64), np.linspace(4, 0, 64)])
    poses = np.tile(np.eye(4), (128, 1, 1))
    poses[:, 0, 3] = there_and_back
    pairs = revisit_pairs(poses, 16.0)
    assert len(pairs) > 4
    for i, j in pairs:
        assert abs(poses[i, 0, 3] - poses[j, 0, 3]) < 0.5
        assert j - i >= 32
        assert np.abs(poses[i : j + 1, 0, 3] - poses[i, 0, 3]).max() >= 0.5
    looking_back = poses.copy()
    looking_back[64:] = looking_back[64:] @ turned(np.eye(4), 180.0)
    assert not len(revisit_pairs(looking_back, 16.0))
    assert not len(revisit_pairs(np.tile(np.eye(4), (128, 1, 1)), 16.0))


def test_a_film_that_comes_back_to_the_same_pictures_revisits_perfectly():
    poses = np.tile(np.eye(4), (128, 1, 1))
    poses[:, 0, 3] = np.abs(np.arange(128) - 64) / 16.0
    video = (poses[:, 0, 3] * 50).astype(np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    measures, _ = open_measures(["psnr"])
    pairs = revisit_pairs(poses, 16.0)
    same = [(i, j) for i, j in pairs if i + j == 128]
    assert same
    scores = score_revisits({"video": video}, poses, 16.0, measures)
    assert scores.num_pairs == len(pairs)
    forgetful = video.copy()
    forgetful[70:] = 255 - forgetful[70:]
    other = score_revisits({"video": forgetful}, poses, 16.0, measures)
    assert other.scores["video"]["psnr"] < scores.scores["video"]["psnr"] - 5


def test_drift_sees_a_film_decay_and_none_in_the_truth():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat(rng.integers(0, 255, (160, 8, 8, 3)), 4, 1), 4, 2).astype(np.uint8)
    steady = measure_drift(truth, truth, 16.0)
    assert steady.loss_db == pytest.approx(0.0)
    assert steady.first.sharpness == pytest.approx(1.0)
    assert steady.last.colour_offset == 0.0
    decaying = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.3 + n / 20) for n, frame in enumerate(truth)])
    drift = measure_drift(truth, decaying, 16.0)
    assert drift.loss_db > 2.0
    assert drift.last.sharpness < drift.first.sharpness < 1.0
    assert drift.worst_second_db <= drift.last.psnr_db
    with pytest.raises(ValueError, match="3 s or more"):
        measure_drift(truth[:40], truth[:40], 16.0)


def test_the_oracle_of_one_picture_knows_what_is_covered_and_each_row_s_mean_elsewhere():
    truth = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    covered = np.zeros((2, 4, 6), bool)
    covered[:, :, :2] = covered[:, 0] = True
    shown = with_true_means(truth, truth, covered)
    remembered = with_true_means(255 - truth, truth, covered)
    assert np.array_equal(shown[covered], truth[covered])
    assert np.array_equal(remembered[covered], 255 - truth[covered])
    assert np.array_equal(remembered[~covered], shown[~covered])
    assert np.array_equal(shown[0, 2, 2:], np.tile(np.round(truth[0, 2, 2:].mean(0)), (4, 1)))
