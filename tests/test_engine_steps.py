"""Chunks made with fewer denoising steps are other chunks, and a replay makes them with as many again."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.app import run
from engine.files.bundle import Bundle
from engine.files.recording import Recording, read_recording
from engine.files.recording_writer import RecordingWriter
from engine.files.world import World, read_world, write_world
from engine.machine import assets
from engine.session.headless import run_headless
from engine.session.opening import open_session
from engine.session.protocol import Session
from engine.session.replay import header_for
from engine.types import CameraTrack
from tests.replays import verify_replay

STEPS = [None, 4, 2, 1, 1, 3]


def cameras(session: Session, index: int, num_steps: int | None) -> CameraTrack:
    c2w = np.tile(session.world.c2w, (session.frames_per_chunk, 1, 1))
    c2w[:, 0, 3] += 0.02 * (session.frames_per_chunk * index + 1 + np.arange(session.frames_per_chunk))
    intrinsics = np.tile(session.world.intrinsics, (session.frames_per_chunk, 1))
    return CameraTrack(c2w, intrinsics, num_steps=num_steps)


def hashes(session: Session, steps: list[int | None]) -> list[str]:
    session.reset(5)
    return [session.denoise(cameras(session, index, count)).sha256 for index, count in enumerate(steps)]


def record(session: Session, path: Path) -> Recording:
    session.reset(5)
    with RecordingWriter(path, header_for(session, "current")) as writer:
        for index, count in enumerate(STEPS):
            track = cameras(session, index, count)
            writer.append(track, session.denoise(track).sha256)
    return read_recording(path)


@pytest.fixture
def session(toy_bundle: Bundle, toy_world: World) -> Session:
    return open_session(toy_world, toy_bundle)


def test_the_number_of_steps_changes_a_chunk_and_those_after_it(session: Session) -> None:
    assert session.num_steps == 4
    whole = hashes(session, [None, None, None])
    assert hashes(session, [4, 4, 4]) == whole
    fewer = hashes(session, [None, 2, None])
    assert fewer[0] == whole[0]
    assert fewer[1] != whole[1]
    assert fewer[2] != whole[2]
    assert hashes(session, [None, 2, None]) == fewer


def test_steps_that_the_schedule_does_not_have_are_refused(session: Session) -> None:
    session.reset(0)
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"with 1 to 4 steps, {count} were asked for"):
            session.denoise(cameras(session, 0, count))


def test_a_recording_of_changing_steps_verifies_and_one_that_lost_them_does_not(
    session: Session, tmp_path: Path
) -> None:
    recording = record(session, tmp_path / "walk.flaneur")
    assert [chunk.track.num_steps for chunk in recording.chunks] == STEPS
    assert verify_replay(recording, session).identical
    forgotten = [replace(chunk, track=replace(chunk.track, num_steps=None)) for chunk in recording.chunks]
    report = verify_replay(replace(recording, chunks=tuple(forgotten)), session)
    assert report.first_different == 2


def test_a_headless_walk_takes_the_steps_it_is_given(session: Session) -> None:
    parts = [cameras(session, index, None) for index in range(3)]
    start = session.world.c2w[None]
    track = CameraTrack(
        np.concatenate([start, *(part.c2w for part in parts)]),
        np.tile(session.world.intrinsics, (13, 1)),
    )
    report = run_headless(session, track, 3, 5, num_steps=[4, 1])
    assert report.latents_sha256 == hashes(session, [4, 1, None])
    assert report.latents_sha256 != run_headless(session, track, 3, 5).latents_sha256


def test_the_command_verifies_a_recording_of_changing_steps(
    toy_world: World,
    toy_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = tmp_path / "toy.world"
    write_world(world, toy_world)
    monkeypatch.setattr(assets, "worlds_dir", lambda: tmp_path)
    with closing(open_session(read_world(world), toy_bundle)) as opened:
        record(opened, tmp_path / "walk.flaneur")
    arguments = ["replay", str(tmp_path / "walk.flaneur"), "--verify", "--json"]
    assert run([*arguments, "--engine", str(toy_bundle.path)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["identical"] is True
