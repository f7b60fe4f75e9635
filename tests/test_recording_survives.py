"""A recording outlives its program and a full disk, and the walk outlives a recording."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pygame
import pytest

from cli.app import run
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from engine.files.recording import read_recording
from engine.machine import assets
from engine.session.opening import open_session
from tests.player import Player
from tests.replays import verify_replay

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0


def test_kill_9_in_mid_record_loses_at_most_the_last_chunk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "walk.flaneur"
    command = [sys.executable, "-m", "cli.app", "play", "town", "--headless", "--chunks", "100000"]
    walking = subprocess.Popen(
        [*command, "--record", str(path)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.perf_counter() + PATIENCE_S
        while not path.exists() or path.stat().st_size < 200_000:
            assert time.perf_counter() < deadline_s, "the walk did not begin"
            assert walking.poll() is None, "the walk ended by itself"
            time.sleep(0.01)
        written = path.stat().st_size
    finally:
        os.kill(walking.pid, signal.SIGKILL)
        walking.wait()
    assert walking.returncode == -signal.SIGKILL
    recording = read_recording(path)
    assert not recording.complete
    # A chunk's record holds its latents, 23 kB: what was on the disk before the kill is all there.
    num_bytes = path.stat().st_size
    assert len(recording.chunks) >= written // (num_bytes // len(recording.chunks) + 1) - 1
    assert len(recording.chunks) >= 6
    assert run(["replay", str(path), "--verify", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["identical"]
    assert told["num_chunks"] == len(recording.chunks)


@contextmanager
def files_no_longer_than(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def texts(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


def test_a_full_disk_stops_the_recording_and_not_the_walk(player: Player, tmp_path: Path) -> None:
    player.frames_go_by(4)
    player.key(pygame.KSCAN_F10)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(4)
    (file,) = (tmp_path / "pictures").glob("*.flaneur")
    with files_no_longer_than(file.stat().st_size + 1500):
        player.wait(lambda: "free some space" in texts(player), "the recording to stop")
        assert player.walk.walk.recorder.path is None
        player.frames_go_by(12)
    recording = read_recording(file)
    assert not recording.complete
    assert len(recording.chunks) >= 2


def test_a_full_disk_at_a_branch_loses_no_chunk_of_the_first_recording(
    player: Player, tmp_path: Path
) -> None:
    player.frames_go_by(4)
    player.key(pygame.KSCAN_F10)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(16)
    (file,) = (tmp_path / "pictures").glob("*.flaneur")
    with files_no_longer_than(400):
        player.key(pygame.KSCAN_R, down=True)
        player.key(pygame.KSCAN_R, down=False)
        assert "free some space" in texts(player)
        player.frames_go_by(8)
    assert [found.name for found in (tmp_path / "pictures").glob("*.flaneur")] == [file.name]
    assert len(read_recording(file).chunks) >= 4


def test_starting_again_ends_a_recording_whole_and_goes_on_in_the_next(
    player: Player, tmp_path: Path
) -> None:
    player.key(pygame.KSCAN_F10)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(12)
    walk = player.walk.walk
    first = walk.recorder.path
    assert first is not None
    player.key(pygame.KSCAN_BACKSPACE)
    second = walk.recorder.path
    assert second is not None
    assert second == first.with_name(f"{first.stem}-2.flaneur")
    assert f"{first.name} is whole; the walk from its beginning is recorded to {second.name}" in texts(player)
    player.frames_go_by(12)
    player.key(pygame.KSCAN_F10)
    assert set((tmp_path / "pictures").glob("*.flaneur")) == {first, second}
    session = open_session(walk.session.world, backend="holodeck")
    for file in (first, second):
        recording = read_recording(file)
        assert recording.complete
        assert len(recording.chunks) >= 2
        assert verify_replay(recording, session).identical


def test_starting_again_before_the_first_step_leaves_no_empty_recording(
    player: Player, tmp_path: Path
) -> None:
    player.walk.restart(0.0)
    player.key(pygame.KSCAN_F10)
    walk = player.walk.walk
    first = walk.recorder.path
    for _ in range(3):
        player.walk.restart(0.0)
    assert walk.recorder.path == first
    assert "The walk from its beginning is recorded to" in texts(player)
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F10)
    assert list((tmp_path / "pictures").glob("*.flaneur")) == [first]


def test_a_window_records_latents_that_are_shown_without_the_generator(
    play: Callable[..., Player], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "walk.flaneur"
    options = PlayOptions(world="town", record=path, record_latents=True)
    player = play(options, [assets.worlds_dir()])
    player.wait_for(WalkScreen)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(10)
    player.key(pygame.KSCAN_F10)
    recording = read_recording(path, with_latents=True)
    assert all(chunk.latents is not None for chunk in recording.chunks)
    assert run(["replay", str(path), "--from-latents", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["latents_sha256"] == [chunk.latents_sha256 for chunk in recording.chunks]
    plain = replace(options, record=tmp_path / "plain.flaneur", record_latents=False)
    player.close()
    player = play(plain, [assets.worlds_dir()])
    player.wait_for(WalkScreen)
    player.frames_go_by(4)
    player.key(pygame.KSCAN_F10)
    assert all(chunk.latents is None for chunk in read_recording(tmp_path / "plain.flaneur", True).chunks)


def test_latents_are_asked_for_with_a_recording_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["play", "town", "--record-latents"]) == 2
    assert "name one with --record" in capsys.readouterr().err
