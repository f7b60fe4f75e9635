"""The drift meter reads what its formula says, and the film rests only where nothing moves."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from client.camera.planner import rig_planner
from client.input.controls import IDLE, Intent
from client.playback.meters import FLOORS, RECENT_CHUNKS, REFERENCE_CHUNKS, DriftMeter, image_statistics
from client.playback.pacing import REST_AFTER_S, RestDetector, is_still
from client.playback.walk import Walk
from client.ui.metrics import read_metrics
from engine.camera.integrator import rotation_y
from engine.files.world import World
from tests.test_client_walk import InstantSession, play_until


def scene(seed: int = 0, count: int = REFERENCE_CHUNKS) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (count, 24, 32, 3), np.uint8)


def show(meter: DriftMeter, frames: np.ndarray) -> None:
    for frame in frames:
        meter.add(frame)


def read(first: np.ndarray, last: np.ndarray) -> float:
    meter = DriftMeter()
    show(meter, first)
    show(meter, np.tile(last, (RECENT_CHUNKS // len(last), 1, 1, 1)))
    drift = meter.read()
    assert drift is not None
    return drift.value


def test_the_same_pictures_have_not_drifted() -> None:
    assert read(scene(), scene()) == 0.0
    assert read(scene(), scene(1)) < 0.02


def mean_statistics(frames: np.ndarray) -> np.ndarray:
    return np.mean([image_statistics(frame) for frame in frames], axis=0)


def test_the_reading_is_that_of_the_formula() -> None:
    first, last = scene(), (scene(1) * 0.5).astype(np.uint8)
    ratio = (mean_statistics(last) + FLOORS) / (mean_statistics(first) + FLOORS)
    assert read(first, last) == pytest.approx(np.sqrt(np.mean(np.log(ratio) ** 2)), rel=1e-6)


def test_the_four_numbers_of_a_known_picture() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[:, 1] = (255, 0, 0)
    (brightness, contrast, colour, detail) = image_statistics(frame)
    assert brightness == pytest.approx(0.299 / 2, abs=1e-6)
    assert contrast == pytest.approx(0.299 / 2, abs=1e-6)
    assert colour == pytest.approx(0.5, abs=1e-6)
    assert detail == pytest.approx(0.299, abs=1e-6)


@pytest.mark.parametrize(
    ("worn", "most"),
    [
        (lambda frames: frames - 40, "brightness"),
        (lambda frames: np.repeat(frames[..., :1], 3, axis=-1), "colour"),
        (lambda frames: np.repeat(np.repeat(frames[:, ::4, ::4], 4, 1), 4, 2), "detail"),
    ],
)
def test_the_meter_names_what_has_changed_most(worn: Callable[[np.ndarray], np.ndarray], most: str) -> None:
    meter = DriftMeter()
    show(meter, scene())
    for seed in range(2, 5):
        show(meter, worn(scene(seed)))
    drift = meter.read()
    assert drift is not None
    assert drift.most == most
    assert drift.factor < 0.75
    assert drift.value > 0.15


def test_a_meter_says_nothing_before_it_has_seen_the_first_frames_and_begins_anew() -> None:
    meter = DriftMeter()
    show(meter, scene(count=REFERENCE_CHUNKS - 1))
    assert meter.read() is None
    show(meter, scene(count=1))
    assert meter.read() is not None
    meter.forget_recent()
    assert meter.read() is None
    show(meter, scene() // 2)
    drift = meter.read()
    assert drift is not None
    assert drift.value > 0.2
    meter.begin()
    assert meter.read() is None


def test_large_frames_read_as_small_ones_do() -> None:
    small = np.tile(scene(count=1)[0], (2, 3, 1))[:, :80]
    large = np.repeat(np.repeat(small, 4, 0), 4, 1)
    assert image_statistics(large) == pytest.approx(image_statistics(small), rel=0.02)


def test_a_camera_stands_or_moves() -> None:
    still = np.tile(np.eye(4), (4, 1, 1))
    moving, turning = still.copy(), still.copy()
    moving[3, 0, 3] = 0.01
    turning[3, :3, :3] = rotation_y(0.001)
    assert is_still(still)
    assert not is_still(moving)
    assert not is_still(turning)


def test_the_film_rests_after_standing_and_never_in_an_animated_world() -> None:
    still = np.tile(np.eye(4), (4, 1, 1))
    rest, animated = RestDetector(animated=False), RestDetector(animated=True)
    for _ in range(round(REST_AFTER_S / 0.25)):
        assert not rest.may_rest(False)
        rest.note(still, 0.25, latched_s=1.0, flying=False)
        animated.note(still, 0.25, latched_s=1.0, flying=False)
    assert rest.may_rest(False)
    assert not animated.may_rest(False)
    rest.ask(2.0)
    assert not rest.may_rest(False)
    rest.note(still, 0.25, latched_s=1.5, flying=False)
    assert not rest.may_rest(False)
    rest.note(still, 0.25, latched_s=2.0, flying=False)
    assert rest.may_rest(False)
    elsewhere = still.copy()
    elsewhere[:, 0, 3] = 1.0
    rest.note(elsewhere, 0.25, latched_s=2.0, flying=False)
    assert not rest.may_rest(False)


@pytest.fixture
def session(toy_world: World) -> InstantSession:
    return InstantSession(toy_world)


def test_a_walker_who_stands_gets_no_chunks_and_moves_on_without_a_stutter(session: InstantSession) -> None:
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    try:
        play_until(walk, lambda: walk.resting)
        made, holds = len(session.tracks), read_metrics(walk, 0.0, False).counts.holds
        shown = walk.frame.index
        for _ in range(100):
            assert not walk.update(IDLE, time.perf_counter())
            time.sleep(0.002)
        assert len(session.tracks) == made
        assert (read_metrics(walk, 0.0, False).counts.holds, walk.frame.index) == (holds, shown)
        assert read_metrics(walk, 0.0, False).resting
        began_s = time.perf_counter()
        frames = play_until(walk, lambda: walk.frame.index >= shown + 8, Intent(forward=1.0))
        # A bound for a machine that is busy; a rest that is over only at its next chunk would take for ever.
        assert time.perf_counter() - began_s < 10.0
        assert frames[0] == shown + 1
        assert not walk.resting
        assert np.linalg.norm(session.tracks[made].c2w[-1, :3, 3] - session.world.c2w[:3, 3]) > 0.01
    finally:
        walk.close()


def test_one_motion_of_the_mouse_wakes_a_resting_walk_until_it_is_answered(session: InstantSession) -> None:
    session.fps = 16.0
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    try:
        play_until(walk, lambda: walk.resting)
        walk.update(Intent(look_dx_rad=0.2), time.perf_counter())
        assert walk.live_turn_rad.any()
        play_until(walk, lambda: walk.resting and not walk.live_turn_rad.any())
        turned_rad = np.arccos((np.trace(session.world.c2w[:3, :3].T @ walk.frame.c2w[:3, :3]) - 1) / 2)
        assert turned_rad == pytest.approx(0.2, rel=0.01)
    finally:
        walk.close()


def test_landing_wakes_a_resting_walk_and_a_pause_does_not(session: InstantSession) -> None:
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    try:
        play_until(walk, lambda: walk.resting)
        walk.pause()
        walk.update(IDLE, time.perf_counter())
        assert walk.paused
        walk.resume()
        play_until(walk, lambda: walk.resting)
        assert walk.planner.rig is not None
        made = len(session.tracks)
        walk.planner.rig.flying = True
        play_until(walk, lambda: len(session.tracks) > made)
    finally:
        walk.close()
