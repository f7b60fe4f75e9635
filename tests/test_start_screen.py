"""The start screen offers worlds, engines and settings, and says what cannot be had and why."""

import time
from collections.abc import Callable
from pathlib import Path

import pygame
import pytest

from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.screens.world_menu import WorldMenu
from client.setup import catalog
from client.setup.catalog import EngineChoice, EngineSurvey, WorldChoice, engine_choices
from client.setup.options import PlayOptions
from client.ui.menu import Choice
from client.ui.theme import Theme, scale_for
from engine.machine.assets import assets_dir
from tests.player import Player


def start_of(player: Player) -> StartScreen:
    assert isinstance(player.app.screen, StartScreen)
    return player.app.screen


def pick_button(player: Player, key: str) -> None:
    for _ in range(10):
        if start_of(player)._menu.key is not None:
            break
        player.key(pygame.KSCAN_DOWN)
    for _ in range(10):
        if start_of(player)._menu.key == key:
            player.key(pygame.KSCAN_RETURN)
            return
        player.key(pygame.KSCAN_RIGHT)
    raise AssertionError(f"there is no button {key}")


def test_another_engine_is_chosen_with_the_keyboard_and_walked_with(
    play: Callable[..., Player], worlds: Path
) -> None:
    player = play(PlayOptions(), [worlds])
    choices = start_of(player)._menu.worlds
    assert {menu.model for menu in choices} == {"made for a model that is not installed"}
    pick_button(player, "engine")
    player.context.survey().join(30.0)
    player.app.turn()
    menu = start_of(player)._menus.top
    assert menu is not None
    engines = ["auto", "onnxruntime", "torch", "tensorrt", "holodeck"]
    assert [choice.key for choice in menu.choices][:5] == engines
    menu.chosen = 4
    player.key(pygame.KSCAN_RETURN)
    assert player.context.options.backend == "holodeck"
    assert not start_of(player)._menus.is_open
    assert {menu.model for menu in start_of(player)._menu.worlds} == {"rendered exactly, no model"}
    player.key(pygame.KSCAN_UP)
    player.key(pygame.KSCAN_RETURN)
    player.wait_for(WalkScreen)
    assert player.walk.walk.session.backend == "holodeck"


def test_an_engine_that_cannot_be_had_says_why_and_is_not_taken(
    play: Callable[..., Player], worlds: Path
) -> None:
    player = play(PlayOptions(backend="holodeck"), [worlds])
    reason = "Cannot be had: no device."
    player.context._survey = EngineSurvey(lambda: (EngineChoice("tensorrt", reason, False),))
    player.context.survey().join(30.0)
    pick_button(player, "engine")
    player.key(pygame.KSCAN_UP)
    player.key(pygame.KSCAN_UP)
    menu = start_of(player)._menus.top
    assert menu is not None
    assert menu.key == "tensorrt"
    assert menu.choices[menu.chosen].note == reason
    player.key(pygame.KSCAN_RETURN)
    assert player.context.options.backend == "holodeck"
    assert reason in player.context.toasts.texts(time.perf_counter())


def test_the_engines_card_fills_itself_once_the_machine_has_answered(
    play: Callable[..., Player], worlds: Path
) -> None:
    player = play(PlayOptions(backend="holodeck"), [worlds])
    answers = iter([False])

    def slow() -> tuple[EngineChoice, ...]:
        while next(answers, None) is not None or waiting:
            time.sleep(0.001)
        return (EngineChoice("holodeck", "drawn", True),)

    waiting = [True]
    player.context._survey = EngineSurvey(slow)
    pick_button(player, "engine")
    menu = start_of(player)._menus.top
    assert menu is not None
    assert [choice.key for choice in menu.choices] == ["resume"]
    waiting.clear()
    player.context.survey().join(30.0)
    player.app.turn()
    menu = start_of(player)._menus.top
    assert menu is not None
    assert menu.key == "holodeck"


def test_settings_and_keys_are_reached_before_any_walk(play: Callable[..., Player], worlds: Path) -> None:
    player = play(PlayOptions(backend="holodeck"), [worlds])
    pick_button(player, "settings")
    menu = start_of(player)._menus.top
    assert menu is not None
    assert menu.key == "pace"
    player.key(pygame.KSCAN_RIGHT)
    assert player.context.settings.pace == pytest.approx(1.25)
    player.key(pygame.KSCAN_ESCAPE)
    assert not start_of(player)._menus.is_open
    pick_button(player, "quit")
    assert not player.context.running


def test_this_machine_is_asked_what_each_engine_can_do() -> None:
    choices = {choice.backend: choice for choice in engine_choices()}
    assert list(choices) == ["auto", "onnxruntime", "torch", "tensorrt", "holodeck"]
    assert choices["holodeck"].available
    assert choices["onnxruntime"].available
    assert "pocket" in choices["onnxruntime"].detail
    assert choices["tensorrt"].detail.startswith(
        "Runs on" if choices["tensorrt"].available else "Cannot be had: "
    )


def test_a_missing_runtime_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog.doctor, "installed_version", lambda module, name: None)
    choices = {choice.backend: choice for choice in engine_choices()}
    assert not choices["onnxruntime"].available
    assert "pip install onnxruntime" in choices["onnxruntime"].detail


@pytest.mark.parametrize(
    "size", [(320, 192), (640, 384), (1280, 768), (800, 1200), (1600, 400), (3840, 2160)]
)
def test_every_world_is_told_about_in_full(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pygame.font.init()
    look, target = Theme(scale_for(*size), assets_dir() / "fonts"), pygame.Surface(size)
    drawn: list[str] = []
    text = look.text

    def noting(line: str, *args: object, **named: object) -> pygame.Surface:
        drawn.append(line)
        return text(line, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(look, "text", noting)
    note = "A crossroads between dark towers at night, windows lit amber, cyan and magenta, neon signs, a huge moon."
    menu = WorldMenu(
        [WorldChoice("a", "Night City", note, None, model="generated by pocket")], [Choice("quit", "Quit")]
    )
    menu.draw(target, look)
    shown = " ".join(drawn)
    assert "Night City" in shown
    assert "generated by pocket" in shown
    assert note in shown
    assert "..." not in shown


def test_where_nothing_was_saved_there_is_nothing_to_go_on_with(
    play: Callable[..., Player], worlds: Path
) -> None:
    menu = start_of(play(PlayOptions(backend="holodeck"), [worlds]))._menu
    assert menu.buttons[0].key == "engine"


def test_the_walk_that_was_saved_last_goes_on_from_the_start_screen(
    player: Player, play: Callable[..., Player], worlds: Path
) -> None:
    player.frames_go_by(12)
    player.key(pygame.KSCAN_F5)
    player.wait_for_files()
    world = player.walk.walk.session.world
    saved_at = player.walk.walk.frame.index
    player.close()
    again = play(PlayOptions(backend="holodeck"), [worlds])
    (button,) = [button for button in start_of(again)._menu.buttons if button.key == "continue"]
    assert button.value == world.title
    pick_button(again, "continue")
    again.wait_for(WalkScreen)
    walk = again.walk.walk
    again.wait(lambda: walk.history.name == 2, "the saved walk")
    assert walk.session.world.name == world.name
    assert walk.frame.index >= saved_at - 4
