"""A replay is played like a film: sought, held, stepped through, faster and slower, and left to walk on."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygame
import pytest

import cli.app
from client.camera.planner import TrackPlanner
from client.input.controls import IDLE
from client.playback import replay_playback
from client.playback.history import WalkFrame
from client.playback.pacing import PacingConfig
from client.playback.replay_playback import ReplayPlayback, Span
from client.playback.walk import Walk
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from client.ui.replay_bar import clock_words, state_words
from engine.camera.actions import integrate_actions, parse_actions
from engine.camera.tracks import Track
from engine.files.array_files import read_npz
from engine.files.bundle import Bundle
from engine.files.recording import Recording, read_recording
from engine.files.recording_writer import RecordingWriter
from engine.files.video import read_video_description
from engine.files.world import World, read_world
from engine.session.headless import place_track
from engine.session.opening import open_session
from engine.session.protocol import Session
from engine.session.walk_files import Outputs, WalkRequest, write_walk
from engine.types import ChunkTimes
from tests.player import Player

CHUNKS, SIZE = 14, 4
CONFIG = PacingConfig(16.0, SIZE)
TIMES = ChunkTimes(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def frame(index: int) -> WalkFrame:
    return WalkFrame(index, np.zeros((2, 2, 3), np.uint8), np.eye(4), index // SIZE)


def playing(num_frames: int, made: int) -> ReplayPlayback:
    replay = ReplayPlayback(CONFIG, frame(0), 0.0, Span(0, num_frames - 1))
    for first in range(1, made, SIZE):
        replay.add([frame(first + i) for i in range(SIZE)], TIMES, answers=False)
    return replay


def play_for(replay: ReplayPlayback, seconds: float, begun_s: float) -> float:
    for tick in range(1, round(60 * seconds) + 1):
        replay.tick(begun_s + tick / 60)
    return begun_s + seconds


@pytest.mark.parametrize("speed", replay_playback.SPEEDS)
def test_a_second_shows_as_much_of_the_walk_as_the_speed_says(speed: float) -> None:
    replay = playing(100, 97)
    replay.speed = speed
    play_for(replay, 1.0, 0.0)
    assert abs(replay.frame.index - 16 * speed) <= 1


def test_speeds_end_at_the_slowest_and_the_fastest() -> None:
    replay = playing(100, 5)
    for direction, last in ((1, 4.0), (-1, 0.25)):
        for _ in range(9):
            replay.change_speed(direction)
        assert replay.speed == last


def test_a_held_replay_stands_still_and_steps_by_single_frames() -> None:
    replay = playing(100, 41)
    now_s = play_for(replay, 1.0, 0.0)
    replay.playing = False
    held = replay.frame.index
    for step in (1, 1, -1, -1, -1):
        replay.target = replay.frame.index + step
        held += step
        now_s = play_for(replay, 0.1, now_s)
        assert replay.frame.index == held
    passed, jumped = replay.take_passed()
    assert jumped
    assert [one.index for one in passed][-5:] == [held + 2, held + 3, held + 2, held + 1, held]


def test_chunks_are_asked_for_up_to_the_frame_that_is_wanted_and_no_further() -> None:
    replay = playing(100, 41)
    replay.target = 60
    assert replay.should_request(0.0)
    replay.playing, replay.target = False, 3
    replay.tick(0.1)
    assert replay.frame.index == 3
    assert not replay.should_request(0.2), "there is enough to go on with"
    whole = playing(41, 41)
    whole.target = 40
    whole.tick(0.1)
    assert whole.is_at_end
    assert not whole.should_request(0.2)


def test_old_frames_are_forgotten_and_what_is_on_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_playback, "STORE_BYTES", 0)
    replay = playing(400, 201)
    assert not replay.holds(0)
    assert replay.frame.index == 0
    assert replay.holds(200)
    assert not replay.holds(184)


def test_the_bar_says_where_a_replay_is_and_how_it_is_played() -> None:
    assert clock_words(61.25) == "1:01.2"
    replay = playing(160, 41)
    replay.target = 80
    assert state_words(replay, 16.0) == "0:05.0 of 0:09.9, making the walk up to there: 2 s to go"
    replay.target, replay.speed, replay.playing = None, 0.5, False
    assert state_words(replay, 16.0) == "0:00.0 of 0:09.9, 0.5 x, held at frame 0"


def recorded(session: Session, file: Path) -> Recording:
    """Record a walk without a window."""
    track = place_track(
        Track(integrate_actions(parse_actions(f"wd-{CHUNKS * SIZE}"), session.fps)), session.world
    )
    write_walk(session, WalkRequest(track, 3, Outputs(record=file)), 0.0, lambda _: None, lambda _: None)
    return read_recording(file)


@pytest.fixture
def toy_replay(
    toy_bundle: Bundle, toy_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[Walk, Recording]]:
    """Make a replay of a model that keeps no more than four chunks of frames."""
    monkeypatch.setattr(replay_playback, "STORE_BYTES", 0)

    def make() -> tuple[Walk, Recording]:
        session = open_session(toy_world, toy_bundle, denoise_threads=1, keep_latents=True)
        recording = recorded(session, tmp_path / "walk.flaneur")
        planner = TrackPlanner([chunk.track for chunk in recording.chunks])
        return Walk(session, planner, 3, time.perf_counter), recording

    return make


def until(walk: Walk, done: Callable[[], bool]) -> None:
    deadline_s = time.perf_counter() + 30.0
    while not done():
        assert time.perf_counter() < deadline_s, "waited in vain"
        walk.update(IDLE, time.perf_counter())
        time.sleep(0.001)


def test_frames_made_again_after_winding_back_are_the_same(
    toy_replay: Callable[[], tuple[Walk, Recording]],
) -> None:
    walk, recording = toy_replay()
    replay = walk.replay
    assert replay is not None
    try:
        shown: dict[int, np.ndarray] = {}
        for index in (6, CHUNKS * SIZE, 6, 40, 2, 0, CHUNKS * SIZE - 1):
            walk.seek(index)
            until(walk, lambda: replay.target is None)
            assert walk.frame.index == index
            pixels = shown.setdefault(index, walk.frame.pixels)
            np.testing.assert_array_equal(walk.frame.pixels, pixels)
        hashes = [chunk.latents_sha256 for chunk in walk.recorder.walked(99)]
        assert hashes == [chunk.latents_sha256 for chunk in recording.chunks]
        numbers = [snapshot.number for snapshot in walk.history.snapshots]
        assert numbers == sorted(set(numbers))
    finally:
        walk.close()


def test_without_snapshots_a_replay_is_wound_back_to_its_beginning(
    toy_replay: Callable[[], tuple[Walk, Recording]],
) -> None:
    walk, recording = toy_replay()
    walk.session.keep_snapshots = False
    replay = walk.replay
    assert replay is not None
    try:
        for index in (40, 10):
            walk.seek(index)
            until(walk, lambda: replay.target is None)
            expected = recording.chunks[(index - 1) // SIZE].track.c2w[(index - 1) % SIZE]
            np.testing.assert_array_equal(walk.frame.c2w, expected)
    finally:
        walk.close()


@pytest.fixture
def watcher(play: Callable[..., Player], worlds: Path, tmp_path: Path) -> tuple[Player, Recording]:
    """A window with a replay of fourteen chunks."""
    first = sorted(worlds.glob("*.world"))[0]
    session = open_session(read_world(first), backend="holodeck")
    recording = recorded(session, tmp_path / "walk.flaneur")
    session.close()
    player = play(PlayOptions(replay=tmp_path / "walk.flaneur"), [worlds])
    player.wait_for(WalkScreen)
    return player, recording


def arrive(player: Player, index: int) -> None:
    replay = player.walk.walk.replay
    assert replay is not None
    player.wait(lambda: replay.target is None, "the frame that was sought")
    assert player.walk.walk.frame.index == index


def press(player: Player, scancode: int, mod: int = 0) -> None:
    player.post(pygame.KEYDOWN, key=pygame.K_UNKNOWN, scancode=scancode, mod=mod)
    player.post(pygame.KEYUP, key=pygame.K_UNKNOWN, scancode=scancode, mod=mod)


def test_a_replay_is_sought_held_and_stepped_through_with_keys(watcher: tuple[Player, Recording]) -> None:
    player, _ = watcher
    replay, last = player.walk.walk.replay, CHUNKS * SIZE
    assert replay is not None
    press(player, pygame.KSCAN_SPACE)
    assert not replay.playing
    press(player, pygame.KSCAN_END)
    arrive(player, last)
    press(player, pygame.KSCAN_LEFT, pygame.KMOD_SHIFT)
    arrive(player, last - 16)
    press(player, pygame.KSCAN_COMMA)
    arrive(player, last - 17)
    press(player, pygame.KSCAN_PERIOD)
    arrive(player, last - 16)
    press(player, pygame.KSCAN_LEFT)
    arrive(player, 0)
    press(player, pygame.KSCAN_END)
    press(player, pygame.KSCAN_HOME)
    arrive(player, 0)
    assert not replay.playing
    press(player, pygame.KSCAN_BACKSPACE)
    assert replay.playing
    press(player, pygame.KSCAN_SPACE)
    press(player, pygame.KSCAN_HOME)
    arrive(player, 0)
    press(player, pygame.KSCAN_UP)
    press(player, pygame.KSCAN_EQUALS)
    assert replay.speed == 4.0
    press(player, pygame.KSCAN_SPACE)
    player.wait(lambda: replay.is_at_end, "the end")
    press(player, pygame.KSCAN_SPACE)
    player.wait(lambda: not replay.is_at_end, "the beginning again")
    assert player.walk.walk.planner.rig is None


def test_the_bar_follows_what_is_being_made(watcher: tuple[Player, Recording]) -> None:
    player, _ = watcher
    hud, replay = player.walk._hud, player.walk.walk.replay
    assert replay is not None
    hud.update(IDLE, 0.0)
    assert not hud.update(IDLE, 0.0)
    replay.target = replay.newest + 1
    assert hud.update(IDLE, 0.0)


def test_a_click_in_the_bar_goes_there_and_dragging_follows(watcher: tuple[Player, Recording]) -> None:
    player, _ = watcher
    press(player, pygame.KSCAN_SPACE)
    player.app.draw(time.perf_counter())
    track = player.walk._hud.replay_bar._track
    half = (track.left + track.width // 2, track.centery)
    player.post(pygame.MOUSEBUTTONDOWN, button=1, pos=half)
    arrive(player, CHUNKS * SIZE // 2)
    player.post(pygame.MOUSEMOTION, pos=(track.right + 50, 0), rel=(1, 1), buttons=(1, 0, 0))
    arrive(player, CHUNKS * SIZE)
    player.post(pygame.MOUSEBUTTONUP, button=1, pos=(0, 0))
    player.post(pygame.MOUSEMOTION, pos=half, rel=(1, 1), buttons=(0, 0, 0))
    arrive(player, CHUNKS * SIZE)
    player.post(pygame.MOUSEBUTTONDOWN, button=1, pos=(5, 5))
    assert not player.context.mouse_grabbed


def test_a_gamepad_plays_a_replay(watcher: tuple[Player, Recording]) -> None:
    player, _ = watcher
    replay = player.walk.walk.replay
    assert replay is not None
    for button in (pygame.CONTROLLER_BUTTON_A, pygame.CONTROLLER_BUTTON_DPAD_RIGHT):
        player.post(pygame.CONTROLLERBUTTONDOWN, button=button, instance_id=0)
    assert not replay.playing
    player.wait(lambda: replay.target is None, "five seconds on")
    assert player.walk.walk.frame.index == CHUNKS * SIZE
    player.post(pygame.CONTROLLERBUTTONDOWN, button=pygame.CONTROLLER_BUTTON_LEFTSHOULDER, instance_id=0)
    arrive(player, CHUNKS * SIZE - 1)


def test_a_replay_that_was_sought_is_left_at_the_picture_that_is_on(
    watcher: tuple[Player, Recording],
) -> None:
    player, recording = watcher
    walk = player.walk.walk
    press(player, pygame.KSCAN_SPACE)
    press(player, pygame.KSCAN_END)
    arrive(player, CHUNKS * SIZE)
    walk.history.clear()
    walk.seek(5 * SIZE)
    arrive(player, 5 * SIZE)
    press(player, pygame.KSCAN_J)
    player.wait(lambda: walk.planner.rig is not None, "the walk")
    np.testing.assert_array_equal(walk.frame.c2w, recording.chunks[4].track.c2w[-1])
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(8)
    assert walk.replay is None
    assert [chunk.latents_sha256 for chunk in walk.recorder.walked(5)] == [
        chunk.latents_sha256 for chunk in recording.chunks[:5]
    ]


def test_going_back_by_the_film_strip_of_a_replay_only_seeks(watcher: tuple[Player, Recording]) -> None:
    player, _ = watcher
    walk = player.walk.walk
    player.wait(lambda: walk.frame.index >= 16, "four chunks")
    player.key(pygame.KSCAN_R, down=True)
    shown = player.walk.rewind.frame
    assert shown is not None
    player.key(pygame.KSCAN_R, down=False)
    assert walk.history.name == 1
    player.wait(lambda: walk.frame.index >= shown.index, "the frame gone back to")
    player.wait(lambda: walk.progress == 1.0, "the end")


def test_a_clip_made_after_a_load_holds_what_was_seen_and_its_recording_replays_its_own_seconds(
    player: Player, play: Callable[..., Player], worlds: Path, tmp_path: Path
) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F5)
    player.wait_for_files()
    player.frames_go_by(16)
    seen_before = player.walk.walk.frame.index
    player.key(pygame.KSCAN_F9)
    walk = player.walk.walk
    player.wait(lambda: walk.history.name == 2, "the load")
    loaded_at = walk.frame.index
    player.frames_go_by(9)
    player.key(pygame.KSCAN_P)
    player.key(pygame.KSCAN_F8)
    player.wait_for_files()
    (file,) = (tmp_path / "pictures").glob("*-clip-*.flaneur")
    header = read_recording(file).header
    assert header.first_frame == loaded_at
    assert header.last_frame is not None
    assert header.last_frame == walk.frame.index
    indices = [one.index for one in walk.recent.seen]
    assert indices[: seen_before + 1] == list(range(seen_before + 1)), (
        "the film shows what was on before the load"
    )
    player.close()
    again = play(PlayOptions(replay=file), [worlds])
    again.wait_for(WalkScreen)
    replay = again.walk.walk.replay
    assert replay is not None
    assert replay.span == Span(header.first_frame, header.last_frame)
    again.wait(lambda: replay.target is None, "its first second")
    assert again.walk.walk.frame.index >= loaded_at
    again.wait(lambda: again.walk.walk.progress == 1.0, "its end")
    assert again.walk.walk.frame.index == header.last_frame


def test_steps_are_heard_in_a_replay_on_the_ground_and_none_in_the_air(
    watcher: tuple[Player, Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    player, _ = watcher
    heard: list[bool] = []
    monkeypatch.setattr(player.context.sound, "follow", lambda _, on_foot: heard.append(on_foot))
    player.frames_go_by(1)
    assert set(heard) == {True}
    frame = player.walk.walk.frame
    c2w = frame.c2w.copy()
    c2w[1, 3] -= 0.5
    assert not player.walk._is_on_foot(replace(frame, c2w=c2w))


def test_a_clip_is_replayed_by_the_recording_beside_it(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = sorted(worlds.glob("*.world"))[0]
    session = open_session(read_world(world), backend="holodeck")
    recorded(session, tmp_path / "clip.flaneur")
    session.close()
    words = ["replay", str(tmp_path / "clip.mp4"), "--world", str(world), "--verify"]
    assert cli.app.run(words) == 0
    (tmp_path / "clip.flaneur").unlink()
    assert cli.app.run(words) == 2
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "clip.mp4").touch()
    assert cli.app.run(words) == 2
    assert "clip.flaneur, which does not lie beside it" in capsys.readouterr().err


def test_a_clips_recording_is_replayed_over_its_own_seconds_without_a_window_too(
    worlds: Path, tmp_path: Path
) -> None:
    world = sorted(worlds.glob("*.world"))[0]
    session = open_session(read_world(world), backend="holodeck")
    recording = recorded(session, tmp_path / "walk.flaneur")
    session.close()
    header = recording.header.model_copy(update={"first_frame": 5, "last_frame": 11})
    with RecordingWriter(tmp_path / "clip.flaneur", header) as writer:
        for chunk in recording.chunks:
            writer.append(chunk.track, chunk.latents_sha256)
    files = {name: tmp_path / f"o{name}" for name in (".npz", ".mp4")}
    words = ["replay", str(tmp_path / "clip.flaneur"), "--world", str(world)]
    assert cli.app.run([*words, "--frames", str(files[".npz"]), "--video", str(files[".mp4"])]) == 0
    c2w = read_npz(files[".npz"], ("c2w",), (), 999)["c2w"]
    walked = np.concatenate([chunk.track.c2w for chunk in recording.chunks])
    np.testing.assert_array_equal(c2w, walked[4:11])
    told = read_video_description(files[".mp4"])
    assert (told["num_frames"], told["first_frame"], told["last_frame"]) == (7, 5, 11)
