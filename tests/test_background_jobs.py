"""What is written beside the walk: nothing waits in silence, and what became of it is told wherever the player is."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pygame
import pytest

from client.app import run
from client.playback import captures
from client.playback.background_jobs import BackgroundJobs
from client.playback.recorder import Clip
from client.screens import capture
from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from engine.machine import assets
from tests.player import Player

WAIT_S = 30.0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Clips are not written before it opens."""
    gate = threading.Event()
    write = capture.write_clip

    def write_behind(clip: Clip, report: Callable[[float], None]) -> None:
        report(0.25)
        assert gate.wait(WAIT_S)
        write(clip, report)

    monkeypatch.setattr(capture, "write_clip", write_behind)
    yield gate
    gate.set()


def texts(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


def wait(jobs: BackgroundJobs, done: Callable[[], bool]) -> None:
    deadline_s = time.perf_counter() + WAIT_S
    while not done():
        assert time.perf_counter() < deadline_s
        jobs.update()
        time.sleep(0.001)


def test_work_is_done_in_order_and_told_of_on_the_calling_thread() -> None:
    jobs, told = BackgroundJobs(), []

    def note(number: int) -> None:
        told.append((number, threading.current_thread()))

    for number in range(3):
        jobs.start(f"number {number}", lambda number=number: number, note, lambda error: None)
    assert jobs.current == "number 0"
    wait(jobs, lambda: len(told) == 3)
    assert told == [(number, threading.current_thread()) for number in range(3)]
    assert jobs.current is None


def test_how_far_a_long_write_is_can_be_seen_on_every_screen(player: Player, gate: threading.Event) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_P)
    player.key(pygame.KSCAN_F8)
    jobs = player.context.jobs
    player.wait(lambda: jobs.progress == ("the clip", 25), "the first quarter")
    before = pygame.surfarray.array3d(player.window.surface)
    gate.set()
    player.wait_for_files()
    assert jobs.progress is None
    player.app.turn()
    assert (pygame.surfarray.array3d(player.window.surface) != before).any()


def test_a_player_who_leaves_sees_what_is_still_being_written(
    player: Player, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F8)
    jobs, drawn = player.context.jobs, []
    player.wait(lambda: jobs.progress == ("the clip", 25), "the first quarter")
    player.context.quit()

    def draw(now_s: float) -> None:
        drawn.append(jobs.progress)
        gate.set()

    monkeypatch.setattr(player.app, "draw", draw)
    player.app.loop()
    assert drawn[0] == ("the clip", 25)
    assert not jobs.is_busy


def test_a_player_in_a_hurry_does_not_watch_the_last_file(player: Player, gate: threading.Event) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F8)
    player.context.quit()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    player.app.loop()
    assert player.context.jobs.is_busy
    gate.set()


def test_no_thread_is_kept_for_work_that_is_done() -> None:
    before, jobs = set(threading.enumerate()), BackgroundJobs()
    jobs.start("a file", lambda: None, lambda _: None, lambda error: None)
    wait(jobs, lambda: jobs.current is None)
    deadline_s = time.perf_counter() + WAIT_S
    while set(threading.enumerate()) - before:
        assert time.perf_counter() < deadline_s
        time.sleep(0.001)


def test_the_end_waits_for_what_was_begun_and_names_what_failed() -> None:
    jobs, done = BackgroundJobs(), []

    def fail() -> None:
        raise ValueError("no space left")

    jobs.start("a clip", fail, done.append, lambda error: None)
    jobs.start("a save", lambda: done.append("written"), lambda _: None, lambda error: None)
    assert [str(error) for error in jobs.finish()] == ["no space left"]
    assert done == ["written"]


def test_loading_while_a_clip_is_written_says_so_and_then_loads(
    player: Player, gate: threading.Event
) -> None:
    player.frames_go_by(12)
    player.key(pygame.KSCAN_F5)
    player.wait(lambda: "Saved at" in texts(player), "the save")
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F8)
    player.key(pygame.KSCAN_F9)
    assert "Loading, as soon as the clip is done" in texts(player)
    gate.set()
    player.wait(lambda: "as saved" in texts(player), "the load")


