"""A session refines between denoising and decoding; rewinds, saves and replays of refined walks come out bit for bit."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pygame
import pytest

pytest.importorskip("onnxscript")

from cli.app import run
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from client.ui.metrics import metric_lines, read_metrics
from engine.backends.onnxruntime import OnnxRuntimeGraphs
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import Bundle
from engine.files.recording import read_recording
from engine.files.recording_writer import RecordingWriter
from engine.files.refiner import bundled_refiner, open_refiner
from engine.files.saved_walk import SavedInfo, SavedWalk, read_saved_walk, session_spec, write_saved_walk
from engine.files.world import World, read_world, write_world
from engine.machine import assets
from engine.machine.doctor import check_bundles
from engine.session.chunk_refiner import ChunkRefiner
from engine.session.headless import run_headless
from engine.session.opening import RefinerMode, open_session
from engine.session.protocol import Session
from engine.session.replay import Comparison, header_for
from engine.types import CameraTrack, FrameChunk
from evaluation.rollouts import stream
from tests.exported_bundles import with_refiner
from tests.replays import verify_replay
from training.pocket.publish import kept_refiner

if TYPE_CHECKING:
    from tests.player import Player

ON_AND_OFF = [True, True, False, False, True, True, True, True, True, True]


@pytest.fixture(scope="module")
def bundle(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory, shared_folder: Path
) -> Bundle:
    """Chunks of three latent frames, the first of four, as the released model makes them."""
    return with_refiner(make_bundle(3, 4), tmp_path_factory.mktemp("refined") / "toy", shared_folder)


def opened(bundle: Bundle, world: World) -> Session:
    return open_session(world, bundle, denoise_threads=1, keep_latents=True, refiner="on")


def track_of(session: Session, step: int, refine: bool) -> CameraTrack:
    frames = session.frames_per_chunk * step + 1 + np.arange(session.frames_per_chunk)
    c2w = np.tile(session.world.c2w, (len(frames), 1, 1))
    c2w[:, 0, 3] += 0.03 * frames
    return CameraTrack(c2w, np.tile(session.world.intrinsics, (len(frames), 1)), refine=refine)


def steps(session: Session, first: int, refined: list[bool]) -> list[FrameChunk]:
    return [session.step(track_of(session, first + i, refine)) for i, refine in enumerate(refined)]


def hashes(chunks: list[FrameChunk]) -> list[str]:
    return [chunk.latents_sha256 for chunk in chunks]


def test_refined_chunks_are_others_and_their_times_count_the_refiner(bundle: Bundle, toy_world: World):
    session = opened(bundle, toy_world)
    session.reset(3)
    plain = steps(session, 0, [False] * 3)
    assert plain[0].times.refine_ms == 0.0
    session.reset(3)
    refined = steps(session, 0, [True, False, True])
    same = [a == b for a, b in zip(hashes(plain), hashes(refined), strict=True)]
    # The generator's own state never meets a refined latent, so that a chunk in between is as it was.
    assert same == [False, True, False]
    assert refined[0].latents is not None
    np.testing.assert_array_equal(refined[0].latents[:, 0], toy_world.first_latent)
    times = refined[0].times
    assert 0 < times.refine_ms <= times.refine_delay_ms <= times.chunk_ms


def test_a_stream_that_was_rebuilt_far_on_has_the_same_keys_and_values(bundle: Bundle, toy_world: World):
    folder = open_refiner(bundle.path / "refiner")
    runner = OnnxRuntimeGraphs(folder, 1)
    refiner = ChunkRefiner(folder, runner)
    refiner.enter(toy_world)
    refiner.begin(toy_world.first_latent)
    rng = np.random.default_rng(0)
    clip = rng.standard_normal((12, 2, *refiner.block_shape), np.float32)
    for latents, noise in clip[:9]:
        refiner.refine(latents, noise)
    history = refiner.history
    # Two blocks, each of which looks back by one block of latents.
    assert len(history.blocks) == refiner.reach == 2
    assert history.num_blocks == 9
    on = [refiner.refine(*block) for block in clip[9:]]
    other = ChunkRefiner(folder, runner)
    other.enter(toy_world)
    other.restore(history)
    np.testing.assert_array_equal([other.refine(*block) for block in clip[9:]], on)
    short = replace(history, blocks=history.blocks[1:])
    other.restore(short)
    assert not np.array_equal(other.refine(*clip[9]), on[0])


@pytest.mark.parametrize("at", [1, 2, 3, 5, 9])
def test_snapshots_go_on_bit_for_bit_wherever_the_refiner_was_switched(
    bundle: Bundle, toy_world: World, at: int
):
    session = opened(bundle, toy_world)
    session.reset(3)
    session.keep_snapshots = True
    whole = steps(session, 0, ON_AND_OFF)
    snapshot = whole[at - 1].snapshot
    assert snapshot is not None
    other = opened(bundle, toy_world)
    other.restore(snapshot)
    after = steps(other, at, ON_AND_OFF[at:])
    assert hashes(after) == hashes(whole[at:])
    np.testing.assert_array_equal([chunk.frames for chunk in after], [chunk.frames for chunk in whole[at:]])


def test_snapshots_share_refined_blocks_and_hold_no_keys(bundle: Bundle, toy_world: World):
    session = opened(bundle, toy_world)
    session.reset(3)
    session.keep_snapshots = True
    chunks = steps(session, 0, [True] * 6)
    sizes = [chunk.snapshot.num_bytes for chunk in chunks if chunk.snapshot is not None]
    assert len(set(sizes)) == 1
    first, second = (chunk.snapshot for chunk in chunks[-2:])
    assert first is not None
    assert second is not None
    assert first.refined is not None
    assert second.refined is not None
    assert first.refined.blocks[1] is second.refined.blocks[0]


def test_a_saved_walk_goes_on_refined(bundle: Bundle, toy_world: World, tmp_path: Path):
    session = opened(bundle, toy_world)
    session.reset(3)
    session.keep_snapshots = True
    whole = steps(session, 0, ON_AND_OFF)
    file = tmp_path / "walk.state"
    write_saved_walk(file, saved(session, whole[:7]))
    other = opened(bundle, toy_world)
    read = read_saved_walk(file, session_spec(other), "current")
    assert [chunk.track.refine for chunk in read.chunks] == ON_AND_OFF[:7]
    other.restore(read.snapshot)
    assert hashes(steps(other, 7, ON_AND_OFF[7:])) == hashes(whole[7:])
    plain = open_session(toy_world, bundle, denoise_threads=1)
    with pytest.raises(SpecMismatch, match="another than this"):
        read_saved_walk(file, session_spec(plain), "current")


def saved(session: Session, chunks: list[FrameChunk]) -> SavedWalk:
    from engine.files.recording import RecordedChunk

    last = chunks[-1]
    assert last.snapshot is not None
    info = SavedInfo(
        app_version="0",
        world=session.world.name,
        world_sha256=session.world.sha256,
        engine=session.engine,
        backend=session.backend,
        identity=session.identity,
        key_map="current",
        seed=3,
        chunk_index=last.snapshot.chunk_index,
        frame_index=len(chunks) * session.frames_per_chunk,
        flying=False,
        held=[],
    )
    walked = tuple(
        RecordedChunk(i, chunk.track, chunk.latents_sha256, np.empty((0, 11)))
        for i, chunk in enumerate(chunks)
    )
    return SavedWalk(info, last.snapshot, last.frames[-1], last.c2w[-1], None, np.empty(0), walked)


def test_a_recording_switched_on_and_off_verifies(bundle: Bundle, toy_world: World, tmp_path: Path):
    session = opened(bundle, toy_world)
    session.reset(3)
    file = tmp_path / "walk.flaneur"
    with RecordingWriter(file, header_for(session, "current")) as writer:
        for chunk in steps(session, 0, ON_AND_OFF):
            writer.append(chunk.track, chunk.latents_sha256, latents=chunk.latents)
    recording = read_recording(file, with_latents=True)
    assert recording.header.refiner_sha256 == session.refiner_sha256
    assert [chunk.track.refine for chunk in recording.chunks] == ON_AND_OFF
    comparison = Comparison(recording)
    walked = recording.track()
    track = CameraTrack(walked.c2w, toy_intrinsics(toy_world, walked.num_frames))
    run_headless(
        opened(bundle, toy_world),
        track,
        len(ON_AND_OFF),
        3,
        partial(take, comparison),
        refined=ON_AND_OFF,
    )
    assert comparison.report().identical
    other = Comparison(recording)
    run_headless(
        opened(bundle, toy_world),
        track,
        len(ON_AND_OFF),
        3,
        partial(take, other),
    )
    # By default all are refined, and the third was not.
    assert other.report().first_different == 2
    assert other.report().max_difference


def test_the_key_switches_the_refiner_under_way_and_the_recording_verifies(
    bundle: Bundle, toy_world: World, tmp_path: Path, play: Callable[..., Player]
):
    world, file = tmp_path / "toy.world", tmp_path / "walk.flaneur"
    write_world(world, toy_world)
    options = PlayOptions(world=str(world), engine=str(bundle.path), record=file, refiner="on")
    player = play(options, [tmp_path])
    player.wait_for(WalkScreen)
    walk = player.walk.walk
    player.key(pygame.KSCAN_W, down=True)
    for _ in range(4):
        player.frames_go_by(2 * walk.session.frames_per_chunk)
        player.key(pygame.KSCAN_F7)
    player.key(pygame.KSCAN_W, down=False)
    assert walk.statistics.latency.refiner.count
    assert "refiner" in [name for _, name, _ in metric_lines(read_metrics(walk, 1.0, reprojecting=False))]
    player.walk.leave()
    recording = read_recording(file)
    refined = [chunk.track.refine for chunk in recording.chunks]
    assert refined[0]
    assert sum(a != b for a, b in itertools.pairwise(refined)) >= 2
    other = open_session(read_world(world), bundle, refiner="on")
    assert verify_replay(recording, other).identical


def test_headless_walks_are_refined_unless_they_are_asked_not_to_be(
    bundle: Bundle, toy_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    world, file = tmp_path / "toy.world", tmp_path / "walk.flaneur"
    write_world(world, toy_world)
    arguments = ["play", str(world), "--engine", str(bundle.path), "--headless", "--chunks", "3", "--json"]
    made = {}
    for mode in ("auto", "off"):
        assert run([*arguments, "--refiner", mode]) == 0
        made[mode] = json.loads(capsys.readouterr().out.splitlines()[-1])["latents_sha256"]
    assert made["auto"] != made["off"]
    assert run([*arguments, "--record", str(file)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["latents_sha256"] == made["auto"]
    replay = ["replay", str(file), "--world", str(world), "--engine", str(bundle.path)]
    assert run([*replay, "--verify"]) == 0
    assert "identical: all 3 chunks" in capsys.readouterr().out
    assert run([*replay, "--from-latents", "--json"]) == 0
    assert run(["play", "--refiner", "on", "--headless", "--chunks", "1", "--backend", "holodeck"]) == 2
    assert "nothing to refine" in capsys.readouterr().err


def take(comparison: Comparison, chunk: FrameChunk) -> None:
    comparison.take(chunk.latents_sha256, chunk.latents)


def toy_intrinsics(world: World, num_frames: int) -> np.ndarray:
    return np.tile(world.intrinsics, (num_frames, 1))


def test_a_refiner_is_opened_where_there_is_one_that_fits(
    bundle: Bundle, toy_world: World, toy_bundle: Bundle
):
    assert bundled_refiner(toy_bundle) is None
    assert not open_session(toy_world, toy_bundle, refiner="auto").has_refiner
    assert open_session(toy_world, bundle, refiner="auto").has_refiner
    assert not open_session(toy_world, bundle).has_refiner
    with pytest.raises(BackendUnavailable, match="has no refiner"):
        open_session(toy_world, toy_bundle, refiner="on")
    wordless = replace(toy_world, refiner_text=np.zeros((3, 5), np.float32))
    assert not open_session(wordless, bundle, refiner="auto").has_refiner
    with pytest.raises(SpecMismatch, match="no text for this refiner"):
        open_session(wordless, bundle, refiner="on")
    session = open_session(toy_world, bundle)
    session.reset(0)
    with pytest.raises(ValueError, match="without a refiner"):
        session.step(track_of(session, 0, refine=True))


@pytest.fixture(scope="module")
def optional(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory, shared_folder: Path
) -> Bundle:
    """A bundle whose refiner is an option."""
    folder = tmp_path_factory.mktemp("optional") / "toy"
    return with_refiner(make_bundle(3, 4), folder, shared_folder, by_default=False)


def test_a_refiner_that_is_an_option_refines_once_it_is_asked_to(
    optional: Bundle, toy_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    modes: dict[RefinerMode, tuple[bool, bool]] = {}
    for mode in get_args(RefinerMode):
        session = open_session(toy_world, optional, refiner=mode)
        modes[mode] = session.has_refiner, session.refines_by_default
    assert modes == {"on": (True, True), "off": (False, False), "auto": (True, False)}
    world = tmp_path / "toy.world"
    write_world(world, toy_world)
    arguments = ["play", str(world), "--engine", str(optional.path), "--headless", "--chunks", "2", "--json"]
    made = {}
    for mode in modes:
        assert run([*arguments, "--refiner", mode]) == 0
        made[mode] = json.loads(capsys.readouterr().out.splitlines()[-1])["latents_sha256"]
    assert made["auto"] == made["off"] != made["on"]


def test_the_key_turns_an_optional_refiner_on_and_the_recording_verifies(
    optional: Bundle, toy_world: World, tmp_path: Path, play: Callable[..., Player]
):
    world, file = tmp_path / "toy.world", tmp_path / "walk.flaneur"
    write_world(world, toy_world)
    player = play(PlayOptions(world=str(world), engine=str(optional.path), record=file), [tmp_path])
    player.wait_for(WalkScreen)
    walk = player.walk.walk
    assert (walk.session.has_refiner, walk.refiner_wanted) == (True, False)
    player.key(pygame.KSCAN_W, down=True)
    for wanted in (True, False):
        player.frames_go_by(4 * walk.session.frames_per_chunk)
        player.key(pygame.KSCAN_F7)
        assert walk.refiner_wanted is wanted
        assert player.context.settings.refiner == ("on" if wanted else "off")
    player.frames_go_by(2 * walk.session.frames_per_chunk)
    player.key(pygame.KSCAN_W, down=False)
    player.walk.leave()
    recording = read_recording(file)
    refined = [chunk.track.refine for chunk in recording.chunks]
    assert not refined[0]
    assert any(refined)
    other = open_session(read_world(world), optional, refiner=recording.header.refiner_mode)
    assert verify_replay(recording, other).identical


def test_commands_say_what_a_bundle_s_refiner_is_for(
    bundle: Bundle,
    optional: Bundle,
    toy_world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for refined, use in ((bundle, "refines unless"), (optional, "is an option: --refiner on, F7")):
        for shown in (refined.path, refined.path / "refiner"):
            assert run(["export", "show", str(shown)]) == 0
            assert use in capsys.readouterr().out
    assert run(["export", "show", str(optional.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refiner"]["by_default"] is False
    shutil.copytree(optional.path, tmp_path / "bundles" / "toy")
    monkeypatch.setattr(assets, "assets_dir", lambda: tmp_path)
    use = "is an option: --refiner on, F7 or the settings switch it on"
    assert check_bundles().detail == f"toy (its refiner {use})"
    write_world(tmp_path / "toy.world", toy_world)
    assert run(["world", "show", str(tmp_path / "toy.world"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refiner"] == use


def test_publishing_keeps_the_refiner_of_the_same_generator(
    bundle: Bundle, toy_bundle: Bundle, tmp_path: Path
):
    generator = bundle.spec.weights_sha256
    assert kept_refiner(bundle.path, generator) == bundle.path / "refiner"
    assert kept_refiner(bundle.path, "ef" * 32) is None
    assert kept_refiner(toy_bundle.path, generator) is None
    assert kept_refiner(tmp_path / "nothing", generator) is None


def test_evaluation_refines_where_it_is_asked_to(bundle: Bundle, toy_world: World):
    poses = np.tile(toy_world.c2w, (1 + 2 * 12, 1, 1))
    plain, refined = (
        [*stream(open_session(toy_world, bundle, denoise_threads=1, refiner=mode), poses, 5)]
        for mode in ("off", "on")
    )
    assert len(plain) == len(refined) == 2
    assert not np.array_equal(plain[1], refined[1])
