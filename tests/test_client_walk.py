"""A walk shows every frame in order, records from its first step, starts again, and survives its engine."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from client.camera.planner import TrackPlanner, rig_planner, track_planner
from client.input.controls import IDLE, Intent
from client.playback.recorder import WalkRecorder
from client.playback.walk import Walk
from client.ui.metrics import read_metrics
from engine.camera.tracks import Track
from engine.errors import RolloutDiverged
from engine.files.recording import read_recording
from engine.files.world import World
from engine.session.protocol import Session, Snapshot
from engine.types import CameraTrack, ChunkTimes, FrameChunk, LatentChunk

PATIENCE_S = 30.0


class InstantSession(Session):
    """Frames that hold the number of their chunk, made at once."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.engine = self.backend = self.device = "instant"
        self.identity = f"instant:{world.sha256}"
        self.frame_size = world.frame_size
        self.fps = 64.0
        self.frames_per_chunk = 4
        self.fail_at: int | None = None
        self.tracks: list[CameraTrack] = []
        self.closed = False
        self.stall = threading.Event()
        """While it is cleared no chunk is made."""
        self.waiting = False
        self.stall.set()

    def reset(self, seed: int) -> None:
        self._seed = seed
        self._next_denoised = self._next_decoded = 1
        self.tracks.clear()

    def denoise(self, track: CameraTrack) -> LatentChunk:
        self.waiting = True
        self.stall.wait(PATIENCE_S)
        self.waiting = False
        now_s = time.perf_counter()
        index = self._next_denoised
        if index == self.fail_at:
            raise RolloutDiverged("the world fell apart; start again")
        self._next_denoised += 1
        self.tracks.append(track)
        latents = np.full((1, 1, 1, 1), index, np.float32)
        return LatentChunk(index, index, latents, f"{index:064x}", track, now_s, now_s, now_s)

    def decode(self, chunk: LatentChunk) -> FrameChunk:
        self._next_decoded += 1
        width, height = self.frame_size
        frames = np.full((4, height, width, 3), chunk.chunk_index % 256, np.uint8)
        now_s = time.perf_counter()
        times = ChunkTimes(chunk.track.latched_s, chunk.model_start_s, now_s, now_s, now_s, now_s)
        return FrameChunk(chunk.chunk_index, frames, chunk.track, times, chunk.sha256)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.identity, self._seed, self._next_denoised, self.world.c2w, {})

    def restore(self, snapshot: Snapshot) -> None:
        self._next_denoised = self._next_decoded = snapshot.chunk_index

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def session(toy_world: World) -> InstantSession:
    return InstantSession(toy_world)


@pytest.fixture
def walk(session: InstantSession) -> Iterator[Walk]:
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    yield walk
    walk.close()


def play_until(walk: Walk, done: Callable[[], bool], intent: Intent = IDLE) -> list[int]:
    """Run the client's side until something is so; return the frames shown."""
    shown: list[int] = []
    deadline_s = time.perf_counter() + PATIENCE_S
    while not done():
        assert time.perf_counter() < deadline_s, "waited in vain"
        if walk.update(intent, time.perf_counter()):
            shown.append(walk.frame.index)
        time.sleep(0.002)
    return shown


def test_the_first_picture_is_the_worlds_own_frame(walk: Walk, toy_world: World) -> None:
    assert (walk.frame.pixels == toy_world.first_frame).all()
    assert (walk.frame.c2w == toy_world.c2w).all()


def test_frames_are_shown_in_order_with_the_poses_they_were_made_for(walk: Walk) -> None:
    shown = play_until(walk, lambda: walk.frame.index >= 12, Intent(forward=1.0))
    assert shown == sorted(set(shown))
    assert walk.frame.pixels[0, 0, 0] == walk.frame.chunk_index
    assert np.linalg.norm(walk.frame.c2w[:3, 3] - walk.session.world.c2w[:3, 3]) > 0.1


def test_the_view_runs_ahead_of_the_model_and_is_caught_up_with(walk: Walk) -> None:
    play_until(walk, lambda: walk.frame.index >= 4)
    assert walk.live_poses is None
    walk.update(Intent(look_dx_rad=0.1, look_dy_rad=-0.05), time.perf_counter())
    assert walk.live_turn_rad == pytest.approx([0.1, -0.05, 0.0])
    play_until(walk, lambda: not walk.live_turn_rad.any())
    here, start = walk.frame.c2w[:3, :3], walk.session.world.c2w[:3, :3]
    cosine = (np.trace(start.T @ here) - 1) / 2
    assert np.arccos(cosine) == pytest.approx(np.hypot(0.1, 0.05), rel=0.02)


@pytest.mark.parametrize("gone", [False, True])
def test_a_tap_while_a_chunk_is_made_is_of_the_next_one_unless_the_player_is_gone(
    walk: Walk, session: InstantSession, gone: bool
) -> None:
    session.stall.clear()
    play_until(walk, lambda: session.waiting)
    for intent in (Intent(forward=1.0), IDLE):
        walk.update(intent, time.perf_counter())
    if gone:
        walk.drop_taps()
    session.stall.set()
    play_until(walk, lambda: walk.recorder.num_chunks >= 4)
    asked = [float(chunk.intents[0, 1]) for chunk in walk.recorder.walked(4)]
    assert asked == [0.0, 0.0 if gone else 1.0, 0.0, 0.0]


def test_a_new_start_forgets_where_the_view_was_turned(walk: Walk) -> None:
    play_until(walk, lambda: walk.frame.index >= 4)
    walk.update(Intent(look_dx_rad=0.2), time.perf_counter())
    walk.reset()
    assert not walk.live_turn_rad.any()
    play_until(walk, lambda: walk.frame.index >= 8)
    assert not walk.live_turn_rad.any()


