"""Cameras recovered from frames: trusted where independent solutions agree, refused where they do not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pycolmap")
pytest.importorskip("numba")
from scipy.spatial.transform import Rotation

from evaluation.poses.alignment import camera_errors, fit_similarity, path_length
from evaluation.poses.estimator import PosesRefused
from evaluation.poses.interpolation import interpolate_poses
from evaluation.poses.reconstruction import Model
from evaluation.poses.structure_from_motion import (
    StructureFromMotion,
    Trust,
    _agreement,
    _best,
    _loop,
    _problem,
    epipolar_error_px,
)
from holodeck import get_place
from holodeck.compiled import render_rgbd
from holodeck.walks import walk
from training.data.holodeck.families import draw_poses

SIZE = (320, 176)
LENS = np.array([208.0, 208.0, 160.0, 88.0], np.float32)
TRUST = Trust()


def model_of(c2w: np.ndarray, frames: np.ndarray | None = None) -> Model:
    count = len(c2w)
    return Model(
        frames=np.arange(count) if frames is None else frames,
        c2w=c2w,
        lens=LENS.astype(np.float64),
        reprojection_px=0.7,
        parallax_deg=5.0,
        points=np.zeros((0, 4)),
        shared=np.zeros((count, count)),
    )


@pytest.fixture(scope="module")
def track() -> np.ndarray:
    return walk(get_place("town"), 161, 16, 3)[::4]


def moved(c2w: np.ndarray, scale: float = 0.3) -> np.ndarray:
    """The same track in another frame and unit."""
    turn = Rotation.from_rotvec([0.4, 1.0, -0.2]).as_matrix()
    other = c2w.copy()
    other[:, :3, :3] = turn @ c2w[:, :3, :3]
    other[:, :3, 3] = scale * c2w[:, :3, 3] @ turn.T + np.array([1.0, 2.0, 3.0])
    return other


def test_the_same_track_in_two_units_agrees(track):
    agreed = _agreement(model_of(track), model_of(moved(track)), len(track), TRUST)
    assert agreed is not None
    assert agreed.share == 1.0
    assert agreed.turned_deg < 1e-4
    assert agreed.moved < 1e-9


def test_frames_that_one_solution_got_wrong_are_dropped_and_counted(track):
    wrong = moved(track)
    wrong[-4:, :3, 3] += 5.0
    agreed = _agreement(model_of(track), model_of(wrong), len(track), TRUST)
    assert agreed is not None
    assert agreed.model.frames.tolist() == list(range(len(track) - 4))
    assert agreed.share == pytest.approx(1 - 4 / len(track))
    assert agreed.moved < 0.01


def test_solutions_that_bend_apart_are_refused(track):
    bent = moved(track)
    turns = Rotation.from_euler("y", np.linspace(0, 60, len(track))[:, None], degrees=True).as_matrix()
    bent[:, :3, :3] = turns @ bent[:, :3, :3]
    _, agreed = _best(
        {"incremental": model_of(track), "global": model_of(bent), "neighbours": None}, len(track), TRUST
    )
    measures = {
        "registered_share": agreed.share,
        "agreement_deg": agreed.turned_deg,
        "agreement_path": agreed.moved,
    }
    fine = {"loop_path": 0.0, "parallax_deg": 5.0, "epipolar_px": 0.3}
    assert _problem({**measures, **fine}, TRUST, 4)


def test_every_reason_not_to_trust_is_said():
    good = {
        "registered_share": 1.0,
        "agreement_deg": 0.2,
        "agreement_path": 0.01,
        "loop_path": 0.01,
        "parallax_deg": 5.0,
        "epipolar_px": 0.3,
    }
    assert _problem(good, TRUST, 2) == ""
    bad = {
        "registered_share": (0.5, "agree on 50%"),
        "agreement_deg": (4.0, "4.0 degrees"),
        "agreement_path": (0.2, "20% of the path"),
        "loop_path": (0.3, "loops do not close"),
        "parallax_deg": (0.2, "hardly moves"),
        "epipolar_px": (3.0, "3.0 pixels"),
    }
    for name, (value, said) in bad.items():
        assert said in _problem({**good, name: value}, TRUST, 2)


def test_a_loop_that_is_open_without_its_matches_is_measured(track):
    assert _loop(model_of(track), None) == 0.0
    assert _loop(model_of(track), model_of(moved(track))) < 1e-9
    drifted = track.copy()
    drifted[:, 0, 3] += np.linspace(0.0, 0.8 * path_length(track), len(track)) ** 1.5
    assert _loop(model_of(track), model_of(drifted)) > 0.1


def test_true_poses_pass_the_picture_check_and_wrong_ones_do_not():
    place = get_place("town")
    c2w = walk(place, 33, 16, 3)
    frames = np.stack([render_rgbd(place, pose, LENS, *SIZE)[0] for pose in c2w])
    lens = LENS.astype(np.float64)
    assert epipolar_error_px(frames, c2w, lens, 4) < 0.5
    wrong = c2w.copy()
    wrong[:, :3, :3] = (
        c2w[:, :3, :3] @ Rotation.from_euler("x", 3.0 * np.arange(33)[:, None], degrees=True).as_matrix()
    )
    assert epipolar_error_px(frames, wrong, lens, 4) > 1.5


def test_poses_between_keyframes_stay_on_the_track(track):
    full = walk(get_place("town"), 161, 16, 3)
    numbers = np.arange(0, 161, 2)
    between = interpolate_poses(numbers, full[::2], 161)
    found = camera_errors(between, full)
    assert found.rotation_deg < 0.1
    assert found.translation_m < 0.002
    held = interpolate_poses(numbers[5:], full[10::2], 161)
    np.testing.assert_allclose(held[:10], np.tile(full[10], (10, 1, 1)), atol=1e-9)


def test_too_few_frames_are_refused():
    with pytest.raises(PosesRefused, match="too few"):
        StructureFromMotion().estimate(np.zeros((9, 32, 32, 3), np.uint8), 16.0)


@pytest.mark.slow
def test_a_rendered_orbit_is_recovered_and_a_blank_wall_is_not():
    place = get_place("town")
    c2w = draw_poses("orbit", place, 81, 16.0, 1)
    lens = 2 * LENS
    frames = np.stack([render_rgbd(place, pose, lens, 640, 352)[0] for pose in c2w])
    found = StructureFromMotion().estimate(frames, 16.0)
    assert found.problem == ""
    errors = camera_errors(fit_similarity(found.c2w, c2w)(found.c2w), c2w)
    assert errors.rotation_deg < 1.0
    assert errors.translation_m < 0.02 * path_length(c2w)
    assert found.intrinsics[0, 0] == pytest.approx(416.0, rel=0.05)
    again = StructureFromMotion().estimate(frames, 16.0)
    np.testing.assert_array_equal(found.c2w, again.c2w)
    with pytest.raises(PosesRefused, match="no two frames"):
        StructureFromMotion().estimate(np.full_like(frames, 90), 16.0)
