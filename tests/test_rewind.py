"""Going back in the window: wind back with the film strip, branch, save and load, with real keys."""

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pygame
import pytest

from client.playback.captures import read_photo_description
from client.playback.history import Rewind, WalkFrame, WalkSnapshot
from client.playback.saves import new_save_file, newest_save, save_stem
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from engine.files.recording import read_recording
from engine.types import Snapshot
from tests.player import Player


def moments(count: int) -> list[WalkSnapshot]:
    frame = np.zeros((2, 2, 3), np.uint8)
    snapshot = Snapshot("toy", 0, 1, np.eye(4), {})
    return [
        WalkSnapshot(i, WalkFrame(4 * i, frame, np.eye(4), i), snapshot, None, None)
        for i in range(1, count + 1)
    ]


def test_a_tap_goes_back_by_one_and_holding_goes_ever_faster_to_the_beginning() -> None:
    reel = Rewind(moments(100), 10.0)
    assert not reel.update(10.05)
    assert reel.index == 99
    seen = []
    for step in range(120):
        reel.update(10.0 + 0.05 * step)
        seen.append(reel.index)
    steps = -np.diff(seen)
    assert (steps >= 0).all()
    assert steps[-1] == 0
    assert seen[-1] == 0
    assert steps[20:40].sum() > steps[:20].sum()


def texts(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


def past_frame(player: Player) -> WalkFrame:
    frame = player.walk.rewind.frame
    assert frame is not None
    return frame


def walk_on(player: Player, scancode: int, frames: int = 12) -> None:
    player.key(scancode, down=True)
    player.frames_go_by(frames)
    player.key(scancode, down=False)


def test_holding_the_key_shows_the_past_and_letting_go_begins_a_branch(player: Player) -> None:
    walk_on(player, pygame.KSCAN_W, 24)
    walk = player.walk.walk
    before = walk.frame
    present = pygame.surfarray.array3d(player.window.surface)
    player.key(pygame.KSCAN_R, down=True)
    assert walk.paused
    player.wait(lambda: past_frame(player).index <= before.index - 12, "the film to wind back")
    shown = pygame.surfarray.array3d(player.window.surface)
    assert (shown != present).any()
    target = past_frame(player)
    player.key(pygame.KSCAN_R, down=False)
    assert walk.frame.index == target.index
    assert (walk.frame.c2w == target.c2w).all()
    assert "branch 2" in texts(player)
    assert "returns to branch 1" in texts(player)
    walk_on(player, pygame.KSCAN_D)
    assert walk.history.name == 2
    player.key(pygame.KSCAN_B)
    assert "Branch 1 goes on" in texts(player)
    assert walk.frame.index >= before.index
    player.frames_go_by(8)


def test_a_photo_of_the_past_is_of_the_moment_that_is_seen(player: Player, tmp_path: Path) -> None:
    player.frames_go_by(24)
    player.key(pygame.KSCAN_R, down=True)
    player.wait(
        lambda: past_frame(player).index <= player.walk.walk.frame.index - 12, "the film to wind back"
    )
    seen = past_frame(player).index
    player.key(pygame.KSCAN_F12)
    player.wait_for_files()
    (photo,) = (tmp_path / "pictures").glob("*.png")
    assert read_photo_description(photo)["frame"] in (seen, past_frame(player).index)
    player.key(pygame.KSCAN_R, down=False)


def test_a_save_of_the_past_is_of_the_moment_that_is_seen(player: Player) -> None:
    player.frames_go_by(24)
    player.key(pygame.KSCAN_R, down=True)
    player.wait(lambda: past_frame(player).index <= 4, "the film to wind back")
    seen = past_frame(player).index
    player.key(pygame.KSCAN_F5)
    player.key(pygame.KSCAN_ESCAPE)
    player.key(pygame.KSCAN_R, down=False)
    player.wait(lambda: "Saved at" in texts(player), "the save")
    player.key(pygame.KSCAN_F9)
    player.wait(lambda: "as saved" in texts(player), "the load")
    assert player.walk.walk.recorder.walked(1000)[-1].index < 4
    assert f"Back at {seen / player.walk.walk.session.fps:.1f} s" in texts(player)


def test_escape_returns_to_the_present(player: Player) -> None:
    player.frames_go_by(16)
    walk = player.walk.walk
    present = walk.frame.index
    player.key(pygame.KSCAN_R, down=True)
    player.key(pygame.KSCAN_ESCAPE)
    player.key(pygame.KSCAN_R, down=False)
    assert not walk.paused
    assert walk.history.name == 1
    assert walk.frame.index >= present
    player.frames_go_by(4)


def test_a_gamepad_goes_back_and_changes_branches_too(player: Player) -> None:
    player.frames_go_by(16)
    walk = player.walk.walk
    left, right = pygame.CONTROLLER_BUTTON_DPAD_LEFT, pygame.CONTROLLER_BUTTON_DPAD_RIGHT
    player.post(pygame.CONTROLLERBUTTONDOWN, button=left, instance_id=0)
    assert walk.paused
    assert past_frame(player).index < walk.frame.index
    player.post(pygame.CONTROLLERBUTTONUP, button=left, instance_id=0)
    assert walk.history.name == 2
    player.frames_go_by(8)
    player.post(pygame.CONTROLLERBUTTONDOWN, button=right, instance_id=0)
    assert walk.history.name == 1
    player.post(pygame.CONTROLLERBUTTONDOWN, button=left, instance_id=0)
    player.post(pygame.CONTROLLERDEVICEREMOVED, instance_id=0)
    assert player.walk.rewind.frame is None
    assert not walk.paused


def test_losing_the_focus_lets_the_film_go(player: Player) -> None:
    player.frames_go_by(16)
    player.key(pygame.KSCAN_R, down=True)
    player.post(pygame.WINDOWFOCUSLOST)
    assert player.walk.rewind.frame is None
    assert not player.walk.walk.paused


def test_a_saved_walk_is_come_back_to_in_another_window(
    player: Player, play: Callable[..., Player], worlds: Path, tmp_path: Path
) -> None:
    walk_on(player, pygame.KSCAN_W)
    player.key(pygame.KSCAN_F5)
    player.wait(lambda: "Saved at" in texts(player), "the save")
    walk = player.walk.walk
    assert newest_save(tmp_path / "pictures" / "saves", save_stem(walk.session)) is not None
    saved_index = walk.history.snapshots[-1].frame.index
    player.close()
    first = sorted(worlds.glob("*.world"))[0]
    again = play(PlayOptions(world=str(first), backend="holodeck"), [worlds])
    again.wait_for(WalkScreen)
    again.key(pygame.KSCAN_F9)
    again.wait(lambda: "as saved" in texts(again), "the load")
    moved = again.walk.walk.frame.c2w[:3, 3] - again.walk.walk.session.world.c2w[:3, 3]
    assert np.linalg.norm(moved) > 0.2
    assert 0 < again.walk.walk.frame.index <= saved_index + 8
    again.frames_go_by(8)


def test_what_is_loaded_under_a_menu_waits_there(player: Player) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F5)
    player.wait(lambda: "Saved at" in texts(player), "the save")
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F9)
    player.key(pygame.KSCAN_P)
    player.wait(lambda: "as saved" in texts(player), "the load")
    walk = player.walk.walk
    assert walk.paused
    held = walk.frame.index
    for _ in range(20):
        player.app.turn()
    assert walk.frame.index == held
    player.key(pygame.KSCAN_P)
    player.frames_go_by(4)


