"""Laws of the camera integrator, worked by hand and against the public reference."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.camera.actions import integrate_actions, parse_actions
from engine.camera.integrator import CURRENT, Axes, IntegratorState, rotation_x, rotation_y, step

DT_S = 1.0 / 16.0


def walk(text: str, version: str = "current", start: np.ndarray | None = None) -> np.ndarray:
    return integrate_actions(parse_actions(text), fps=16.0, version=version, start=start)


def test_a_walk_starts_at_identity_and_has_one_pose_more_than_frames():
    poses = walk("w-5,none-3")
    assert poses.shape == (9, 4, 4)
    assert poses.dtype == np.float64
    np.testing.assert_array_equal(poses[0], np.eye(4))


def test_a_new_key_moves_at_full_speed_in_its_first_frame():
    # |f| + 1e-6 in the direction's normalisation makes the step shorter by one part in a million.
    np.testing.assert_allclose(walk("w-1")[1, :3, 3], [0.0, 0.0, 0.025], rtol=2e-6)
    assert math.isclose(yaw_of(walk("d-1")[1]), math.radians(0.6))
    assert math.isclose(pitch_of(walk("i-1")[1]), math.radians(0.6))
    np.testing.assert_allclose(walk("l-1")[1, :3, 3], [0.025, 0.0, 0.0], rtol=2e-6)


def test_a_released_key_coasts_with_a_time_constant_of_one_second():
    z = walk("w-1,none-16")[:, 2, 3]
    decay = math.exp(-DT_S)
    expected = 0.025 * np.cumsum(decay ** np.arange(17))
    np.testing.assert_allclose(z[1:], expected, rtol=2e-6)


def test_keys_that_stay_held_approach_their_target_with_the_press_constant():
    # d is released and w stays: w's velocity is at its target, yaw coasts. s added: all axes snap to the sum.
    poses = walk("wd-1,w-1,ws-1")
    yaw = [yaw_of(pose) for pose in poses]
    assert math.isclose(yaw[2] - yaw[1], math.radians(0.6) * math.exp(-DT_S))
    np.testing.assert_array_equal(poses[3], poses[2])
    state = IntegratorState.at(np.eye(4))
    state = step(state, Axes(forward=0.4), frozenset(), DT_S)
    assert math.isclose(state.velocity.forward, 0.4 * (1 - math.exp(-DT_S / 0.45)))
    assert math.isclose(1 - math.exp(-DT_S / 0.45), 0.130, abs_tol=5e-4)


def test_diagonals_are_not_normalised_and_opposite_keys_cancel():
    np.testing.assert_allclose(walk("wl-1")[1, :3, 3], [0.025, 0.0, 0.025], rtol=2e-6)
    np.testing.assert_array_equal(walk("ws-3")[-1], np.eye(4))


def test_pitch_stops_at_its_limit_and_height_never_changes():
    poses = walk("wi-200")
    assert math.isclose(pitch_of(poses[-1]), math.radians(60.0))
    np.testing.assert_array_equal(poses[:, 1, 3], 0.0)
    # Looking up does not slow the walk: the forward direction is the horizontal one.
    np.testing.assert_allclose(poses[-1, 2, 3] - poses[-2, 2, 3], 0.025, rtol=3e-6)


def test_the_rotation_is_the_recurrence_of_the_specification():
    text = "wd-9,i-7,da-3,jk-20,none-5,l-4"
    poses = walk(text)
    rotation = np.eye(3)
    for before, after in pairwise(poses):
        yaw, pitch = yaw_of(after) - yaw_of(before), pitch_of(after) - pitch_of(before)
        rotation = rotation_y(yaw) @ rotation @ rotation_x(pitch)
        np.testing.assert_allclose(after[:3, :3], rotation, atol=1e-12)


@pytest.mark.parametrize(
    "text", ["w-30,aw-24,none-8", "i-100,w-10,k-160", "D-7,wd-11,jl-3,asdw-2,L-40", "ikwj-5,s-9,a-70,none-2"]
)
def test_version_1_matches_the_public_reference(text: str):
    reference = pytest.importorskip("diffusers.pipelines.sana_wm.cam_utils")
    expected = reference.action_string_to_c2w(text)
    # The reference answers in float32 and divides by |f| where we divide by |f| + 1e-6.
    np.testing.assert_allclose(walk(text, "v1"), expected, atol=1e-5)


def test_rise_lifts_along_minus_y_and_roll_leaves_the_walk_level():
    state = IntegratorState.at(np.eye(4))
    state = step(state, Axes(rise=0.4), frozenset({"r"}), DT_S)
    np.testing.assert_allclose(state.position, [0.0, -0.025, 0.0])
    rolled = IntegratorState.at(np.eye(4))
    for _ in range(40):
        rolled = step(rolled, Axes(strafe=0.4, roll=0.5), frozenset({"e", "d"}), DT_S)
    assert rolled.position[1] == 0.0
    assert math.isclose(rolled.position[0], 1.0, rel_tol=2e-6)
    # Clockwise: the camera's right side points down (y is down).
    assert rolled.c2w()[1, 0] > 0.5


def test_a_mouse_turns_at_once_and_leaves_no_velocity():
    state = step(IntegratorState.at(np.eye(4)), Axes(), frozenset(), DT_S, look_rad=(0.2, -0.1))
    assert state.velocity == Axes()
    assert math.isclose(yaw_of(state.c2w()), 0.2)
    assert math.isclose(pitch_of(state.c2w()), -0.1)


def test_a_start_pose_is_kept_exactly_and_turned_about_the_world_vertical():
    start = np.eye(4)
    start[:3, :3] = rotation_y(0.7) @ rotation_x(-0.2)
    start[:3, 3] = [3.0, -1.6, 5.0]
    poses = walk("d-10,w-5", start=start)
    np.testing.assert_array_equal(poses[0], start)
    np.testing.assert_array_equal(poses[:, 1, 3], -1.6)
    # Yaw about the vertical leaves every axis' height unchanged.
    np.testing.assert_allclose(poses[-1, 1, :3], start[1, :3], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.frozensets(st.sampled_from("wsadjlik")), st.integers(1, 12)), min_size=1, max_size=8
    )
)
def test_every_walk_stays_rigid_level_and_within_its_speed(segments: list[tuple[frozenset[str], int]]):
    poses = integrate_actions([held for held, n in segments for _ in range(n)], fps=16.0)
    rotations = poses[:, :3, :3]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.eye(3)[None].repeat(len(poses), 0), atol=1e-12
    )
    np.testing.assert_array_equal(poses[:, 1, 3], 0.0)
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert np.all(steps <= 0.025 * math.sqrt(2.0) + 1e-12)
    assert all(abs(pitch_of(pose)) <= CURRENT.pitch_limit_rad + 1e-12 for pose in poses)


def yaw_of(pose: np.ndarray) -> float:
    return math.atan2(pose[0, 2], pose[2, 2])


def pitch_of(pose: np.ndarray) -> float:
    return -math.asin(float(np.clip(pose[1, 2], -1.0, 1.0)))
