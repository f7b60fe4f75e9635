"""The rig turns intents into rigid, continuous, collision-free poses, whatever it is fed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.camera.rig import WALKING, CameraRig, RigLimits
from client.input.controls import IDLE, Intent
from engine.session.holodeck_session import Slide
from engine.types import Intrinsics

FPS = 16.0
CHUNK_FRAMES = 4
INTRINSICS = Intrinsics(100.0, 100.0, 80.0, 48.0, 160, 96)
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
INTENTS = st.builds(
    Intent,
    *[ANY_FLOAT] * 6,
    look_dx_rad=ANY_FLOAT,
    look_dy_rad=ANY_FLOAT,
    run=st.booleans(),
    level=st.booleans(),
)


def make_rig(speed_scale: float = 1.0, slide: Slide | None = None) -> CameraRig:
    start = np.eye(4)
    start[:3, 3] = (3.0, -1.6, -2.0)
    return CameraRig(start, INTRINSICS, FPS, speed_scale, slide)


def walk(rig: CameraRig, intent: Intent, seconds: float) -> NDArray[np.float64]:
    """Return all poses of a walk, [F, 4, 4]."""
    num_chunks = round(seconds * FPS / CHUNK_FRAMES)
    return np.concatenate([rig.plan(intent, CHUNK_FRAMES).c2w for _ in range(num_chunks)])


def heading_rad(c2w: NDArray[np.float64]) -> float:
    return math.atan2(c2w[0, 2], c2w[2, 2])


def test_a_track_has_one_pose_and_camera_per_frame() -> None:
    track = make_rig().plan(IDLE, CHUNK_FRAMES, latched_s=7.0)
    assert track.c2w.shape == (CHUNK_FRAMES, 4, 4)
    assert track.intrinsics.shape == (CHUNK_FRAMES, 4)
    assert track.latched_s == 7.0


def test_walking_goes_at_a_walking_pace_and_running_faster() -> None:
    walked = walk(make_rig(), Intent(forward=1.0), 2.0)
    ran = walk(make_rig(), Intent(forward=1.0, run=True), 2.0)
    assert walked[-1, 2, 3] - walked[0, 2, 3] == pytest.approx(1.6 * 31 / FPS, rel=1e-3)
    assert ran[-1, 2, 3] + 2.0 == pytest.approx(RigLimits().run_factor * (walked[-1, 2, 3] + 2.0), rel=1e-3)


def test_a_walk_that_begins_in_the_air_stays_there() -> None:
    start = np.eye(4)
    start[:3, 3] = (0.0, -3.0, 0.0)
    rig = CameraRig(start, INTRINSICS, FPS, eye_y_m=-1.6)
    assert rig.flying
    assert walk(rig, IDLE, 1.0)[-1, 1, 3] == pytest.approx(-3.0)
    assert not make_rig().flying


def test_the_worlds_speed_scale_multiplies_the_pace() -> None:
    slow = walk(make_rig(speed_scale=0.25), Intent(forward=1.0), 1.0)
    assert slow[-1, 2, 3] + 2.0 == pytest.approx(0.4, rel=1e-3)


def test_the_players_pace_is_the_speed_walked_and_outlasts_a_reset() -> None:
    rig = make_rig(speed_scale=0.5)
    rig.pace = 2.5
    rig.reset()
    walked = walk(rig, Intent(forward=1.0), 2.0)
    assert rig.speed_m_s == pytest.approx(2.0)
    assert walked[-1, 2, 3] - walked[0, 2, 3] == pytest.approx(rig.speed_m_s * 31 / FPS, rel=1e-3)


@pytest.mark.parametrize(
    ("intent", "direction"),
    [
        (Intent(forward=1.0), (0, 0, 1)),
        (Intent(strafe=1.0), (1, 0, 0)),
        (Intent(rise=1.0), (0, -1, 0)),
    ],
)
def test_each_axis_moves_its_own_way(intent: Intent, direction: tuple[int, int, int]) -> None:
    moved = walk(make_rig(), intent, 0.5)[-1, :3, 3] - (3.0, -1.6, -2.0)
    assert moved / np.linalg.norm(moved) == pytest.approx(direction, abs=1e-5)


def test_positive_yaw_turns_right_pitch_looks_up_and_roll_leans_right() -> None:
    assert walk(make_rig(), Intent(yaw=1.0), 0.5)[-1, 0, 2] > 0.1
    assert walk(make_rig(), Intent(pitch=1.0), 0.5)[-1, 1, 2] < -0.1
    assert walk(make_rig(), Intent(roll=1.0), 0.5)[-1, 1, 0] > 0.1


def test_mouse_look_is_spread_over_the_chunk_and_spent_once() -> None:
    rig = make_rig()
    headings = [heading_rad(pose) for pose in rig.plan(Intent(look_dx_rad=0.2), CHUNK_FRAMES).c2w]
    assert headings == pytest.approx([0.05, 0.10, 0.15, 0.20])
    assert heading_rad(rig.plan(IDLE, CHUNK_FRAMES).c2w[-1]) == pytest.approx(0.20)


@given(st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_no_mouse_turn_is_lost_or_doubled_however_fast(turns: list[float]) -> None:
    rig = make_rig()
    poses = [rig.plan(Intent(look_dx_rad=turn), CHUNK_FRAMES).c2w for turn in turns]
    poses.append(walk(rig, IDLE, 12.0))
    headings = np.unwrap([0.0, *(heading_rad(pose) for pose in np.concatenate(poses))])
    assert headings[-1] == pytest.approx(sum(turns), abs=1e-6)
    assert np.abs(np.diff(headings)).max() <= RigLimits().look_limit_rad_s / FPS + 1e-9


def test_pitch_stops_at_its_limit() -> None:
    pose = walk(make_rig(), Intent(look_dy_rad=0.5), 5.0)[-1]
    assert math.asin(-pose[1, 2]) == pytest.approx(WALKING.pitch_limit_rad)


def test_levelling_brings_the_horizon_back_even_against_the_roll_key() -> None:
    rig = make_rig()
    rig.flying = True
    walk(rig, Intent(roll=1.0), 3.0)
    assert abs(rig.roll_rad) > 1.0
    walk(rig, Intent(level=True), 5.0)
    assert rig.roll_rad == pytest.approx(0.0, abs=0.01)


def test_a_walker_comes_back_down_and_a_flyer_stays_up() -> None:
    rig = make_rig()
    walk(rig, Intent(rise=1.0), 1.0)
    walk(rig, IDLE, 2.0)
    assert rig.flying
    assert rig.height_m > 1.0
    rig.flying = False
    walk(rig, IDLE, 5.0)
    assert rig.height_m == pytest.approx(0.0, abs=0.02)


def test_flight_stays_between_its_height_limits() -> None:
    limits = RigLimits()
    assert max(-walk(make_rig(), Intent(rise=1.0), 10.0)[:, 1, 3]) == pytest.approx(1.6 + limits.climb_m)
    assert max(walk(make_rig(), Intent(rise=-1.0), 10.0)[:, 1, 3]) == pytest.approx(-1.6 + limits.sink_m)


def test_a_wall_stops_the_walker_but_not_the_slide_along_it() -> None:
    def wall_at_zero(position: NDArray[np.float64], delta: NDArray[np.float64]) -> NDArray[np.float64]:
        wished = position + delta
        return np.array([wished[0], wished[1], min(wished[2], 0.0)])

    poses = walk(make_rig(slide=wall_at_zero), Intent(forward=1.0, strafe=1.0), 4.0)
    assert poses[:, 2, 3].max() == 0.0
    assert poses[-1, 0, 3] - 3.0 == pytest.approx(6.4, rel=0.02)


def test_a_collision_that_answers_nonsense_holds_the_walker_still() -> None:
    poses = walk(make_rig(slide=lambda position, delta: position * np.nan), Intent(forward=1.0), 1.0)
    assert poses[:, :3, 3] == pytest.approx(np.tile((3.0, -1.6, -2.0), (len(poses), 1)))


def test_reset_stands_at_the_first_pose_at_rest() -> None:
    rig = make_rig()
    walk(rig, Intent(forward=1.0, rise=1.0, look_dx_rad=5.0), 1.0)
    rig.reset()
    assert not rig.flying
    assert walk(rig, IDLE, 0.5)[-1] == pytest.approx(make_rig().c2w)


@given(st.lists(INTENTS, min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_every_pose_is_rigid_and_finite_whatever_is_asked(intents: list[Intent]) -> None:
    rig = make_rig()
    for intent in intents:
        for pose in rig.plan(intent, CHUNK_FRAMES).c2w:
            assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)
            assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
            assert np.isfinite(pose).all()


def test_planning_in_pieces_is_planning_at_once() -> None:
    intent = Intent(forward=1.0, yaw=0.5)
    whole = make_rig().plan(intent, 8).c2w
    rig = make_rig()
    pieces = np.concatenate([rig.plan(intent, 4).c2w, rig.plan(intent, 4).c2w])
    assert pieces == pytest.approx(whole)
