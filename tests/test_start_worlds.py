"""The start screen lists a player's own worlds and saved walks, which are renamed, deleted and gone on with there."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pygame
import pytest

from client.input.actions import Step
from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.screens.world_grid import WorldGrid
from client.setup.options import PlayOptions
from client.ui.text_entry import Answer, TextEntry
from client.ui.theme import Theme, scale_for
from engine.machine.assets import assets_dir
from tests.player import Player


def start_of(player: Player) -> StartScreen:
    assert isinstance(player.app.screen, StartScreen)
    return player.app.screen


def texts(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


@pytest.fixture
def at_start(play: Callable[..., Player], worlds: Path, tmp_path: Path) -> Player:
    """The start screen with two shipped worlds and two of the player's own, the second the newer."""
    own = tmp_path / "pictures" / "worlds"
    own.mkdir(parents=True)
    first = sorted(worlds.glob("*.world"))[0]
    for age_s, name in ((500, "Old walk"), (5, "New walk")):
        shutil.copy(first, own / f"{name}.world")
        written_s = time.time() - age_s
        os.utime(own / f"{name}.world", (written_s, written_s))
    return play(PlayOptions(backend="holodeck"), [worlds, own])


def choose_own(player: Player) -> None:
    player.post(pygame.KEYDOWN, key=pygame.K_END, scancode=0, mod=0)


def press(player: Player, key: int, mod: int = 0) -> None:
    player.post(pygame.KEYDOWN, key=key, scancode=0, mod=mod)


def button(player: Player, number: int) -> None:
    player.post(pygame.CONTROLLERBUTTONDOWN, button=number, instance_id=0)


def titles(player: Player) -> list[str]:
    return [world.title for world in start_of(player)._menu.worlds]


def test_own_worlds_come_last_and_the_newest_of_them_first(at_start: Player) -> None:
    menu = start_of(at_start)._menu
    assert [world.own for world in menu.worlds] == [False, False, True, True]
    assert titles(at_start)[2:] == ["New walk", "Old walk"]
    assert menu.worlds[2].note.startswith("Begun on ")
    at_start.app.draw(0.0)
    assert menu._grid.heading is not None


def test_a_world_is_renamed_with_the_keyboard(at_start: Player, tmp_path: Path) -> None:
    choose_own(at_start)
    press(at_start, pygame.K_F2)
    entry = start_of(at_start)._own.entry
    assert entry is not None
    assert entry.text == "Old walk"
    press(at_start, pygame.K_END)
    for _ in range(len("walk")):
        press(at_start, pygame.K_BACKSPACE)
    at_start.post(pygame.TEXTINPUT, text="harbour")
    at_start.app.draw(0.0)
    press(at_start, pygame.K_RETURN)
    assert (tmp_path / "pictures" / "worlds" / "Old harbour.world").is_file()
    assert titles(at_start)[2:] == ["New walk", "Old harbour"]
    world = start_of(at_start)._menu.world
    assert world is not None
    assert world.title == "Old harbour"
    assert "Old walk is called Old harbour now." in texts(at_start)


def test_a_world_is_renamed_and_deleted_with_a_gamepad(at_start: Player, tmp_path: Path) -> None:
    for _ in range(3):
        button(at_start, pygame.CONTROLLER_BUTTON_DPAD_RIGHT)
    button(at_start, pygame.CONTROLLER_BUTTON_Y)
    for _ in range(3):
        button(at_start, pygame.CONTROLLER_BUTTON_DPAD_DOWN)
    button(at_start, pygame.CONTROLLER_BUTTON_A)
    assert titles(at_start)[2:] == ["New walk", "Old walkc"]
    button(at_start, pygame.CONTROLLER_BUTTON_X)
    assert len(titles(at_start)) == 4, "it asks first"
    button(at_start, pygame.CONTROLLER_BUTTON_DPAD_DOWN)
    button(at_start, pygame.CONTROLLER_BUTTON_A)
    assert titles(at_start)[2:] == ["New walk"]
    assert [file.stem for file in (tmp_path / "pictures" / "worlds").iterdir()] == ["New walk"]


