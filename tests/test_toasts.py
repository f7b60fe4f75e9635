"""Messages lie beside what is to be read, on every screen and at any size."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pygame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.screens.start_screen import StartScreen
from client.setup.folders import MAX_FOLDER_CHARS, path_for_message
from client.setup.options import PlayOptions
from client.ui.theme import Theme
from client.ui.toasts import LEAST, message_area
from engine.machine.assets import assets_dir
from tests.player import Player

WINDOW = pygame.Rect(0, 0, 1024, 640)
UNIT_PX = 8.0
NAME = "colonnade-clip-20261124-221500.mp4"
FOLDER = Path("/home/someone/A quite deep/place-where-pictures-are-kept/of-many-a-year/Pictures/Flaneur")
SENTENCE = f"Kept {path_for_message(FOLDER / NAME, Path('/home/someone'))}, and its recording beside it"
SIZES = ((640, 384), (1024, 640), (1280, 768))


def test_a_file_is_named_before_its_folder_and_home_is_a_tilde() -> None:
    assert (
        path_for_message(Path("/home/me/Pictures/Flaneur/a.mp4"), Path("/home/me"))
        == "a.mp4 in ~/Pictures/Flaneur"
    )
    assert path_for_message(Path("/home/me/a.mp4"), Path("/home/me")) == "a.mp4 in ~"
    assert path_for_message(Path("/tmp/a.mp4"), Path("/home/me")) == "a.mp4 in /tmp"
    assert path_for_message(FOLDER / NAME, Path("/home/me")).endswith("/of-many-a-year/Pictures/Flaneur")
    assert (
        len(path_for_message(FOLDER / NAME, Path("/home/me"))) == len(NAME) + len(" in ") + MAX_FOLDER_CHARS
    )
    assert path_for_message(Path("a.mp4"), Path("/home/me")) == "a.mp4"


@pytest.mark.parametrize("scale", [0.75, 1.0, 1.5, 3.0])
def test_a_message_shows_a_files_name_whole_and_the_end_of_its_path(scale: float) -> None:
    pygame.font.init()
    look = Theme(scale, assets_dir() / "fonts")
    least_px = look.px(LEAST) - look.px(2) - 3 * look.px(1.5)
    assert any(NAME in line for line in look.wrap(SENTENCE, least_px, 15))
    complaint = look.wrap(f"Cannot write {'/long' * 40}/{NAME}: no space left", least_px, 15)
    assert any(line.endswith("20261124-221500.mp4:") and "..." in line for line in complaint)
    assert all(look.font(15).size(line)[0] <= least_px for line in complaint)


places = st.builds(
    pygame.Rect,
    *(st.integers(0, 1000), st.integers(0, 600)),
    *(st.integers(1, 700), st.integers(1, 400)),
)


@given(st.lists(places, max_size=5))
def test_a_message_lies_on_nothing_that_is_taken(taken: list[pygame.Rect]) -> None:
    area = message_area(WINDOW, taken, UNIT_PX)
    covered = any(place.contains(WINDOW) for place in taken)
    assert WINDOW.contains(area)
    assert covered or area.collidelist(taken) < 0


def show(player: Player, size: tuple[int, int]) -> pygame.Rect:
    """Put a message on the screen at a size of the window, and return where it was drawn."""
    pygame.display.set_mode(size, pygame.RESIZABLE)
    player.context.toasts.clear()
    player.post(pygame.VIDEORESIZE, size=size, w=size[0], h=size[1])
    player.app.draw(time.perf_counter())
    without = pygame.surfarray.array3d(player.window.surface)
    player.context.toasts.add(SENTENCE, time.perf_counter())
    player.app.draw(time.perf_counter())
    changed = (pygame.surfarray.array3d(player.window.surface) != without).any(axis=2)
    columns, rows = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
    assert columns.size, "the message is seen"
    return pygame.Rect(columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)


def check(message: pygame.Rect, taken: Sequence[pygame.Rect], size: tuple[int, int]) -> None:
    assert taken
    assert pygame.Rect((0, 0), size).contains(message)
    assert message.collidelist(list(taken)) < 0


def check_all(player: Player) -> None:
    for size in SIZES:
        check(show(player, size), player.app.screen.taken(), size)


def test_no_message_covers_the_pause_the_settings_the_keys_or_the_help(player: Player) -> None:
    player.frames_go_by(4)
    player.key(pygame.KSCAN_P)
    for keys in ((), (pygame.KSCAN_DOWN, pygame.KSCAN_RETURN), (pygame.KSCAN_F1,)):
        for key in keys:
            player.key(key)
        check_all(player)
    for key in (pygame.KSCAN_ESCAPE, pygame.KSCAN_ESCAPE, pygame.KSCAN_DOWN, pygame.KSCAN_RETURN):
        player.key(key)
    check_all(player)


def test_no_message_covers_the_film_strip(player: Player) -> None:
    player.frames_go_by(16)
    player.key(pygame.KSCAN_R, down=True)
    player.wait(lambda: player.walk.rewind.update(time.perf_counter()) is False, "the rewind to stop")
    check_all(player)
    player.key(pygame.KSCAN_R, down=False)


def test_no_message_covers_metrics_map_and_held_keys(player: Player) -> None:
    player.frames_go_by(4)
    for key in (pygame.KSCAN_F3, pygame.KSCAN_M, pygame.KSCAN_H):
        player.key(key)
    player.walk.walk.pause()
    assert len(player.app.screen.taken()) >= 3
    check_all(player)
    player.walk.walk.resume()


def test_no_message_covers_the_worlds_or_the_buttons(play: Callable[..., Player], worlds: Path) -> None:
    player = play(PlayOptions(backend="holodeck"), [worlds])
    assert isinstance(player.app.screen, StartScreen)
    for size in SIZES:
        message = show(player, size)
        assert message.bottom <= player.app.screen.taken()[1].top
