"""The live view answers every input at once, moves without a jump, and ends where the rig does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.camera.late_reprojection import FRAME_ALONE, WITH_MEMORY, LiveView
from client.camera.rig import WALKING, CameraRig, PlannedMotion
from client.input.controls import IDLE, Intent, IntentMailbox
from engine.camera.integrator import rotation_x, rotation_y, rotation_z
from engine.types import Intrinsics

FPS, CHUNK_FRAMES, TICK_S = 16.0, 4, 1.0 / 60.0
CHUNK_S = CHUNK_FRAMES / FPS


def make_rig() -> CameraRig:
    start = np.eye(4)
    start[:3, :3] = rotation_y(0.7) @ rotation_x(-0.1) @ rotation_z(0.2)
    return CameraRig(start, Intrinsics(100.0, 100.0, 80.0, 48.0, 160, 96), FPS)


@dataclass
class Walked:
    """What a simulated walk came to."""

    rig: CameraRig
    live_rad: list[NDArray[np.float64]] = field(default_factory=list)
    """Of each display frame."""
    live_m: list[NDArray[np.float64]] = field(default_factory=list)
    """Position at each display frame."""
    planned_rad: list[NDArray[np.float64]] = field(default_factory=list)
    """End of the last chunk that arrived, at each display frame."""


def walk(asked: Callable[[float], Intent], seconds: float, interval_s: float, delay_s: float) -> Walked:
    """Run a view beside a rig that plans every `interval_s` and whose plans are seen `delay_s` later."""
    rig = make_rig()
    view, walked = LiveView(rig), Walked(rig)
    under_way: list[tuple[float, PlannedMotion, float]] = []
    mailbox = IntentMailbox()
    next_latch_s, posted_s, arrived = 0.1, 0.0, np.zeros(3)
    for tick in range(round(seconds / TICK_S)):
        now_s = tick * TICK_S
        intent = asked(now_s)
        mailbox.post(intent)
        posted_s = now_s
        view.turn(intent, posted_s, TICK_S, min(1.0, CHUNK_S / interval_s))
        while under_way and under_way[0][0] <= now_s:
            _, turn, latched_s = under_way.pop(0)
            view.take_plan(turn, latched_s)
            arrived = turn.angles_rad[-1]
        if now_s >= next_latch_s:
            rig.plan(mailbox.take(), CHUNK_FRAMES)
            under_way.append((now_s + delay_s, rig.motion, posted_s))
            next_latch_s += interval_s
        walked.live_rad.append(view.angles_rad)
        walked.live_m.append(view.position_m)
        walked.planned_rad.append(arrived)
    return walked


def mouse_at(moment_s: float, look_rad: tuple[float, float]) -> Callable[[float], Intent]:
    def asked(now_s: float) -> Intent:
        if moment_s <= now_s < moment_s + TICK_S:
            return Intent(look_dx_rad=look_rad[0], look_dy_rad=look_rad[1])
        return IDLE

    return asked


def held(intent: Intent, since_s: float, until_s: float) -> Callable[[float], Intent]:
    return lambda now_s: intent if since_s <= now_s < until_s else IDLE


@pytest.mark.parametrize(("interval_s", "delay_s"), [(0.25, 0.06), (0.25, 0.3), (2.0, 2.0)])
def test_a_mouse_turns_the_view_at_once_and_by_exactly_what_the_rig_will_turn(
    interval_s: float, delay_s: float
) -> None:
    walked = walk(mouse_at(1.0, (0.4, -0.2)), 12.0, interval_s, delay_s)
    first = math.ceil(1.0 / TICK_S)
    assert walked.live_rad[first - 1].tolist() == [0.0, 0.0, 0.0]
    # Never anything else again: what the rig carries into later chunks is no difference to be led back.
    np.testing.assert_allclose(
        walked.live_rad[first:], np.tile([0.4, -0.2, 0.0], (len(walked.live_rad) - first, 1))
    )
    np.testing.assert_allclose(walked.planned_rad[-1], (0.4, -0.2, 0.0))


@pytest.mark.parametrize(
    "intent", [Intent(yaw=1.0), Intent(yaw=-0.4, pitch=0.7), Intent(roll=1.0), Intent(forward=1.0, pitch=1.0)]
)
@pytest.mark.parametrize(("interval_s", "delay_s"), [(0.25, 0.06), (0.25, 0.4), (1.0, 1.0)])
def test_a_key_or_stick_turns_the_view_at_once_without_a_jump_and_to_where_the_rig_ends(
    intent: Intent, interval_s: float, delay_s: float
) -> None:
    walked = walk(held(intent, 1.0, 3.1), 20.0, interval_s, delay_s)
    first = math.ceil(1.0 / TICK_S)
    live = np.array(walked.live_rad)
    asked = np.array([intent.yaw, intent.pitch, intent.roll])
    assert not live[:first].any()
    assert (live[first] * asked > 0).sum() == np.count_nonzero(asked), "the first frame after the key turns"
    # Nothing moves faster than the key and the leading back of a chunk's turn together.
    fastest = WALKING.turn_rad_s * TICK_S + CHUNK_S * WALKING.turn_rad_s * TICK_S / 0.15
    assert np.abs(np.diff(live, axis=0)).max() < 1.05 * fastest
    np.testing.assert_allclose(live[-1], walked.planned_rad[-1], atol=math.radians(0.02))
    assert np.abs(walked.planned_rad[-1]).max() > math.radians(10.0)


def test_a_held_key_is_never_led_away_from_its_own_turning() -> None:
    walked = walk(held(Intent(yaw=1.0), 1.0, 5.0), 5.0, 0.25, 0.1)
    steps = np.diff(np.array(walked.live_rad)[70:, 0])
    np.testing.assert_allclose(steps, WALKING.turn_rad_s * TICK_S, rtol=0.35)
    lead = np.array(walked.live_rad)[70:, 0] - np.array(walked.planned_rad)[70:, 0]
    # The last chunk that arrived ends up to two chunks and the delay behind the view, and never before it.
    assert -CHUNK_S * WALKING.turn_rad_s < lead.min() < lead.max() < (CHUNK_S + 0.1) * WALKING.turn_rad_s


def test_the_view_stops_where_the_rig_cannot_look_further_up() -> None:
    walked = walk(mouse_at(1.0, (0.0, 3.0)), 8.0, 0.25, 0.1)
    highest = max(angles[1] for angles in walked.live_rad)
    assert highest == pytest.approx(WALKING.pitch_limit_rad)
    np.testing.assert_allclose(walked.live_rad[-1], walked.planned_rad[-1], atol=1e-9)


def test_levelling_brings_the_view_to_the_horizon_with_the_rig() -> None:
    def asked(now_s: float) -> Intent:
        return Intent(roll=1.0) if now_s < 1.5 else Intent(level=1.6 < now_s < 5.0)

    walked = walk(asked, 8.0, 0.25, 0.1)
    # A walker leans no further, here as in the rig.
    assert max(angles[2] for angles in walked.live_rad) == pytest.approx(math.radians(30.0), abs=0.02)
    np.testing.assert_allclose(walked.live_rad[-1], walked.planned_rad[-1], atol=math.radians(0.02))
    assert abs(walked.live_rad[-1][2]) < math.radians(0.1)


def test_a_rotation_of_the_view_is_the_rigs_own_at_those_angles() -> None:
    rig = make_rig()
    rig.plan(Intent(yaw=1.0, pitch=-1.0, roll=1.0), CHUNK_FRAMES)
    angles_rad = rig.motion.angles_rad[-1]
    np.testing.assert_array_equal(LiveView(rig).rotation(angles_rad), rig.c2w[:3, :3])
    view = LiveView(rig)
    view.begin(rig.state)
    np.testing.assert_array_equal(view.angles_rad, angles_rad)


def test_a_picture_reaches_a_view_as_far_as_it_can_be_turned() -> None:
    view = LiveView(make_rig())
    view.turn(Intent(look_dx_rad=0.3), 0.0, 0.0)
    assert view.is_turned_from(np.zeros(3))
    np.testing.assert_allclose(view.turn_from(np.array([0.1, 0.0, 0.0])), [0.2, 0.0, 0.0])
    view.turn(Intent(look_dx_rad=0.3), 0.1, 0.1)
    assert not view.is_turned_from(np.zeros(3))
    np.testing.assert_allclose(view.turn_from(np.zeros(3)), [FRAME_ALONE.turn_rad, 0.0, 0.0])
    assert view.is_turned_from(np.zeros(3), WITH_MEMORY)
    np.testing.assert_allclose(view.turn_from(np.zeros(3), WITH_MEMORY), [0.6, 0.0, 0.0])


@pytest.mark.parametrize(("interval_s", "delay_s"), [(0.25, 0.06), (0.25, 0.4), (1.0, 1.0)])
@pytest.mark.parametrize(
    "intent", [Intent(forward=1.0), Intent(strafe=-0.5, rise=1.0), Intent(forward=1.0, yaw=1.0)]
)
def test_a_walk_moves_the_view_at_once_without_a_jump_and_to_where_the_rig_ends(
    intent: Intent, interval_s: float, delay_s: float
) -> None:
    walked = walk(held(intent, 1.0, 3.1), 20.0, interval_s, delay_s)
    first = math.ceil(1.0 / TICK_S)
    live = np.array(walked.live_m)
    np.testing.assert_array_equal(live[first - 1], walked.rig.start.position)
    assert np.linalg.norm(live[first] - live[first - 1]) > 0.002, "the first frame after the key moves"
    # Nothing moves faster than the walk and the leading back of a chunk's way together.
    fastest = 2.0**0.5 * WALKING.move_m_s * (TICK_S + CHUNK_S * TICK_S / 0.15)
    assert np.linalg.norm(np.diff(live, axis=0), axis=1).max() < 1.1 * fastest
    assert np.linalg.norm(live[-1] - live[0]) > 1.0
    np.testing.assert_allclose(live[-1], walked.rig.c2w[:3, 3], atol=0.02)


def test_a_picture_is_moved_no_further_than_it_can_be() -> None:
    view = LiveView(make_rig())
    here = view.move_from(np.zeros(3))
    assert not here.any()
    assert view.is_reached_from(np.zeros(3), np.array([0.0, 0.0, FRAME_ALONE.move_m]))
    assert not view.is_reached_from(np.zeros(3), np.array([0.0, 0.0, 1.1 * FRAME_ALONE.move_m]))
    np.testing.assert_allclose(
        view.move_from(np.array([3.0, 0.0, 4.0])), [-0.6 * FRAME_ALONE.move_m, 0.0, -0.8 * FRAME_ALONE.move_m]
    )
    further = np.array([0.0, 0.0, 1.5 * FRAME_ALONE.move_m])
    assert view.is_reached_from(np.zeros(3), further, WITH_MEMORY)
    np.testing.assert_allclose(view.move_from(further, WITH_MEMORY), -further)
    assert not view.move_from(np.array([0.001, 0.0, 0.0])).any(), "what cannot be seen is dropped"


AXIS = st.sampled_from([-1.0, -0.5, 0.0, 0.0, 1.0])


@given(
    st.lists(st.tuples(AXIS, AXIS, AXIS, st.floats(-0.3, 0.3)), min_size=1, max_size=12),
    st.floats(0.2, 1.2),
    st.floats(0.0, 1.5),
)
@settings(max_examples=25, deadline=None)
def test_whatever_was_asked_for_view_and_rig_end_alike(
    inputs: list[tuple[float, float, float, float]], interval_s: float, delay_s: float
) -> None:
    def asked(now_s: float) -> Intent:
        index, into = divmod(now_s, 0.3)
        if index >= len(inputs):
            return IDLE
        yaw, pitch, roll, look = inputs[int(index)]
        intent = Intent(yaw=yaw, pitch=pitch, roll=roll)
        return replace(intent, look_dx_rad=look, look_dy_rad=look) if into < TICK_S else intent

    walked = walk(asked, 0.3 * len(inputs) + 6.0 + 2.0 * delay_s + 4.0 * interval_s, interval_s, delay_s)
    assert np.isfinite(walked.live_rad).all()
    np.testing.assert_allclose(walked.live_rad[-1], walked.planned_rad[-1], atol=math.radians(0.1))
