"""Whatever breaks below it, the window stays, says what happened, and leads on."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pygame
import pytest

import holodeck
from client.app import App, run
from client.screens.loading_screen import LoadingScreen
from client.screens.menu_stack import ProblemScreen
from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from client.ui import window as window_module
from engine.errors import BackendUnavailable, EngineError
from engine.files.bundle import Bundle
from engine.files.recording import read_recording
from engine.files.world import World, write_world
from engine.session.holodeck_session import HolodeckSession
from engine.types import CameraTrack, LatentChunk
from tests.player import Player, make_world

LOST = "the device was lost; plug it in again and try again"


def break_engine(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[bool]:
    """Let every session raise from now on; clearing the list mends them."""
    broken = [True]
    denoise = HolodeckSession.denoise

    def raising(session: HolodeckSession, track: CameraTrack) -> LatentChunk:
        if broken:
            raise error
        return denoise(session, track)

    monkeypatch.setattr(HolodeckSession, "denoise", raising)
    return broken


def card_text(player: Player) -> str:
    menu = player.walk._menus.top
    return menu.text if menu is not None else ""


def messages(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EngineError(LOST), "The device was lost; plug it in again and try again."),
        (RuntimeError("CUDA error 719"), "Something unexpected happened (RuntimeError: CUDA error 719)."),
        (MemoryError(), "Something unexpected happened (MemoryError"),
    ],
)
def test_an_engine_that_dies_is_explained_and_opened_again(
    player: Player, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, said: str
) -> None:
    player.key(pygame.KSCAN_F10)
    player.frames_go_by(4)
    broken = break_engine(monkeypatch, error)
    player.wait(lambda: said in card_text(player), "the explanation")
    before = player.walk
    assert player.context.running
    broken.clear()
    player.key(pygame.KSCAN_RETURN)
    player.wait_for(LoadingScreen)
    player.wait_for(WalkScreen)
    assert player.walk is not before
    player.frames_go_by(4)
    (file,) = (tmp_path / "pictures").glob("*.flaneur")
    assert read_recording(file).complete


def test_an_engine_that_dies_while_a_key_is_waited_for_leaves_the_keys_free(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    player.frames_go_by(4)
    player.walk._menus.open_keys()
    player.key(pygame.KSCAN_RETURN)
    assert player.context.captures_keys
    break_engine(monkeypatch, EngineError(LOST))
    player.wait(lambda: "device was lost" in card_text(player), "the explanation")
    assert not player.context.captures_keys


def test_a_bundle_that_vanishes_is_named_and_found_again_once_it_is_back(
    play: Callable[..., Player], toy_bundle: Bundle, toy_world: World, tmp_path: Path
) -> None:
    bundle, hidden = tmp_path / "toy", tmp_path / "hidden"
    shutil.copytree(toy_bundle.path, bundle)
    write_world(tmp_path / "toy.world", toy_world)
    player = play(PlayOptions(world=str(tmp_path / "toy.world"), engine=str(bundle)), [tmp_path])
    player.wait_for(WalkScreen)
    bundle.rename(hidden)
    player.frames_go_by(8)
    player.key(pygame.KSCAN_N)
    player.wait_for(LoadingScreen)
    loading = player.app.screen
    assert isinstance(loading, LoadingScreen)
    player.wait(lambda: loading.problem is not None, "the explanation")
    assert loading.problem is not None
    assert str(bundle) in loading.problem.text
    hidden.rename(bundle)
    player.key(pygame.KSCAN_RETURN)
    player.wait_for(WalkScreen)
    player.frames_go_by(4)


def test_a_folder_of_worlds_that_vanishes_leaves_a_start_screen_that_says_so(
    play: Callable[..., Player], tmp_path: Path
) -> None:
    folder = tmp_path / "worlds"
    folder.mkdir()
    make_world(folder, holodeck.place_names()[0])
    player = play(PlayOptions(backend="holodeck"), [folder])
    shutil.rmtree(folder)
    player.key(pygame.KSCAN_RETURN)
    player.wait_for(LoadingScreen)
    loading = player.app.screen
    assert isinstance(loading, LoadingScreen)
    player.wait(lambda: loading.problem is not None, "the explanation")
    player.key(pygame.KSCAN_ESCAPE)
    player.wait_for(StartScreen)
    assert player.context.worlds == []
    player.key(pygame.KSCAN_RETURN)
    assert player.context.running


def test_a_screen_that_fails_gives_way_to_one_that_leads_on(
    player: Player, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = player.walk.walk

    def failing(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(WalkScreen, "draw", failing)
    player.key(pygame.KSCAN_W)
    screen = player.app.screen
    assert isinstance(screen, ProblemScreen)
    assert screen.menus.top is not None
    assert "ZeroDivisionError: a bug" in screen.menus.top.text
    assert "a bug" in capsys.readouterr().err, "whoever reports it finds the traceback"
    assert not walk._worker._engine.is_alive(), "the walk that failed holds nothing"
    player.key(pygame.KSCAN_RETURN)
    player.wait_for(StartScreen)


def test_a_window_that_is_said_to_be_empty_goes_on(player: Player) -> None:
    for size in [(0, 0), (-1, 5), (1, 0)]:
        for event_type in (pygame.VIDEORESIZE, pygame.WINDOWSIZECHANGED, pygame.WINDOWRESIZED):
            player.post(event_type, size=size, w=size[0], h=size[1], x=size[0], y=size[1])
        player.post(pygame.WINDOWMINIMIZED)
        player.frames_go_by(2)
        player.post(pygame.WINDOWRESTORED)
        assert isinstance(player.app.screen, WalkScreen)
        assert player.window.windowed_size > (0, 0)


def test_full_screen_that_is_refused_leaves_the_window_as_it_was(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_mode = pygame.display.set_mode

    def refusing(size: tuple[int, int], flags: int = 0) -> pygame.Surface:
        if flags & pygame.FULLSCREEN:
            raise pygame.error("no such mode")
        return set_mode(size, flags)

    monkeypatch.setattr(window_module.pygame.display, "set_mode", refusing)
    player.key(pygame.KSCAN_F11)
    assert not player.window.fullscreen
    player.frames_go_by(2)


def test_without_an_audio_device_nothing_is_missed(
    monkeypatch: pytest.MonkeyPatch, play: Callable[..., Player], worlds: Path
) -> None:
    monkeypatch.setenv("SDL_AUDIODRIVER", "there-is-none")
    player = play(PlayOptions(world=str(sorted(worlds.glob("*.world"))[0]), backend="holodeck"), [worlds])
    player.wait_for(WalkScreen)
    player.frames_go_by(4)
    assert pygame.mixer.get_init() is None


def test_a_pictures_folder_that_cannot_be_made_is_named_and_the_walk_goes_on(
    player: Player, tmp_path: Path
) -> None:
    (tmp_path / "pictures").write_text("a file is in the way")
    player.key(pygame.KSCAN_F12)
    player.wait(lambda: "move what is in its way" in messages(player), "the reason")
    player.context.toasts.clear()
    player.key(pygame.KSCAN_F10)
    player.wait(lambda: "move what is in its way" in messages(player), "the reason")
    assert player.walk.walk.recorder.path is None
    player.frames_go_by(4)


def test_settings_that_cannot_be_kept_are_said_to_last_until_the_end(
    monkeypatch: pytest.MonkeyPatch, worlds: Path, home: Path
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    (home / ".config").write_text("a file is in the way")
    said: list[str] = []
    keys = iter(
        [pygame.K_DOWN, pygame.K_DOWN, pygame.K_DOWN, pygame.K_RIGHT, pygame.K_RETURN, pygame.K_RIGHT]
    )
    original = App.turn

    def turn(app: App) -> None:
        key = next(keys, pygame.K_ESCAPE)
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, scancode=0, mod=0))
        original(app)
        said.extend(app._context.toasts.texts(time.perf_counter()))

    monkeypatch.setattr(App, "turn", turn)
    monkeypatch.setattr("client.app.world_folders", lambda *_: [worlds])
    problems = run(PlayOptions(backend="holodeck"))
    assert any("last only until you quit" in text and "move what is in its way" in text for text in said)
    assert any("the settings were not kept" in problem for problem in problems)


def test_settings_are_kept_as_soon_as_their_card_is_left(
    monkeypatch: pytest.MonkeyPatch, player: Player
) -> None:
    kept: list[float] = []
    monkeypatch.setattr(player.context, "_save", lambda settings: kept.append(settings.pace))
    for scancode in (pygame.KSCAN_P, pygame.KSCAN_DOWN, pygame.KSCAN_RETURN, pygame.KSCAN_RIGHT):
        player.key(scancode)
    assert kept == []
    player.key(pygame.KSCAN_P)
    assert kept == [1.25]


def test_no_display_is_said_before_anything_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "there-is-none")
    with pytest.raises(BackendUnavailable, match="there is no display"):
        window_module.Window(640, 384)