def test_what_is_kept_is_told_of_on_the_screen_after_the_walk(
    player: Player, gate: threading.Event, tmp_path: Path
) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F8)
    player.key(pygame.KSCAN_P)
    for key in (pygame.KSCAN_UP, pygame.KSCAN_UP, pygame.KSCAN_RETURN):
        player.key(key)
    player.wait_for(StartScreen)
    assert not list((tmp_path / "pictures").glob("*.mp4"))
    gate.set()
    player.wait(lambda: "recording beside it" in texts(player), "the message")
    assert isinstance(player.app.screen, StartScreen)
    assert list((tmp_path / "pictures").glob("*.mp4"))


def test_photos_are_made_beside_the_client_thread_and_each_gets_a_name_of_its_own(
    player: Player, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads, encode = [], captures.encode_photo

    def encode_and_note(*arguments: Any) -> bytes:
        threads.append(threading.current_thread())
        return encode(*arguments)

    monkeypatch.setattr(captures, "encode_photo", encode_and_note)
    player.frames_go_by(4)
    for _ in range(3):
        player.key(pygame.KSCAN_F12)
    player.wait_for_files()
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3
    assert len(threads) == 3
    assert threading.current_thread() not in threads


def test_a_load_that_comes_after_its_walk_changes_nothing(player: Player, gate: threading.Event) -> None:
    player.frames_go_by(12)
    player.key(pygame.KSCAN_F5)
    player.wait(lambda: "Saved at" in texts(player), "the save")
    player.key(pygame.KSCAN_F8)
    player.key(pygame.KSCAN_F9)
    left = player.walk.walk
    player.key(pygame.KSCAN_N)
    gate.set()
    player.wait(lambda: player.context.jobs.current is None, "the load")
    player.wait_for(WalkScreen)
    assert player.walk.walk is not left
    assert left.history.name == player.walk.walk.history.name == 1


def test_a_new_world_that_overtakes_a_load_is_not_loaded_into_and_the_message_says_why(
    play: Callable[..., Player], gate: threading.Event
) -> None:
    player = play(PlayOptions(world="town"), [assets.worlds_dir()])
    player.wait_for(WalkScreen)
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F5)
    player.wait(lambda: "Saved at" in texts(player), "the save")
    player.key(pygame.KSCAN_F8)
    player.key(pygame.KSCAN_F9)
    player.key(pygame.KSCAN_F6)
    walk = player.walk.walk
    player.wait(lambda: walk.session.world.name != "town" and not walk.entering, "the new world")
    player.context.toasts.clear()
    gate.set()
    player.wait(lambda: player.context.jobs.current is None, "the load")
    assert "Another world has begun meanwhile" in texts(player)
    assert "saved in another world" not in texts(player)


def test_a_file_that_fails_after_the_window_is_closed_is_told_on_the_terminal(
    gate: threading.Event,
    worlds: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = sorted(worlds.glob("*.world"))[0]
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    update, seen = WalkScreen.update, []

    def play_and_leave(screen: WalkScreen, now_s: float) -> bool:
        changed = update(screen, now_s)
        if screen.walk.frame.index >= 4 and not seen:
            seen.append(True)
            (home / "Pictures").write_bytes(b"in the way")
            for scancode, mod in ((pygame.KSCAN_F8, 0), (pygame.KSCAN_Q, pygame.KMOD_CTRL)):
                key = pygame.K_q if mod else pygame.K_F8
                pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, scancode=scancode, mod=mod))
        gate.set()
        return changed

    monkeypatch.setattr(WalkScreen, "update", play_and_leave)
    monkeypatch.setattr("client.ui.app_context.BackgroundJobs.update", lambda _: False)
    problems = run(PlayOptions(world=str(world), backend="holodeck"))
    assert any("cannot make the folder" in problem for problem in problems)
