"""The window is used as a player would: real events in, pixels, poses and files out."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pygame
import pytest

import holodeck
from client.app import App, run
from client.input.actions import ACTIONS
from client.input.controls import MOVING
from client.playback.captures import read_photo_description
from client.screens.loading_screen import LoadingScreen
from client.screens.menus import KeysMenu
from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from client.setup.settings import Settings
from client.ui import window as window_module
from client.ui.window import MIN_WIDTH_PX, Window
from engine.errors import SpecMismatch
from engine.files.recording import INTENT_COLUMNS, read_recording
from tests.player import Player, make_world

FORWARD = INTENT_COLUMNS.index("forward")


def test_a_world_is_chosen_from_the_start_screen_and_walked_through(
    play: Callable[..., Player], worlds: Path
) -> None:
    player = play(PlayOptions(backend="holodeck"), [worlds])
    assert isinstance(player.app.screen, StartScreen)
    player.key(pygame.KSCAN_RIGHT)
    player.key(pygame.KSCAN_RETURN)
    player.wait_for(WalkScreen)
    chosen = sorted(worlds.glob("*.world"))[1]
    assert player.walk.walk.session.world.path == chosen
    before = pygame.surfarray.array3d(player.window.surface)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(12)
    player.key(pygame.KSCAN_W, down=False)
    moved = player.walk.walk.frame.c2w[:3, 3] - player.walk.walk.session.world.c2w[:3, 3]
    assert np.linalg.norm(moved) > 0.2
    assert (pygame.surfarray.array3d(player.window.surface) != before).any()


def test_every_key_of_the_help_does_what_it_says(player: Player) -> None:
    context, walk = player.context, player.walk.walk
    rig = walk.planner.rig
    assert rig is not None
    player.key(pygame.KSCAN_F)
    assert rig.flying
    player.key(pygame.KSCAN_EQUALS)
    assert rig.speed_m_s == pytest.approx(2.0)
    player.key(pygame.KSCAN_MINUS)
    assert rig.speed_m_s == pytest.approx(1.6)
    player.key(pygame.KSCAN_F2)
    assert not context.settings.reproject
    player.key(pygame.KSCAN_F3)
    assert context.settings.hud
    player.key(pygame.KSCAN_F1)
    player.key(pygame.KSCAN_F1)
    player.frames_go_by(4)
    player.key(pygame.KSCAN_P)
    assert walk.paused
    player.key(pygame.KSCAN_ESCAPE)
    assert not walk.paused
    player.key(pygame.KSCAN_BACKSPACE)
    assert walk.frame.index == 0
    name = walk.session.world.name
    player.key(pygame.KSCAN_N)
    player.wait_for(LoadingScreen)
    player.wait_for(WalkScreen)
    assert player.walk.walk.session.world.name != name


def test_every_action_is_answered_once(player: Player) -> None:
    answered = player.walk._handlers().keys()
    assert answered == {action.name for action in ACTIONS} - MOVING - {"full_screen"}


def test_a_key_is_bound_in_the_window_works_at_once_and_is_kept(player: Player, tmp_path: Path) -> None:
    player.key(pygame.KSCAN_P)
    for scancode in (pygame.KSCAN_DOWN, pygame.KSCAN_DOWN, pygame.KSCAN_RETURN):
        player.key(scancode)
    menus = player.walk._menus
    assert isinstance(menus.top, KeysMenu)
    menus.top.chosen = [action.name for action in ACTIONS].index("photo")
    player.key(pygame.KSCAN_RETURN)
    player.key(pygame.KSCAN_F11)
    assert not player.window.fullscreen, "a key that is waited for does nothing else"
    assert player.context.bindings.rivals("photo")
    player.key(pygame.KSCAN_RETURN)
    player.key(pygame.KSCAN_Y)
    assert not player.context.bindings.rivals("photo")
    player.key(pygame.KSCAN_P)
    assert not menus.is_open
    player.key(pygame.KSCAN_F12)
    player.wait_for_files()
    assert not (tmp_path / "pictures").exists()
    player.key(pygame.KSCAN_Y)
    player.wait_for_files()
    assert list((tmp_path / "pictures").glob("*.png"))
    assert player.context.settings.keys == {"photo": (pygame.KSCAN_Y,)}


def test_a_pause_on_the_key_that_accepts_still_leaves_the_menus_usable(player: Player) -> None:
    keys = {"pause": (pygame.KSCAN_RETURN,)}
    player.context.apply_settings(player.context.settings.model_copy(update={"keys": keys}))
    player.key(pygame.KSCAN_RETURN)
    assert player.walk.walk.paused
    player.key(pygame.KSCAN_DOWN)
    player.key(pygame.KSCAN_RETURN)
    menu = player.walk._menus.top
    assert menu is not None
    assert menu.title == "Settings"


def test_a_screenshot_says_where_it_was_taken(player: Player, tmp_path: Path) -> None:
    player.frames_go_by(2)
    player.key(pygame.KSCAN_F12)
    player.wait_for_files()
    (file,) = (tmp_path / "pictures").glob("*.png")
    description = read_photo_description(file)
    assert description["seed"] == 0
    assert description["backend"] == "holodeck"
    assert np.array(description["c2w"]).shape == (4, 4)
    assert any("Saved" in text for text in player.context.toasts.texts(time.perf_counter()))


def test_a_recorded_walk_is_replayed_with_the_same_poses(
    player: Player, play: Callable[..., Player], worlds: Path, tmp_path: Path
) -> None:
    player.key(pygame.KSCAN_F10)
    player.key(pygame.KSCAN_D, down=True)
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F10)
    (file,) = (tmp_path / "pictures").glob("*.flaneur")
    recording = read_recording(file)
    assert recording.complete
    player.close()
    again = play(PlayOptions(replay=file), [worlds])
    again.wait_for(WalkScreen)
    again.wait(lambda: again.walk.walk.progress == 1.0, "the end of the replay")
    assert (again.walk.walk.frame.c2w == recording.chunks[-1].track.c2w[-1]).all()


def test_a_replay_is_left_where_it_is_and_walked_on_and_what_follows_is_recorded_whole(
    player: Player, play: Callable[..., Player], worlds: Path, tmp_path: Path
) -> None:
    player.key(pygame.KSCAN_F10)
    player.key(pygame.KSCAN_D, down=True)
    player.frames_go_by(16)
    player.key(pygame.KSCAN_F10)
    (file,) = (tmp_path / "pictures").glob("*.flaneur")
    recording = read_recording(file)
    player.close()
    again = play(PlayOptions(replay=file), [worlds])
    again.wait_for(WalkScreen)
    walk = again.walk.walk
    again.wait(lambda: walk.frame.index >= 8, "two chunks of the replay")
    again.key(pygame.KSCAN_J)
    assert walk.planner.rig is not None
    assert walk.progress is None
    left_at = walk.frame.index
    assert left_at >= 4
    np.testing.assert_array_equal(
        walk.frame.c2w, recording.chunks[left_at // 4 - 1].track.c2w[-1], "the view does not jump"
    )
    again.key(pygame.KSCAN_W, down=True)
    again.frames_go_by(12)
    assert (
        np.linalg.norm(walk.frame.c2w[:3, 3] - recording.chunks[left_at // 4 - 1].track.c2w[-1, :3, 3]) > 0.1
    )
    walked = walk.recorder.walked(walk.recorder.num_chunks)
    for number in range(left_at // 4):
        np.testing.assert_array_equal(walked[number].track.c2w, recording.chunks[number].track.c2w)
    again.key(pygame.KSCAN_J)
    assert any("walking already" in text for text in again.context.toasts.texts(time.perf_counter()))


def test_a_tap_too_short_for_a_picture_walks_one_chunk_and_is_recorded_as_one(
    player: Player, tmp_path: Path
) -> None:
    player.key(pygame.KSCAN_F10)
    player.frames_go_by(4)
    player.key(pygame.KSCAN_W)
    player.frames_go_by(16)
    player.key(pygame.KSCAN_F10)
    (file,) = (tmp_path / "pictures").glob("*.flaneur")
    recording = read_recording(file)
    ahead = [float(row[FORWARD]) for chunk in recording.chunks for row in chunk.intents]
    assert sorted(ahead)[-2:] == [0.0, 1.0]
    assert recording.chunks[-1].track.c2w[-1, 2, 3] != recording.header.start_c2w[11]


def test_losing_the_focus_forgets_a_tap_that_the_model_has_not_seen(player: Player) -> None:
    walk = player.walk.walk
    player.frames_go_by(1)
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_w, scancode=pygame.KSCAN_W, mod=0))
    player.post(pygame.WINDOWFOCUSLOST)
    player.frames_go_by(12)
    chunks = walk.recorder.walked(walk.recorder.num_chunks)
    assert not any(row[FORWARD] for chunk in chunks for row in chunk.intents)


def test_losing_the_focus_lets_go_of_every_key_and_of_the_mouse(player: Player) -> None:
    player.key(pygame.KSCAN_W, down=True)
    player.post(pygame.MOUSEBUTTONDOWN, button=1, pos=(10, 10))
    assert player.context.mouse_grabbed
    player.post(pygame.WINDOWFOCUSLOST)
    assert player.context.keyboard.held == ()
    assert not player.context.mouse_grabbed


def test_a_click_takes_the_line_under_the_pointer_and_not_the_one_chosen_by_keys(player: Player) -> None:
    player.key(pygame.KSCAN_P)
    menu = player.walk._menus.top
    assert menu is not None
    player.app.turn()
    resume = next(place.center for index, place in menu._places if menu.choices[index].key == "resume")
    player.key(pygame.KSCAN_DOWN)
    assert menu.key != "resume"
    player.post(pygame.MOUSEBUTTONDOWN, button=1, pos=resume)
    assert not player.walk.walk.paused


def test_escape_first_frees_the_mouse_and_then_pauses(player: Player) -> None:
    player.post(pygame.MOUSEBUTTONDOWN, button=1, pos=(10, 10))
    player.key(pygame.KSCAN_ESCAPE)
    assert not player.context.mouse_grabbed
    assert not player.walk.walk.paused
    player.key(pygame.KSCAN_ESCAPE)
    assert player.walk.walk.paused


def test_a_grabbed_mouse_turns_the_camera(player: Player) -> None:
    player.post(pygame.MOUSEBUTTONDOWN, button=1, pos=(10, 10))
    player.post(pygame.MOUSEMOTION, rel=(200, 0), pos=(10, 10), buttons=(0, 0, 0))
    player.frames_go_by(12)
    start, now = player.walk.walk.session.world.c2w, player.walk.walk.frame.c2w
    turned_deg = np.degrees(np.arccos((np.trace(start[:3, :3].T @ now[:3, :3]) - 1) / 2))
    assert turned_deg == pytest.approx(200 * Settings().mouse_deg_px, rel=0.01)


def test_the_picture_answers_the_mouse_before_the_model_does(player: Player) -> None:
    walk = player.walk.walk
    player.post(pygame.MOUSEBUTTONDOWN, button=1, pos=(10, 10))
    player.frames_go_by(4)
    for reproject in (True, False):
        settings = player.context.settings.model_copy(update={"reproject": reproject})
        player.context.apply_settings(settings)
        frame = before = after = None
        for _ in range(20):
            player.app.turn()
            frame, before = walk.frame, pygame.surfarray.array3d(player.context.window.surface)
            player.post(pygame.MOUSEMOTION, rel=(60, 0), pos=(10, 10), buttons=(0, 0, 0))
            after = pygame.surfarray.array3d(player.context.window.surface)
            if walk.frame is frame:
                break
        assert walk.frame is frame, "no two pictures of one frame were seen"
        assert before is not None
        assert after is not None
        assert (np.abs(after.astype(int) - before).mean() > 1.0) == reproject
        player.wait(lambda: not walk.live_turn_rad.any(), "the model")


def test_a_window_of_any_size_shows_the_walk(player: Player) -> None:
    for size in [(1, 1), (160, 900), (1600, 90), (2560, 1440)]:
        pygame.display.set_mode(size, pygame.RESIZABLE)
        player.post(pygame.VIDEORESIZE, w=size[0], h=size[1], size=size)
        for scancode in (pygame.KSCAN_F3, pygame.KSCAN_F1, pygame.KSCAN_F1, pygame.KSCAN_P, pygame.KSCAN_P):
            player.key(scancode)
        player.frames_go_by(4)


def test_a_damaged_world_is_explained_in_the_window_and_left_again(
    play: Callable[..., Player], tmp_path: Path
) -> None:
    path = make_world(tmp_path, holodeck.place_names()[0])
    player = play(PlayOptions(backend="holodeck"), [tmp_path])
    path.write_bytes(path.read_bytes()[:-100])
    player.key(pygame.KSCAN_RETURN)
    player.wait_for(LoadingScreen)
    player.wait(lambda: "cut short" in _problem_text(player), "the explanation")
    player.key(pygame.KSCAN_ESCAPE)
    player.wait_for(StartScreen)


def _problem_text(player: Player) -> str:
    screen = player.app.screen
    return screen.problem.text if isinstance(screen, LoadingScreen) and screen.problem else ""


def test_random_input_never_ends_the_window(player: Player) -> None:
    chance = random.Random(5)
    quitting = {pygame.KSCAN_RETURN, pygame.KSCAN_SPACE}
    for _ in range(300):
        kind = chance.randrange(4)
        if kind == 0:
            scancode = chance.randrange(4, 100)
            if scancode not in quitting:
                player.key(scancode, down=chance.random() < 0.5)
        elif kind == 1:
            player.post(pygame.MOUSEMOTION, rel=(chance.randrange(-99, 99), 3), pos=(5, 5), buttons=(0, 0, 0))
        elif kind == 2:
            player.post(chance.choice((pygame.WINDOWFOCUSLOST, pygame.WINDOWEXPOSED)))
        else:
            player.app.turn()
    assert player.context.running


def test_closing_the_window_ends_the_program_and_keeps_the_settings(
    monkeypatch: pytest.MonkeyPatch, worlds: Path, home: Path
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    turns = iter(range(1000))

    def close_soon(app: App) -> None:
        if next(turns) == 5:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        original(app)

    original = App.turn
    monkeypatch.setattr(App, "turn", close_soon)
    first = sorted(worlds.glob("*.world"))[0]
    assert run(PlayOptions(world=str(first), backend="holodeck")) == []
    assert not pygame.display.get_init()
    written = [file.name for file in home.rglob("settings.json")]
    assert written == ["settings.json"]


def test_a_squeezed_window_is_remembered_at_a_size_the_settings_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = Window(640, 384, unseen=True)
    try:
        pygame.display.set_mode((64, 40), pygame.RESIZABLE)
        window.note_resize()
        width, height = window.windowed_size
    finally:
        window.close()
    assert Settings(window_width=width, window_height=height).window_width == MIN_WIDTH_PX


@pytest.mark.parametrize(
    ("driver", "device", "set_to"), [("x11", "", "0"), ("x11", "gpu", None), ("wayland", "", None)]
)
def test_only_x11_without_a_gpu_keeps_pictures_away_from_opengl(
    driver: str, device: str, set_to: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gpu").touch()
    monkeypatch.setattr(window_module, "GPU_DEVICES", (str(tmp_path / (device or "none*")),))
    monkeypatch.setattr(pygame.display, "get_driver", lambda: driver)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    # So that it is taken back, whatever the window does.
    monkeypatch.setenv("SDL_FRAMEBUFFER_ACCELERATION", "unset")
    monkeypatch.delenv("SDL_FRAMEBUFFER_ACCELERATION")
    Window(640, 384, unseen=True).close()
    assert os.environ.get("SDL_FRAMEBUFFER_ACCELERATION") == set_to


def test_bad_options_are_refused_before_a_window_opens(worlds: Path, tmp_path: Path) -> None:
    world = str(sorted(worlds.glob("*.world"))[0])
    cut = tmp_path / "cut.flaneur"
    cut.write_bytes(b"\x89FLANEUR")
    with pytest.raises(ValueError, match="no world called"):
        run(PlayOptions(world="atlantis"))
    with pytest.raises(ValueError, match="ends in"):
        run(PlayOptions(world=world, record=tmp_path / "walk.mp4"))
    with pytest.raises(ValueError, match="exists already"):
        run(PlayOptions(world=world, record=cut))
    with pytest.raises(ValueError, match="takes no --engine"):
        run(PlayOptions(world=world, engine="pocket", backend="holodeck"))
    with pytest.raises(ValueError, match="the seed must lie between"):
        run(PlayOptions(world=world, seed=1 << 64))
    with pytest.raises(SpecMismatch, match="cut before its first chunk"):
        run(PlayOptions(replay=cut))
