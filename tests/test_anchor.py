"""A world begun in the middle of a walk: the picture goes on from where it was, and its file is the same world."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygame
import pytest

import holodeck
from client.camera.planner import rig_planner
from client.input.controls import Intent
from client.playback.walk import Walk
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from engine.camera.actions import integrate_actions, parse_actions
from engine.camera.tracks import Track
from engine.errors import SpecMismatch
from engine.files.bundle import Bundle
from engine.files.own_worlds import world_from_walk
from engine.files.recording import read_recording
from engine.files.world import World, find_world, read_world, write_world
from engine.machine import assets
from engine.memory.keyframes import Keyframe
from engine.session.headless import place_track
from engine.session.opening import open_session
from engine.session.protocol import Session
from engine.types import CameraTrack, FrameChunk
from tests.player import Player
from tests.replays import verify_replay

NUM_BEFORE, NUM_AFTER = 4, 3


def chunk_track(track: CameraTrack, number: int, size: int) -> CameraTrack:
    frames = slice(1 + number * size, 1 + (number + 1) * size)
    return CameraTrack(track.c2w[frames], track.intrinsics[frames])


def steps(session: Session, track: CameraTrack, first: int, last: int) -> list[FrameChunk]:
    size = session.frames_per_chunk
    return [session.step(chunk_track(track, number, size)) for number in range(first, last)]


def begun_at(world: World, chunk: FrameChunk, keyframes: Sequence[Keyframe] = ()) -> World:
    assert chunk.latents is not None
    return world_from_walk(
        world, chunk.latents[:, -1], chunk.frames[-1], chunk.c2w[-1], keyframes, name="begun", title="Begun"
    )


@pytest.fixture
def toy_walk(toy_bundle: Bundle, toy_world: World) -> tuple[Session, CameraTrack]:
    session = open_session(toy_world, toy_bundle, denoise_threads=1, keep_latents=True)
    session.reset(3)
    c2w = integrate_actions(parse_actions("w-32,aw-64"), 16.0)
    return session, place_track(Track(c2w), toy_world)


def test_going_over_in_place_is_opening_the_file_bit_for_bit(
    toy_walk: tuple[Session, CameraTrack], toy_bundle: Bundle, tmp_path: Path
) -> None:
    session, track = toy_walk
    last = steps(session, track, 0, 4)[-1]
    begun = begun_at(session.world, last)
    write_world(tmp_path / f"{begun.name}.world", begun)
    read = read_world(tmp_path / f"{begun.name}.world")
    assert read.sha256 == begun.sha256
    session.enter(begun)
    session.reset(3)
    in_place = steps(session, track, 4, 8)
    opened = open_session(read, toy_bundle, denoise_threads=1)
    assert opened.identity == session.identity
    opened.reset(3)
    assert [chunk.latents_sha256 for chunk in steps(opened, track, 4, 8)] == [
        chunk.latents_sha256 for chunk in in_place
    ]


def test_the_model_is_told_poses_from_the_origin_of_the_first_world(
    toy_walk: tuple[Session, CameraTrack], toy_bundle: Bundle
) -> None:
    session, track = toy_walk
    begun = begun_at(session.world, steps(session, track, 0, 4)[-1])
    assert (begun.origin_c2w == session.world.c2w).all()
    again = begun_at(begun, steps(session, track, 4, 6)[-1])
    assert (again.origin_c2w == session.world.c2w).all()

    made = {}
    for name, world in (("kept", begun), ("lost", replace(begun, origin=None))):
        other = open_session(world, toy_bundle, denoise_threads=1)
        other.reset(3)
        made[name] = steps(other, track, 4, 5)[0].latents_sha256
    assert made["kept"] != made["lost"]


def test_an_origin_that_is_no_pose_is_refused(toy_world: World, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="the origin of the world"):
        write_world(tmp_path / "bad.world", replace(toy_world, origin=np.zeros((4, 4))))
    assert toy_world.origin_c2w is toy_world.c2w


def test_a_world_without_an_origin_of_its_own_is_written_as_before(toy_world: World, tmp_path: Path) -> None:
    write_world(tmp_path / "toy.world", toy_world)
    assert b"origin" not in (tmp_path / "toy.world").read_bytes()
    assert read_world(tmp_path / "toy.world").origin is None


def quality_db(chunks: list[FrameChunk], world: World, track: CameraTrack) -> float:
    """Return the mean PSNR against the place that the world was learnt from."""
    assert world.place is not None
    place = holodeck.get_place(world.place)
    width, height = world.frame_size
    ratios = []
    for chunk in chunks:
        for frame, c2w in zip(chunk.frames, chunk.c2w, strict=True):
            truth = place.render(c2w, world.intrinsics, width, height)
            ratios.append(10 * np.log10(255**2 / np.mean((frame.astype(float) - truth) ** 2)))
    return float(np.mean(ratios))


def test_the_pocket_picture_goes_on_from_where_it_was() -> None:
    """A world that begins in the middle of a walk brings the memory along."""
    world = read_world(assets.worlds_dir() / "canyon.world")
    session = open_session(world, denoise_threads=1, keep_latents=True)
    c2w = integrate_actions(parse_actions(f"w-32,aw-{4 * (NUM_BEFORE + NUM_AFTER)}"), session.fps)
    track = place_track(Track(c2w), world)
    session.reset(0)
    last = steps(session, track, 0, NUM_BEFORE)[-1]
    went_on = steps(session, track, NUM_BEFORE, NUM_BEFORE + NUM_AFTER)
    begun = begun_at(world, last, session.keyframes)
    session.enter(begun)
    session.reset(0)
    kept = steps(session, track, NUM_BEFORE, NUM_BEFORE + NUM_AFTER)
    assert quality_db(kept, world, track) > quality_db(went_on, world, track) - 1.5
    seam = np.abs(kept[0].frames[0].astype(float) - last.frames[-1]).mean()
    ahead = np.abs(went_on[0].frames[0].astype(float) - last.frames[-1]).mean()
    assert seam < 2.0 * ahead


def wait(walk: Walk, done: Callable[[], bool], intent: Intent) -> None:
    deadline_s = time.perf_counter() + 30.0
    while not done():
        assert time.perf_counter() < deadline_s
        walk.update(intent, time.perf_counter())
        time.sleep(0.001)


def test_a_walk_goes_over_at_once_and_begins_at_the_picture_that_was_on(
    toy_bundle: Bundle, toy_world: World
) -> None:
    session = open_session(toy_world, toy_bundle, denoise_threads=1, keep_latents=True)
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    ahead = Intent(forward=1.0, rise=0.5)
    try:
        wait(walk, lambda: walk.recorder.num_chunks >= 5, ahead)
        old_rig = walk.planner.rig
        walk.history.clear()
        assert walk.chunk_end is not None
        frame, latent = walk.chunk_end
        assert frame.index >= walk.frame.index
        walk.enter(world_from_walk(toy_world, latent, frame.pixels, frame.c2w, name="begun", title="Begun"))
        wait(walk, lambda: not walk.entering, ahead)
        assert (walk.frame.pixels == frame.pixels).all()
        assert (walk.frame.c2w == frame.c2w).all()
        assert walk.chunk_end is None
        assert walk.recorder.num_chunks == 0
        assert not walk.history.snapshots
        wait(walk, lambda: walk.recorder.num_chunks >= 2, ahead)
        first = walk.recorder.walked(1)[0].track.c2w[0]
        assert np.linalg.norm(first[:3, 3] - frame.c2w[:3, 3]) < 0.2
        rig = walk.planner.rig
        assert rig is not None
        assert rig is not old_rig
        assert rig.height_m == pytest.approx(-float(rig.c2w[1, 3] - toy_world.c2w[1, 3]))
    finally:
        walk.close()


def test_a_pause_on_the_way_to_another_world_holds_there_and_ends(
    toy_bundle: Bundle, toy_world: World
) -> None:
    session = open_session(toy_world, toy_bundle, denoise_threads=1, keep_latents=True)
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    ahead = Intent(forward=1.0)
    try:
        wait(walk, lambda: walk.recorder.num_chunks >= 2, ahead)
        assert walk.chunk_end is not None
        frame, latent = walk.chunk_end
        walk.enter(world_from_walk(toy_world, latent, frame.pixels, frame.c2w, name="begun", title="Begun"))
        walk.pause()
        wait(walk, lambda: not walk.entering, ahead)
        assert walk.paused
        walk.resume()
        wait(walk, lambda: walk.recorder.num_chunks >= 2, ahead)
    finally:
        walk.close()


def test_one_key_makes_the_picture_a_world_that_can_be_opened_again(
    play: Callable[..., Player], tmp_path: Path
) -> None:
    player = play(PlayOptions(world="town"), [assets.worlds_dir()])
    player.wait_for(WalkScreen)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(8)
    walk = player.walk.walk
    player.key(pygame.KSCAN_F6)
    player.wait(lambda: bool(list((tmp_path / "pictures" / "worlds").glob("*.world"))), "the file")
    player.wait(lambda: not walk.entering, "the other world")
    (file,) = (tmp_path / "pictures" / "worlds").glob("*.world")
    begun = read_world(file)
    assert walk.session.world.sha256 == begun.sha256
    assert (walk.frame.pixels == begun.first_frame).all()
    player.frames_go_by(8)
    player.close()
    again = play(PlayOptions(world=str(file)), [file.parent])
    again.wait_for(WalkScreen)
    again.frames_go_by(4)


def test_a_recording_over_a_new_world_is_two_that_both_verify(
    play: Callable[..., Player], tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    player = play(PlayOptions(world="town"), [assets.worlds_dir(), pictures / "worlds"])
    player.wait_for(WalkScreen)
    player.key(pygame.KSCAN_F10)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(8)
    walk = player.walk.walk
    first = walk.recorder.path
    assert first is not None
    player.key(pygame.KSCAN_F6)
    player.wait(lambda: walk.recorder.path not in (None, first), "the next recording")
    assert any(
        f"{first.name} is whole; the new world is recorded to" in text
        for text in player.context.toasts.texts(time.perf_counter())
    )
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F10)
    player.wait_for_files()
    second = first.with_name(f"{first.stem}-2.flaneur")
    assert set(pictures.glob("*.flaneur")) == {first, second}
    for file, world in ((first, "town"), (second, walk.session.world.name)):
        recording = read_recording(file)
        assert recording.complete
        assert recording.header.world == world
        session = open_session(find_world(world, player.context.folders), keep_latents=True, refiner="auto")
        assert verify_replay(recording, session).identical
        session.close()


def test_a_world_that_cannot_be_entered_begins_no_recording(
    toy_bundle: Bundle, toy_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(toy_world, toy_bundle, denoise_threads=1, keep_latents=True)
    walk, arrived = Walk(session, rig_planner(session), 3, time.perf_counter), []
    try:
        wait(walk, lambda: walk.recorder.num_chunks >= 2, Intent(forward=1.0))
        assert walk.chunk_end is not None
        frame, latent = walk.chunk_end

        def fail(_: World) -> None:
            raise SpecMismatch("it does not fit")

        monkeypatch.setattr(session, "enter", fail)
        walk.enter(
            world_from_walk(toy_world, latent, frame.pixels, frame.c2w, name="begun", title="Begun"),
            lambda: arrived.append(True),
        )
        with pytest.raises(SpecMismatch, match="does not fit"):
            wait(walk, lambda: False, Intent())
        assert not arrived
    finally:
        walk.close()


def test_a_world_begun_after_going_back_is_that_of_the_moment_gone_back_to(
    toy_bundle: Bundle, toy_world: World
) -> None:
    session = open_session(toy_world, toy_bundle, denoise_threads=1, keep_latents=True)
    walk = Walk(session, rig_planner(session), 3, time.perf_counter)
    try:
        wait(walk, lambda: walk.recorder.num_chunks >= 5, Intent(forward=1.0))
        moment = walk.history.at(2)
        assert moment is not None
        assert moment.latent is not None
        walk.branch_off(moment)
        assert walk.chunk_end is not None
        frame, latent = walk.chunk_end
        assert frame is moment.frame
        assert (latent == moment.latent).all()
    finally:
        walk.close()


def test_the_holodeck_has_nothing_to_begin_anew(player: Player) -> None:
    player.frames_go_by(8)
    player.key(pygame.KSCAN_F6)
    assert any("no latents" in text for text in player.context.toasts.texts(time.perf_counter()))
    player.frames_go_by(4)
