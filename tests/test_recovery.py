"""A world that falls apart ends no walk: it goes on from what was whole, and says so."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest

from engine.errors import RolloutDiverged
from engine.files.bundle import Bundle
from engine.files.recording import read_recording
from engine.files.world import World
from engine.session import model_session
from engine.session.holodeck_session import HolodeckSession
from engine.session.opening import open_session
from engine.types import CameraTrack, LatentChunk, Snapshot
from tests.player import Player

FELL = RolloutDiverged("the world fell apart in chunk 7: not all of its latents is finite; reset it")
Falls = Callable[[HolodeckSession], bool]


def let_fall(monkeypatch: pytest.MonkeyPatch, falls: Falls) -> None:
    """Make chunks fall apart where a test wants it."""
    denoise = HolodeckSession.denoise

    def denoise_or_fall(session: HolodeckSession, track: CameraTrack) -> LatentChunk:
        if falls(session):
            raise FELL
        return denoise(session, track)

    monkeypatch.setattr(HolodeckSession, "denoise", denoise_or_fall)


def texts(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


def test_a_walk_goes_on_from_the_last_whole_chunk_with_its_recordings(
    player: Player, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    walk = player.walk.walk
    player.key(pygame.KSCAN_F10)
    first = walk.recorder.path
    assert first is not None
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(8)
    fell: list[int] = []

    def once(session: HolodeckSession) -> bool:
        if fell:
            return False
        fell.append(session.next_chunk_index - 1)
        return True

    let_fall(monkeypatch, once)
    player.wait(lambda: "The model diverged" in texts(player), "the fall")
    assert not player.walk._menus.is_open
    assert walk.recorder.num_chunks == fell[0], "no whole chunk is lost"
    player.frames_go_by(12)
    assert walk.history.name == 2
    second = walk.recorder.path
    player.key(pygame.KSCAN_F10)
    for file in (first, second):
        assert file is not None
        assert read_recording(file).complete


def test_a_memory_that_was_spoilt_before_it_showed_is_gone_behind(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, spoilt = player.walk.walk, []
    restore = HolodeckSession.restore

    def falls(session: HolodeckSession) -> bool:
        if session.next_chunk_index == 4 and not spoilt:
            spoilt.append(True)
        return bool(spoilt) and spoilt[-1] and session.next_chunk_index >= 7

    def restore_and_note(session: HolodeckSession, snapshot: Snapshot) -> None:
        spoilt.append(snapshot.chunk_index > 4)
        restore(session, snapshot)

    monkeypatch.setattr(HolodeckSession, "restore", restore_and_note)
    let_fall(monkeypatch, falls)
    player.wait(lambda: walk.recorder.num_chunks >= 12, "the walk to go on")
    assert spoilt.count(True) >= 2
    assert spoilt[-1] is False
    assert not player.walk._menus.is_open


def test_a_world_that_falls_apart_from_its_beginning_is_explained(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_fall(monkeypatch, lambda session: session.next_chunk_index >= 3)
    player.wait(lambda: player.walk._menus.broken, "the explanation")
    menu = player.walk._menus.top
    assert menu is not None
    assert "fell apart" in menu.text


def test_a_walk_that_keeps_no_moments_begins_again(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, fell = player.walk.walk, []
    player.frames_go_by(8)
    walk.session.keep_snapshots = False
    # The chunks that were under way still bring their moments.
    player.frames_go_by(4 * walk.session.frames_per_chunk)
    walk.history.clear()

    def once(_: HolodeckSession) -> bool:
        fell.append(True)
        return len(fell) == 1

    let_fall(monkeypatch, once)
    player.wait(lambda: "the walk begins again" in texts(player), "the fall")
    player.frames_go_by(8)


def test_no_moment_is_kept_whose_memory_is_not_finite(
    toy_bundle: Bundle, toy_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(toy_world, toy_bundle, denoise_threads=1)
    session.keep_snapshots = True
    session.reset(0)
    track = CameraTrack(np.tile(toy_world.c2w, (4, 1, 1)), np.tile(toy_world.intrinsics, (4, 1)))
    session.step(track)
    assert isinstance(session, model_session.ModelSession)
    to_arrays = session._backend.to_arrays

    def spoil(state: Any) -> dict[str, Any]:
        arrays = {name: array.copy() for name, array in to_arrays(state).items()}
        arrays["memory"].flat[0] = np.inf
        return arrays

    monkeypatch.setattr(session._backend, "to_arrays", spoil)
    with pytest.raises(RolloutDiverged, match="not all of its memory is finite"):
        session.denoise(track)
