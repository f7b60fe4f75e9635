"""What a new user trips over first: versions, short options, questions before losses, words of files and tracks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pygame
import pytest

import cli.app
from client.screens.start_screen import StartScreen
from client.setup.opening import check_options
from client.setup.options import PlayOptions
from engine.machine import assets
from engine.machine.doctor import check_own_worlds
from engine.machine.installing import app_version
from tests.player import Player, make_world

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def flaneur(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        status = cli.app.run(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_version_is_asked_as_of_any_program(flaneur: Run) -> None:
    assert flaneur("--version") == (0, f"flaneur {app_version()}\n", "")


@pytest.mark.parametrize("words", [(), ("play",), ("world",), ("world", "rename"), ("describe",)])
def test_help_has_a_short_name_everywhere(flaneur: Run, words: tuple[str, ...]) -> None:
    assert flaneur(*words, "-h") == flaneur(*words, "--help")


def test_the_first_help_brings_no_library_along_that_takes_long_to_load() -> None:
    code = "import sys, cli.app; cli.app.run(['--help']); print(sorted({'numpy', 'pydantic', 'pygame', 'cv2'} & {*sys.modules}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_a_world_file_is_described(flaneur: Run, tmp_path: Path) -> None:
    status, out, _ = flaneur("describe", str(make_world(tmp_path, "town")))
    assert status == 0
    assert "40 x 24 px" in out
    assert "Apache-2.0" in out


def test_doctor_counts_worlds_of_ones_own_and_says_how_to_be_rid_of_a_damaged_one(tmp_path: Path) -> None:
    assert "none yet" in check_own_worlds(tmp_path / "absent").detail
    make_world(tmp_path, "town")
    assert check_own_worlds(tmp_path).detail == f"1 in {tmp_path}"
    (tmp_path / "my walk.world").write_bytes(b"no world")
    check = check_own_worlds(tmp_path)
    assert check.status == "missing"
    assert check.detail.startswith(f"2 in {tmp_path}, 1 damaged: ")
    assert check.remedy == "delete it with `flaneur world delete 'my walk'`"
    assert check_own_worlds(None).remedy


def test_a_track_says_which_world_it_is_walked_in(flaneur: Run, tmp_path: Path) -> None:
    track, frames = tmp_path / "poses.npy", tmp_path / "o.npz"
    np.save(track, np.tile(np.eye(4), (5, 1, 1)))
    status, _, err = flaneur("replay", str(track), "--backend", "holodeck", "--frames", str(frames))
    first = sorted(assets.worlds_dir().glob("*.world"))[0].stem
    assert (status, err.splitlines()[0]) == (
        0,
        f"the track is walked in the world {first}; --world names another",
    )
    check_options(PlayOptions(replay=track), [assets.worlds_dir()])


@pytest.mark.parametrize(("button", "line"), [("settings", "All as at first"), ("keys", "All as at first")])
def test_setting_everything_back_asks_first(
    play: Callable[..., Player], worlds: Path, button: str, line: str
) -> None:
    player = play(PlayOptions(backend="holodeck"), [worlds])
    context = player.context
    changed = {"pace": 2.0, "keys": {"photo": (pygame.KSCAN_Y,)}}
    context.apply_settings(context.settings.model_copy(update=changed))
    start = player.app.screen
    assert isinstance(start, StartScreen)
    (start._menus.open_settings if button == "settings" else start._menus.open_keys)()
    menu = start._menus.top
    assert menu is not None
    menu.chosen = [choice.label for choice in menu.choices].index(line)
    player.key(pygame.KSCAN_RETURN)
    player.key(pygame.KSCAN_RETURN)
    assert start._menus.top is menu
    assert (context.settings.pace, bool(context.settings.keys)) == (2.0, True)
    player.key(pygame.KSCAN_RETURN)
    player.key(pygame.KSCAN_DOWN)
    player.key(pygame.KSCAN_RETURN)
    expected = (1.0, True) if button == "settings" else (2.0, False)
    assert (context.settings.pace, bool(context.settings.keys)) == expected
    player.app.draw(0.0)