def test_the_arrow_keys_turn_the_view_before_the_model_answers(walk: Walk, session: InstantSession) -> None:
    session.stall.clear()
    try:
        walk.update(Intent(yaw=1.0), time.perf_counter())
        time.sleep(0.02)
        walk.update(Intent(yaw=1.0), time.perf_counter())
        assert walk.frame.index == 0
        assert walk.live_turn_rad[0] > 0.0
        assert walk.live_poses is not None
        frame, live = walk.live_poses
        np.testing.assert_array_equal(frame, session.world.c2w)
        turn = frame[:3, :3].T @ live[:3, :3]
        assert np.arccos((np.trace(turn) - 1) / 2) == pytest.approx(walk.live_turn_rad[0], abs=1e-6)
    finally:
        session.stall.set()
    play_until(walk, lambda: walk.frame.index >= 8 and not walk.live_turn_rad.any())


def test_a_recording_started_late_holds_the_walk_from_its_first_step(
    walk: Walk, session: InstantSession, tmp_path: Path
) -> None:
    play_until(walk, lambda: walk.recorder.num_chunks >= 3, Intent(forward=1.0, look_dx_rad=0.001))
    walk.start_recording(tmp_path / "walk.flaneur")
    play_until(walk, lambda: walk.recorder.num_chunks >= 5)
    assert walk.recorder.stop() == tmp_path / "walk.flaneur"
    recording = read_recording(tmp_path / "walk.flaneur")
    assert recording.complete
    assert len(recording.chunks) >= 5
    assert recording.header.seed == 3
    for chunk, track in zip(recording.chunks, session.tracks, strict=False):
        assert (chunk.track.c2w == track.c2w).all()
        assert (chunk.track.intrinsics == track.intrinsics).all()
        assert chunk.track.latched_s == track.latched_s
        assert chunk.intents.shape == (1, 11)
    assert recording.chunks[1].intents[0, 1] == 1.0


def test_reset_begins_again_at_the_first_frame_and_pose(walk: Walk, session: InstantSession) -> None:
    play_until(walk, lambda: walk.frame.index >= 8, Intent(forward=1.0))
    walk.reset()
    assert walk.frame.index == 0
    play_until(walk, lambda: walk.recorder.num_chunks >= 2)
    assert session.tracks[0].c2w[0] == pytest.approx(session.world.c2w)
    assert walk.recorder.num_chunks < 5


def test_a_paused_walk_holds_its_frame_and_then_goes_on(walk: Walk) -> None:
    play_until(walk, lambda: walk.frame.index >= 4)
    walk.pause()
    held = walk.frame.index
    for _ in range(50):
        walk.update(IDLE, time.perf_counter())
        time.sleep(0.002)
    assert walk.frame.index == held
    walk.resume()
    play_until(walk, lambda: walk.frame.index > held + 4)


def test_an_engine_that_fails_says_so_and_a_reset_brings_the_walk_back(
    walk: Walk, session: InstantSession
) -> None:
    session.fail_at = 3
    with pytest.raises(RolloutDiverged, match="fell apart"):
        play_until(walk, lambda: False)
    session.fail_at = None
    walk.reset()
    play_until(walk, lambda: walk.frame.index >= 16)


def test_closing_a_walk_closes_its_session(session: InstantSession) -> None:
    walk = Walk(session, rig_planner(session), 0, time.perf_counter)
    assert walk.close()
    assert session.closed


def test_a_replay_follows_its_track_and_holds_its_last_frame(session: InstantSession) -> None:
    c2w = np.tile(session.world.c2w, (11, 1, 1))
    c2w[:, 0, 3] += np.linspace(0.0, 1.0, 11)
    planner = track_planner(session, Track(c2w, fps=64.0))
    assert planner.num_chunks == 3
    walk = Walk(session, planner, 0, time.perf_counter)
    try:
        play_until(walk, lambda: walk.progress == 1.0, Intent(forward=1.0))
        assert walk.frame.index == 12
        assert walk.frame.c2w == pytest.approx(c2w[-1])
        assert not walk.update(IDLE, time.perf_counter())
    finally:
        walk.close()


def test_a_track_planner_repeats_its_last_chunk_for_whoever_asks_for_more() -> None:
    track = CameraTrack(np.tile(np.eye(4), (4, 1, 1)), np.ones((4, 4), np.float32))
    planner = TrackPlanner([track])
    assert planner.plan(IDLE, 1).c2w is track.c2w
    assert planner.plan(IDLE, 2).c2w is track.c2w


def test_a_recording_that_cannot_be_made_leaves_the_walk_alone(walk: Walk, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot record"):
        walk.start_recording(tmp_path / "missing" / "walk.flaneur")
    assert walk.recorder.path is None
    play_until(walk, lambda: walk.frame.index >= 4)


def test_a_recorder_without_a_recording_has_nothing_to_stop() -> None:
    assert WalkRecorder().stop() is None


def test_the_figures_are_those_of_the_walk(walk: Walk) -> None:
    play_until(walk, lambda: walk.frame.index >= 12)
    walk.update(Intent(forward=1.0), time.perf_counter())
    play_until(walk, lambda: walk.frame.index >= 24, Intent(forward=1.0))
    walk.note_shown(time.perf_counter(), reprojecting=True)
    assert walk.statistics.latency.model.count == 1
    statistics = read_metrics(walk, client_ms=1.5, reprojecting=True)
    assert statistics.seed == 3
    assert statistics.chunk_ms_p95 >= statistics.chunk_ms_p50 > 0.0
    assert statistics.realtime_factor > 1.0
    assert (statistics.model.count, statistics.warped.count) == (1, 0)
    assert (statistics.num_steps, statistics.most_steps) == (1, 1)
    assert statistics.fps_shown > 0.0
