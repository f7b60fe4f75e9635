"""A walk on an engine that is too slow is made with fewer steps, says so, and still replays bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.camera.planner import TrackPlanner, rig_planner
from client.input.controls import IDLE, Intent
from client.playback.pacing_replay import replay_pacing
from client.playback.trace import ChunkLine, StepsLine, TraceWriter, read_trace
from client.playback.walk import Walk
from client.ui.metrics import metric_lines, read_metrics
from engine.files.bundle import Bundle
from engine.files.recording import read_recording
from engine.files.world import World
from engine.session.opening import open_session
from engine.session.protocol import Session
from engine.types import CameraTrack, LatentChunk
from tests.replays import verify_replay

PATIENCE_S = 30.0


class Throttle:
    """Makes every denoising step of a session take longer."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step_s = 0.0
        denoise = session.denoise

        def throttled(track: CameraTrack) -> LatentChunk:
            before_s = time.perf_counter()
            chunk = denoise(track)
            wait_s = self.step_s * (track.num_steps or session.num_steps)
            time.sleep(max(0.0, wait_s - (time.perf_counter() - before_s)))
            # The time counts as denoising, as it would on a slower machine.
            late_s = time.perf_counter() - before_s
            times = {"denoised_s": chunk.denoised_s + late_s, "committed_s": chunk.committed_s + late_s}
            return replace(chunk, **times)

        monkeypatch.setattr(session, "denoise", throttled)


@pytest.fixture
def session(toy_bundle: Bundle, toy_world: World) -> Session:
    session = open_session(toy_world, toy_bundle)
    session.fps = 32.0
    return session


def play_until(walk: Walk, done: Callable[[], bool], intent: Intent) -> None:
    deadline_s = time.perf_counter() + PATIENCE_S
    while not done():
        assert time.perf_counter() < deadline_s, "waited in vain"
        walk.update(intent, time.perf_counter())
        walk.note_shown(time.perf_counter(), reprojecting=True)
        time.sleep(0.004)


def steps_line(walk: Walk) -> str:
    lines = metric_lines(read_metrics(walk, client_ms=1.0, reprojecting=True))
    return next(value for _, label, value in lines if label == "steps")


def test_steps_go_and_come_with_the_engines_speed_and_the_recording_verifies(
    session: Session,
    toy_bundle: Bundle,
    toy_world: World,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    throttle = Throttle(session, monkeypatch)
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    walk.statistics.start_trace(TraceWriter(tmp_path / "walk.jsonl"))
    controller = walk.statistics.controller
    try:
        walk.start_recording(tmp_path / "walk.flaneur")
        play_until(walk, lambda: walk.recorder.num_chunks >= 4, Intent(forward=1.0))
        assert steps_line(walk) == "4 of 4"
        throttle.step_s = 0.045
        play_until(walk, lambda: controller.num_steps <= 2, Intent(yaw=1.0))
        lowered_at = walk.recorder.num_chunks
        play_until(walk, lambda: walk.recorder.num_chunks >= lowered_at + 4, Intent(yaw=1.0))
        assert steps_line(walk) == f"{controller.num_steps} of 4, to keep time"
        throttle.step_s = 0.0
        play_until(walk, lambda: not controller.lowered, Intent(forward=1.0, yaw=-0.5))
        assert walk.recorder.stop() is not None
    finally:
        walk.close()
    recording = read_recording(tmp_path / "walk.flaneur")
    steps = [chunk.track.num_steps for chunk in recording.chunks]
    assert steps[0] is None
    assert {1, 2} & set(steps)
    lines = list(read_trace(tmp_path / "walk.jsonl"))
    traced = [line.num_steps for line in lines if isinstance(line, ChunkLine)]
    assert traced[: len(steps)] == [count or 4 for count in steps]
    assert sum(isinstance(line, StepsLine) for line in lines) >= 2
    assert verify_replay(recording, open_session(toy_world, toy_bundle)).identical
    (paced,) = replay_pacing(lines)
    assert paced.counts == paced.traced


def test_a_replay_keeps_the_steps_of_its_recording_however_slow_it_is(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = rig_planner(session).plan(IDLE, 1)
    tracks = [
        CameraTrack(track.c2w, track.intrinsics, num_steps=count) for count in (None, 3, 1, 4, 2, 4, 4, 4)
    ]
    made: list[int | None] = []
    denoise = session.denoise

    def noting(track: CameraTrack) -> LatentChunk:
        made.append(track.num_steps)
        time.sleep(0.15)
        return denoise(track)

    monkeypatch.setattr(session, "denoise", noting)
    walk = Walk(session, TrackPlanner(tracks), 3, time.perf_counter)
    try:
        play_until(walk, lambda: walk.progress == 1.0, IDLE)
    finally:
        walk.close()
    assert made == [None, 3, 1, 4, 2, 4, 4, 4]
    assert not walk.statistics.controller.lowered
