"""While the walk stands still its keys work, or say what comes first; none is silent."""

import time
from pathlib import Path

import pygame
import pytest

from client.input.actions import ACTIONS
from client.input.controls import MOVING
from client.screens.walk_actions import IN_PAUSE
from tests.player import Player

ANSWERED_ANYWHERE = {"full_screen", "pause"}


def texts(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


@pytest.fixture
def paused(player: Player) -> Player:
    player.frames_go_by(12)
    player.key(pygame.KSCAN_P)
    assert player.walk.walk.paused
    player.context.toasts.clear()
    player.post(pygame.WINDOWEXPOSED)
    return player


def test_saving_and_loading_work_in_the_pause_and_leave_it_open(paused: Player) -> None:
    walk = paused.walk.walk
    paused.key(pygame.KSCAN_F5)
    paused.wait(lambda: "Saved at" in texts(paused), "the save")
    paused.key(pygame.KSCAN_F9)
    paused.wait(lambda: "as saved" in texts(paused), "the load")
    assert walk.paused
    assert walk.history.name == 2
    paused.key(pygame.KSCAN_P)
    assert not walk.paused
    paused.frames_go_by(4)


def test_a_clip_a_photo_and_a_recording_can_be_kept_in_the_pause(paused: Player, tmp_path: Path) -> None:
    paused.key(pygame.KSCAN_F8)
    paused.key(pygame.KSCAN_F12)
    paused.key(pygame.KSCAN_F10)
    paused.wait(lambda: "recording beside it" in texts(paused), "the clip")
    paused.wait_for_files()
    assert paused.walk.walk.recorder.path is not None
    kept = {file.suffix for file in (tmp_path / "pictures").iterdir()}
    assert kept == {".mp4", ".flaneur", ".png"}
    assert paused.walk.walk.paused


def test_the_help_lies_over_the_pause_and_any_key_returns_to_it(paused: Player) -> None:
    menu = pygame.surfarray.array3d(paused.window.surface)
    paused.key(pygame.KSCAN_F1)
    helped = pygame.surfarray.array3d(paused.window.surface)
    assert (helped != menu).any()
    paused.key(pygame.KSCAN_ESCAPE)
    assert paused.walk.walk.paused, "the first Esc closes the help alone"
    assert (pygame.surfarray.array3d(paused.window.surface) == menu).all()
    paused.key(pygame.KSCAN_ESCAPE)
    assert not paused.walk.walk.paused


def test_every_other_key_says_in_the_pause_what_comes_first(paused: Player) -> None:
    for action in ACTIONS:
        if action.name in MOVING | IN_PAUSE | ANSWERED_ANYWHERE:
            continue
        paused.context.toasts.clear()
        paused.key(action.keys[0])
        assert texts(paused) == f"{action.label[:1].upper()}{action.label[1:]}: go on with P first."
    assert paused.walk.walk.paused


@pytest.mark.parametrize(
    ("hold", "first"),
    [(pygame.KSCAN_O, "go on with O first"), (pygame.KSCAN_R, "let R go first")],
)
def test_a_new_world_or_a_branch_waits_until_the_walk_goes_on_and_says_so(
    player: Player, hold: int, first: str
) -> None:
    player.frames_go_by(16)
    player.key(hold, down=True)
    for scancode in (pygame.KSCAN_F6, pygame.KSCAN_B):
        player.context.toasts.clear()
        player.key(scancode)
        assert first in texts(player)
    player.key(hold, down=False)


def test_an_engine_that_dies_behind_the_help_is_explained(
    paused: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise OSError("device lost")

    paused.key(pygame.KSCAN_F1)
    monkeypatch.setattr(paused.walk.walk, "update", fail)
    paused.app.turn()
    assert paused.walk._menus.broken
    assert not paused.walk._help.is_open