def test_a_name_that_is_taken_is_said_where_it_is_typed(at_start: Player) -> None:
    choose_own(at_start)
    press(at_start, pygame.K_F2)
    entry = start_of(at_start)._own.entry
    assert entry is not None
    entry.text = "new walk"
    press(at_start, pygame.K_RETURN)
    assert "already" in entry.problem
    at_start.app.draw(0.0)
    press(at_start, pygame.K_ESCAPE)
    assert start_of(at_start)._own.entry is None
    assert titles(at_start)[2:] == ["New walk", "Old walk"]


def test_letters_are_letters_while_a_name_is_typed_whatever_their_keys_do(at_start: Player) -> None:
    choose_own(at_start)
    press(at_start, pygame.K_F2)
    assert at_start.context.captures_keys
    press(at_start, pygame.K_ESCAPE)
    assert not at_start.context.captures_keys


def test_a_shipped_world_is_neither_renamed_nor_deleted(at_start: Player) -> None:
    for key in (pygame.K_F2, pygame.K_DELETE):
        press(at_start, key)
        assert "only worlds of your own" in texts(at_start)
        assert not start_of(at_start)._menus.is_open


def test_a_right_click_shows_what_can_be_done_with_an_own_world(at_start: Player) -> None:
    at_start.app.draw(0.0)
    place = next(place for index, place in start_of(at_start)._menu._places if index == 2)
    at_start.post(pygame.MOUSEBUTTONDOWN, button=3, pos=place.center)
    menu = start_of(at_start)._menus.top
    assert menu is not None
    assert [choice.label for choice in menu.choices] == ["Rename", "Delete", "Back"]


def test_home_end_and_tab_go_everywhere_on_the_start_screen(at_start: Player) -> None:
    menu = start_of(at_start)._menu
    press(at_start, pygame.K_END)
    assert menu.chosen == 3
    press(at_start, pygame.K_HOME)
    assert menu.chosen == 0
    press(at_start, pygame.K_TAB)
    assert menu.key == "engine"
    press(at_start, pygame.K_TAB, pygame.KMOD_SHIFT)
    assert menu.key is None
    press(at_start, pygame.K_TAB, pygame.KMOD_SHIFT)
    assert menu.key == "quit"


def test_a_world_still_being_written_is_chosen_once_it_is_there(at_start: Player, tmp_path: Path) -> None:
    own = tmp_path / "pictures" / "worlds"
    start = StartScreen(at_start.context, start_of(at_start)._walk, str(own / "Newest.world"))
    shutil.copy(own / "Old walk.world", own / "Newest.world")
    os.utime(own / "Newest.world")
    at_start.context.worlds_changed = True
    assert start.update(0.0)
    assert start._menu.world is not None
    assert start._menu.world.title == "Newest"


def test_every_save_is_a_line_with_its_picture_and_can_be_gone_on_with_or_deleted(
    player: Player, play: Callable[..., Player], worlds: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        player.frames_go_by(8)
        player.key(pygame.KSCAN_F5)
        player.wait_for_files()
    saves = tmp_path / "pictures" / "saves"
    assert len(list(saves.iterdir())) == 2
    player.close()
    again = play(PlayOptions(), [worlds])
    start = start_of(again)
    assert [button.key for button in start._menu.buttons][:2] == ["continue", "saved"]
    start._saves.open()
    again.app.draw(0.0)
    menu = start._menus.top
    assert menu is not None
    assert [choice.picture is not None for choice in menu.choices] == [True, True, False]
    lengths_s = [float(choice.value.split()[0]) for choice in menu.choices[:2]]
    assert lengths_s[0] > lengths_s[1] > 0
    press(again, pygame.K_DELETE)
    assert len(list(saves.iterdir())) == 2, "it asks first"
    press(again, pygame.K_DOWN)
    press(again, pygame.K_RETURN)
    (left,) = saves.iterdir()
    press(again, pygame.K_RETURN)
    again.wait_for(WalkScreen)
    walk = again.walk.walk
    assert walk.session.backend == "holodeck", "it was saved there"
    again.wait(lambda: walk.history.name == 2, "the saved walk")
    assert left.exists()


def test_the_pause_offers_the_saves_of_this_world(player: Player) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F5)
    player.wait_for_files()
    player.frames_go_by(8)
    player.key(pygame.KSCAN_P)
    menus = player.walk._menus
    assert menus.top is not None
    menus.top.chosen = [choice.key for choice in menus.top.choices].index("saved")
    player.key(pygame.KSCAN_RETURN)
    assert menus.top.title == "Saved walks"
    player.key(pygame.KSCAN_RETURN)
    player.wait(lambda: player.walk.walk.history.name == 2, "the saved walk")
    assert not menus.is_open
    player.frames_go_by(4)


