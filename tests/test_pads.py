"""A gamepad alone is enough: SDL makes one up, and everything behind it is the real path of a device."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pygame
import pytest

from client.input.controls import Intent
from client.screens.menus import KeysMenu
from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from tests.player import Player, VirtualPad

STICK_X, STICK_Y = pygame.CONTROLLER_AXIS_LEFTX, pygame.CONTROLLER_AXIS_LEFTY
LOOK_X, LOOK_Y = pygame.CONTROLLER_AXIS_RIGHTX, pygame.CONTROLLER_AXIS_RIGHTY
TRIGGERS = pygame.CONTROLLER_AXIS_TRIGGERLEFT, pygame.CONTROLLER_AXIS_TRIGGERRIGHT
A, B, START = pygame.CONTROLLER_BUTTON_A, pygame.CONTROLLER_BUTTON_B, pygame.CONTROLLER_BUTTON_START
UP, DOWN = pygame.CONTROLLER_BUTTON_DPAD_UP, pygame.CONTROLLER_BUTTON_DPAD_DOWN


def press(player: Player, pad: VirtualPad, button: int) -> None:
    """Press a button and let it go, each seen by the application."""
    for down in (True, False):
        pad.hold(button, down)
        # SDL polls its devices while events are fetched, so what was set is seen one turn later.
        player.app.turn()
        player.app.turn()


def flick(player: Player, pad: VirtualPad, axis: int, value: float) -> None:
    for position in (value, 0.0):
        pad.push(axis, position)
        player.app.turn()
        player.app.turn()


def intent_of(player: Player) -> Intent:
    player.app.turn()
    player.app.turn()
    return player.context.read_intent()


def choose(player: Player, pad: VirtualPad, key: str) -> None:
    """Go down the open menu to a line and pick it."""
    for _ in range(40):
        menu = player.walk._menus.top
        assert menu is not None
        if menu.key == key:
            press(player, pad, A)
            return
        press(player, pad, DOWN)
    raise AssertionError(f"the menu has no line {key}")


def test_a_gamepad_alone_starts_walks_changes_settings_and_quits(
    play: Callable[..., Player], pad: VirtualPad, worlds: Path, tmp_path: Path
) -> None:
    player = play(PlayOptions(backend="holodeck"), [worlds])
    pad.plug_in()
    player.app.turn()
    assert any("is ready" in text for text in player.context.toasts.texts(time.perf_counter()))
    flick(player, pad, STICK_X, 1.0)
    press(player, pad, A)
    player.wait_for(WalkScreen)
    walk = player.walk.walk
    assert walk.session.world.path == sorted(worlds.glob("*.world"))[1]
    pad.push(STICK_Y, -1.0)
    player.frames_go_by(8)
    pad.push(STICK_Y, 0.0)
    ahead = walk.frame.c2w[:3, 3] - walk.session.world.c2w[:3, 3]
    assert np.linalg.norm(ahead) > 0.1
    press(player, pad, START)
    assert walk.paused
    choose(player, pad, "do:quick_save")
    assert not walk.paused
    saves = tmp_path / "pictures"
    player.wait(lambda: any(file.is_file() for file in saves.rglob("*")), "the save")
    press(player, pad, START)
    choose(player, pad, "settings")
    choose(player, pad, "invert_y")
    assert player.context.settings.invert_y
    choose(player, pad, "keys")
    assert isinstance(player.walk._menus.top, KeysMenu)
    press(player, pad, A)
    assert player.walk._menus.top.waiting
    press(player, pad, B)
    assert not player.walk._menus.top.waiting
    for _ in range(3):
        press(player, pad, B)
    assert not walk.paused
    press(player, pad, B)
    assert walk.paused
    choose(player, pad, "worlds")
    player.wait_for(StartScreen)
    press(player, pad, B)
    assert not player.context.running


def test_every_stick_trigger_and_shoulder_has_its_axis(player: Player, pad: VirtualPad) -> None:
    pad.plug_in()
    player.app.turn()
    assert intent_of(player).is_idle
    for axis, value, name, expected in (
        (STICK_X, 1.0, "strafe", 1.0),
        (STICK_Y, -1.0, "forward", 1.0),
        (LOOK_X, -1.0, "yaw", -1.0),
        (LOOK_Y, -1.0, "pitch", 1.0),
        (TRIGGERS[0], 1.0, "rise", -1.0),
        (TRIGGERS[1], 1.0, "rise", 1.0),
    ):
        pad.push(axis, value)
        assert getattr(intent_of(player), name) == pytest.approx(expected, abs=1e-3)
        pad.push(axis, -1.0 if axis in TRIGGERS else 0.0)
        assert intent_of(player).is_idle
    for button, name, expected in (
        (pygame.CONTROLLER_BUTTON_LEFTSHOULDER, "roll", -1.0),
        (pygame.CONTROLLER_BUTTON_RIGHTSHOULDER, "roll", 1.0),
        (A, "run", True),
        (pygame.CONTROLLER_BUTTON_Y, "level", True),
    ):
        pad.hold(button)
        assert getattr(intent_of(player), name) == expected
        pad.hold(button, False)
        assert intent_of(player).is_idle


def test_the_dead_zone_of_the_settings_silences_a_worn_stick(player: Player, pad: VirtualPad) -> None:
    pad.plug_in()
    pad.push(STICK_X, 0.3)
    player.app.turn()
    assert intent_of(player).strafe == pytest.approx(0.15 / 0.85, abs=0.01)
    player.context.apply_settings(player.context.settings.model_copy(update={"dead_zone": 0.35}))
    assert intent_of(player).is_idle


def test_a_gamepad_pulled_out_while_held_stands_still_and_comes_back(player: Player, pad: VirtualPad) -> None:
    pad.plug_in()
    player.app.turn()
    pad.push(STICK_Y, -1.0)
    assert intent_of(player).forward == pytest.approx(1.0, abs=1e-3)
    pad.pull_out()
    assert intent_of(player).is_idle
    assert any("is gone" in text for text in player.context.toasts.texts(time.perf_counter()))
    pad.plug_in()
    player.app.turn()
    pad.push(STICK_Y, -1.0)
    assert intent_of(player).forward == pytest.approx(1.0, abs=1e-3)


def test_without_the_focus_a_held_stick_means_nothing(player: Player, pad: VirtualPad) -> None:
    pad.plug_in()
    player.app.turn()
    pad.push(STICK_Y, -1.0)
    assert not intent_of(player).is_idle
    player.post(pygame.WINDOWFOCUSLOST)
    assert intent_of(player).is_idle
    player.post(pygame.WINDOWFOCUSGAINED)
    assert not intent_of(player).is_idle


def test_a_stick_steps_through_a_menu_once_for_each_push(player: Player, pad: VirtualPad) -> None:
    pad.plug_in()
    player.app.turn()
    press(player, pad, START)
    for position in (0.7, 0.9, 1.0, 0.5, 1.0):
        pad.push(STICK_Y, position)
        player.app.turn()
        player.app.turn()
    menu = player.walk._menus.top
    assert menu is not None
    assert menu.chosen == 1
    flick(player, pad, STICK_Y, 0.0)
    flick(player, pad, STICK_Y, 1.0)
    assert menu.chosen == 2


def test_the_pad_makes_the_walk_faster_and_slower(player: Player, pad: VirtualPad) -> None:
    pad.plug_in()
    player.app.turn()
    press(player, pad, UP)
    assert player.context.settings.pace == pytest.approx(1.25)
    press(player, pad, DOWN)
    assert math.isclose(player.context.settings.pace, 1.0)