def test_loading_nothing_or_a_foreign_save_is_said_and_the_walk_goes_on(
    player: Player, tmp_path: Path
) -> None:
    player.frames_go_by(4)
    player.key(pygame.KSCAN_F9)
    assert "Nothing is saved" in texts(player)
    now = datetime(2026, 11, 29, tzinfo=UTC)
    file = new_save_file(tmp_path / "pictures" / "saves", save_stem(player.walk.walk.session), now)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\0" * 200)
    player.key(pygame.KSCAN_F9)
    player.wait(lambda: "not a saved walk" in texts(player), "the refusal")
    player.frames_go_by(8)


def test_a_recording_over_a_branch_is_two_whole_files(player: Player, tmp_path: Path) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F10)
    walk_on(player, pygame.KSCAN_W, 16)
    player.key(pygame.KSCAN_R, down=True)
    player.key(pygame.KSCAN_R, down=False)
    assert "recording to" in texts(player)
    walk_on(player, pygame.KSCAN_S, 8)
    player.key(pygame.KSCAN_F10)
    files = sorted((tmp_path / "pictures").glob("*.flaneur"))
    assert len(files) == 2
    assert all(read_recording(file).complete for file in files)


def test_the_figures_say_how_much_the_past_takes(player: Player) -> None:
    player.frames_go_by(8)
    lines = {label: text for _, label, text in player.walk.rewind.metric_lines()}
    assert lines["the past"].endswith("of 256 MB")
    assert lines["branch"] == "1"


def test_without_memory_for_it_going_back_says_so(player: Player) -> None:
    player.walk.walk.session.keep_snapshots = False
    player.key(pygame.KSCAN_R)
    assert "settings file" in texts(player)


def test_the_film_strip_fits_any_window(player: Player) -> None:
    for size in [(320, 192), (2560, 1440)]:
        pygame.display.set_mode(size, pygame.RESIZABLE)
        player.post(pygame.VIDEORESIZE, w=size[0], h=size[1], size=size)
        player.frames_go_by(12)
        player.key(pygame.KSCAN_R, down=True)
        player.app.turn()
        assert player.walk.rewind.frame is not None
        player.key(pygame.KSCAN_R, down=False)


@pytest.fixture
def counted_references_only() -> Iterator[None]:
    """Nothing is freed that belongs to a circle of objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("counted_references_only")
def test_a_walk_that_is_left_lets_go_of_its_past_and_its_frames_at_once(player: Player) -> None:
    player.frames_go_by(16)
    player.key(pygame.KSCAN_R)
    player.frames_go_by(16)
    walk = player.walk.walk
    assert walk.history.branches
    kept: list[Snapshot | WalkFrame] = [
        moment.state for moment in (*walk.history.snapshots, walk.history.branches[0].tip)
    ]
    kept += walk.recent.seen[:-8]
    held = [weakref.ref(each) for each in kept]
    player.key(pygame.KSCAN_R, down=True)
    assert player.walk.rewind.frame is not None
    del walk, kept
    player.app.open(PlayOptions(world="nowhere", backend="holodeck"))
    player.wait(lambda: not any(each() for each in held), "what the walk held to be freed")
