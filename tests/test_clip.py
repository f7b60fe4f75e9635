"""The good moment is kept: the last half minute as a film and a recording, photos in peace, all read back."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pygame
import pytest

from cli.app import run
from client.camera.planner import rig_planner
from client.input.controls import Intent
from client.playback.captures import describe_capture
from client.playback.history import RecentFrames, WalkFrame
from client.playback.recorder import Clip, write_clip
from client.playback.walk import Walk
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from engine.files.bundle import Bundle
from engine.files.recording import read_recording
from engine.files.video import open_video, read_video_description
from engine.files.world import World
from engine.session.opening import open_session
from tests.player import Player
from tests.replays import verify_replay


def frame(index: int) -> WalkFrame:
    return WalkFrame(index, np.zeros((2, 2, 3), np.uint8), np.eye(4), index // 4)


def test_half_a_minute_is_kept_and_less_where_frames_are_large() -> None:
    recent, short = RecentFrames(16.0, 12), RecentFrames(16.0, 12, budget_bytes=120)
    for index in range(1000):
        recent.see([frame(index)])
        short.see([frame(index)])
    assert [kept.index for kept in recent.seen] == list(range(520, 1000))
    assert recent.run == recent.seen
    assert len(short.seen) == 10


def test_a_film_holds_what_was_on_and_a_recording_the_walk_since_the_last_jump() -> None:
    recent = RecentFrames(16.0, 12)
    recent.see([frame(index) for index in range(20)])
    recent.see([frame(7)], jumped=True)
    recent.see([frame(8), frame(9)])
    assert [kept.index for kept in recent.seen] == [*range(20), 7, 8, 9]
    assert [kept.index for kept in recent.run] == [7, 8, 9]


def texts(player: Player) -> str:
    return " ".join(player.context.toasts.texts(time.perf_counter()))


def keep_clip(player: Player, folder: Path) -> Path:
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(16)
    player.key(pygame.KSCAN_W, down=False)
    player.key(pygame.KSCAN_F8)
    player.wait(lambda: "recording beside it" in texts(player), "the clip")
    (file,) = folder.glob("*.mp4")
    return file


def test_one_key_keeps_a_film_that_says_what_it_is_and_a_recording_that_goes_there_again(
    player: Player, play: Callable[..., Player], worlds: Path, tmp_path: Path
) -> None:
    file = keep_clip(player, tmp_path / "pictures")
    session = player.walk.walk.session
    told = read_video_description(file)
    recording = read_recording(tmp_path / "pictures" / told["poses"])
    assert recording.complete
    assert (told["seed"], told["world_sha256"]) == (0, session.world.sha256)
    assert told["bundle_sha256"] == session.identity.partition(":")[0]
    assert told["app_version"] == recording.header.app_version
    assert told["frame_size"] == [640, 384]
    assert told["num_frames"] == told["last_frame"] + 1
    assert told["first_frame"] == 0
    assert 16 <= told["last_frame"] <= 4 * len(recording.chunks)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (640, 384)
        assert sum(1 for _ in container.decode(stream)) == told["last_frame"] + 1
    player.close()
    again = play(PlayOptions(replay=file.with_suffix(".flaneur")), [worlds])
    again.wait_for(WalkScreen)
    again.wait(lambda: again.walk.walk.progress == 1.0, "the end of the replay")
    last = again.walk.walk.frame
    assert (last.c2w == recording.chunks[-1].track.c2w[-1]).all()


def test_a_film_without_a_window_has_the_size_and_the_length_it_says(worlds: Path, tmp_path: Path) -> None:
    world, file = sorted(worlds.glob("*.world"))[0], tmp_path / "o.mp4"
    words = ["play", str(world), "--headless", "--backend", "holodeck", "--chunks", "2", "--video", str(file)]
    assert run(words) == 0
    told = read_video_description(file)
    assert (told["frame_size"], told["num_frames"], told["world"]) == ([40, 24], 9, world.stem)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert [stream.width, stream.height] == told["frame_size"]
        assert float(stream.average_rate or 0) == told["fps"]
        assert sum(1 for _ in container.decode(stream)) == told["num_frames"]


def test_a_second_press_while_a_clip_is_written_makes_no_second_clip(player: Player, tmp_path: Path) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F8)
    player.key(pygame.KSCAN_F8)
    assert "still being written" in texts(player)
    player.wait(lambda: "recording beside it" in texts(player), "the clip")
    assert len(list((tmp_path / "pictures").glob("*.mp4"))) == 1


def test_a_disk_that_takes_no_clip_is_told_about_and_the_walk_goes_on(player: Player, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_bytes(b"in the way")
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F8)
    player.wait(lambda: "annot make the folder" in texts(player), "the refusal")
    player.frames_go_by(8)


def test_starting_again_ends_photo_mode(player: Player) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_O)
    player.key(pygame.KSCAN_BACKSPACE)
    player.frames_go_by(8)
    player.key(pygame.KSCAN_R, down=True)
    assert player.walk.walk.paused
    assert not player.walk._capture.photo_mode, "what lies over the film is hidden in photo mode"
    player.key(pygame.KSCAN_R, down=False)


def test_photo_mode_holds_the_world_and_hides_what_lies_over_it(player: Player, tmp_path: Path) -> None:
    player.key(pygame.KSCAN_F3)
    player.frames_go_by(8)
    player.app.turn()
    with_figures = pygame.surfarray.array3d(player.window.surface)
    player.key(pygame.KSCAN_O)
    walk = player.walk.walk
    assert walk.paused
    player.wait(lambda: not player.context.toasts.texts(time.perf_counter()), "the message to go")
    player.post(pygame.WINDOWEXPOSED)
    bare = pygame.surfarray.array3d(player.window.surface)
    assert np.abs(with_figures[20:120, 20:60].astype(int) - bare[20:120, 20:60]).mean() > 5.0
    held = walk.frame.index
    player.key(pygame.KSCAN_F12)
    player.wait_for_files()
    (file,) = (tmp_path / "pictures").glob("*.png")
    told = describe_capture(file)
    assert (told["frame"], told["seed"]) == (held, 0)
    assert (np.array(told["c2w"]) == walk.frame.c2w).all()
    player.key(pygame.KSCAN_ESCAPE)
    assert not walk.paused
    player.frames_go_by(4)


def test_the_menu_ends_photo_mode(player: Player) -> None:
    player.frames_go_by(4)
    player.key(pygame.KSCAN_O)
    player.key(pygame.KSCAN_P)
    player.key(pygame.KSCAN_P)
    assert not player.walk.walk.paused
    player.frames_go_by(4)


def test_what_was_kept_is_read_back_by_one_command(
    player: Player, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = keep_clip(player, tmp_path / "pictures")
    player.key(pygame.KSCAN_F12)
    player.key(pygame.KSCAN_F5)
    player.wait(lambda: "Saved at" in texts(player), "the save")
    photos = (tmp_path / "pictures").glob("*.png")
    states = (tmp_path / "pictures" / "saves").glob("*.state")
    for file in (clip, clip.with_suffix(".flaneur"), *photos, *states):
        capsys.readouterr()
        assert run(["describe", str(file), "--json"]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["world"] == player.walk.walk.session.world.name
        assert told["seed"] == 0
        assert told["app_version"]
        assert any(
            np.reshape(told[name], (4, 4))[3, 3] == 1.0 for name in ("c2w", "start_c2w") if name in told
        )
        assert run(["describe", str(file)]) == 0
        said = capsys.readouterr().out
        assert "place  " in said
        assert "view  " in said
        if file.suffix != ".png":
            assert "1, of the window" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(40)),
        ("a.mp4", b"junk"),
        ("a.flaneur", b"junk"),
        ("a.state", b"junk"),
        ("a.txt", b""),
        ("b.png", b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0btEXtflaneur\0{{{" + bytes(4)),
    ],
)
def test_what_says_nothing_is_refused_in_one_sentence(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert run(["describe", str(tmp_path / name)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert run(["describe", str(tmp_path / "absent" / name)]) == 2


def test_a_video_of_others_says_nothing(tmp_path: Path) -> None:
    with open_video(tmp_path / "plain.mp4", (16, 16), 16.0) as video:
        video.write(np.zeros((2, 16, 16, 3), np.uint8))
    assert read_video_description(tmp_path / "plain.mp4") == {}


def test_the_recording_of_a_clip_of_a_model_verifies(
    toy_bundle: Bundle, toy_world: World, tmp_path: Path
) -> None:
    session = open_session(toy_world, toy_bundle, denoise_threads=1)
    walk, told = Walk(session, rig_planner(session), 3, time.perf_counter), []
    try:
        deadline_s = time.perf_counter() + 30.0
        while walk.frame.index < 12:
            assert time.perf_counter() < deadline_s
            walk.update(Intent(forward=1.0, yaw=1.0), time.perf_counter())
            time.sleep(0.001)
        frames = walk.recent.seen
        chunks = walk.recorder.walked(3)
        write_clip(
            Clip(tmp_path / "clip.mp4", frames, session.fps, "crisp", walk.header(), chunks), told.append
        )
    finally:
        walk.close()
    assert told == sorted(told)
    assert told[-1] == 1.0
    recording = read_recording(tmp_path / "clip.flaneur")
    again = open_session(toy_world, toy_bundle, denoise_threads=1)
    assert verify_replay(recording, again).identical