def test_what_is_typed_first_takes_the_place_of_the_old_name() -> None:
    for key in (None, pygame.K_BACKSPACE):
        entry = TextEntry("Name", "an old walk", 20)
        if key is not None:
            entry.handle(pygame.event.Event(pygame.KEYDOWN, key=key, mod=0))
            assert entry.text == ""
        for letter in "new":
            entry.handle(pygame.event.Event(pygame.KEYDOWN, key=ord(letter), mod=0))
            entry.handle(pygame.event.Event(pygame.TEXTINPUT, text=letter))
        assert entry.text == "new"


def test_text_is_edited_where_the_cursor_is() -> None:
    entry = TextEntry("Name", "walk", 8)

    def press_key(key: int) -> Answer | None:
        return entry.handle(pygame.event.Event(pygame.KEYDOWN, key=key, mod=0))

    press_key(pygame.K_HOME)
    entry.handle(pygame.event.Event(pygame.TEXTINPUT, text="a "))
    assert entry.text == "a walk"
    entry.handle(pygame.event.Event(pygame.TEXTINPUT, text="long\n long"))
    assert entry.text == "a lowalk", "no more than fits"
    press_key(pygame.K_DELETE)
    assert entry.text == "a loalk"
    press_key(pygame.K_UP)
    assert entry.text == "a lo lk"
    assert press_key(pygame.K_RETURN) is Answer.TAKEN
    assert press_key(pygame.K_ESCAPE) is Answer.LEFT


@pytest.mark.parametrize("size", [(320, 192), (1024, 640), (3840, 2160)])
def test_the_chosen_world_is_always_seen_among_many(size: tuple[int, int]) -> None:
    pygame.font.init()
    look = Theme(scale_for(*size), assets_dir() / "fonts")
    grid, room = WorldGrid(6, 25), pygame.Rect(10, 40, size[0] - 40, size[1] - 80)
    chosen = 0
    for step in (1, -1):
        following: int | None = chosen
        while following is not None:
            chosen = following
            grid.lay_out(look, room, chosen)
            place = dict(grid.places)[chosen]
            assert place.top >= room.top
            assert place.bottom <= room.bottom or grid.num_visible == 0
            following = grid.neighbour(chosen, 0, step)
    grid.draw_bar(pygame.Surface(size), look, room)


def test_rows_of_own_worlds_begin_below_those_that_are_shipped() -> None:
    grid = WorldGrid(4, 9)
    grid._rows = grid._rows_of(3)
    assert [list(row) for row in grid._rows] == [[0, 1, 2], [3], [4, 5, 6], [7, 8]]
    assert grid.neighbour(2, 0, 1) == 3
    assert grid.neighbour(3, 0, 1) == 4
    assert grid.neighbour(6, 0, 1) == 8
    assert grid.neighbour(8, 0, 1) is None
    assert grid.neighbour(8, 1, 0) is None


def test_a_page_of_a_long_menu_is_gone_at_once(at_start: Player) -> None:
    start = start_of(at_start)
    start._menus.open_keys()
    at_start.app.draw(0.0)
    menu = start._menus.top
    assert menu is not None
    assert menu.jump(Step.PAGE_DOWN)
    assert 1 < menu.chosen < len(menu.choices) - 1
    press(at_start, pygame.K_END)
    assert menu.key == "back"
    press(at_start, pygame.K_HOME)
    assert menu.chosen == 0
