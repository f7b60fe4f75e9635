"""A walk saved to disk goes on bit for bit where it belongs, and is refused everywhere else."""

import json
import math
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.camera.planner import TrackPlanner, rig_planner
from client.input.controls import IDLE, KEY_MAP_VERSION, Intent
from client.playback.saves import load_walk, saved_walk
from client.playback.walk import Walk
from engine.errors import SpecMismatch
from engine.files.bundle import Bundle
from engine.files.recording import read_recording
from engine.files.recording_writer import RecordingStopped
from engine.files.saved_walk import read_saved_walk, session_spec, write_saved_walk
from engine.files.world import World
from engine.session.opening import open_session
from engine.session.protocol import Session
from tests.replays import verify_replay

PATIENCE_S = 30.0
RUNNING = Intent(forward=1.0, yaw=0.5, run=True)
KEY_MAP = str(KEY_MAP_VERSION)


@pytest.fixture
def open_toy(toy_bundle: Bundle, toy_world: World) -> Callable[..., Session]:
    def open_one(world: World = toy_world) -> Session:
        return open_session(world, toy_bundle, denoise_threads=1, keep_latents=True)

    return open_one


@pytest.fixture
def walk(open_toy: Callable[..., Session]) -> Iterator[Walk]:
    session = open_toy()
    walk = Walk(session, rig_planner(session), 5, time.perf_counter, record_latents=True)
    yield walk
    walk.close()


def make_chunks(walk: Walk, count: int, intent: Intent = IDLE) -> None:
    deadline_s = time.perf_counter() + PATIENCE_S
    wanted = walk.recorder.num_chunks + count
    while walk.recorder.num_chunks < wanted:
        assert time.perf_counter() < deadline_s, "waited in vain"
        walk.update(intent, time.perf_counter())
        time.sleep(0.001)


def hashes(walk: Walk) -> list[str]:
    return [chunk.latents_sha256 for chunk in walk.recorder.walked(walk.recorder.num_chunks)]


def test_going_back_and_on_the_same_way_gives_the_same_chunks_bit_for_bit(walk: Walk) -> None:
    make_chunks(walk, 3, RUNNING)
    make_chunks(walk, 4)
    walk.pause()
    moment = walk.history.at(4)
    assert moment is not None
    before = walk.recorder.walked(7)
    walk.branch_off(moment)
    make_chunks(walk, 3)
    after = walk.recorder.walked(7)
    assert after[:4] == before[:4]
    for was, now in zip(before[4:], after[4:], strict=True):
        np.testing.assert_array_equal(now.track.c2w, was.track.c2w)
        assert now.latents_sha256 == was.latents_sha256


def test_going_on_another_way_makes_another_walk_with_the_velocity_of_the_moment(walk: Walk) -> None:
    make_chunks(walk, 4, RUNNING)
    moment = walk.history.at(2)
    assert moment is not None
    assert moment.rig is not None
    assert moment.rig.camera.velocity.forward > 0.5
    before = hashes(walk)
    walk.branch_off(moment)
    assert walk.frame is moment.frame
    make_chunks(walk, 2)
    first = walk.recorder.walked(3)[2].track.c2w
    coasted = np.linalg.norm(first[0, :3, 3] - moment.frame.c2w[:3, 3])
    assert coasted > 0.01
    assert hashes(walk)[:2] == before[:2]
    assert hashes(walk)[2] != before[2]


def test_a_recording_over_a_rewind_is_two_that_both_verify(
    walk: Walk, open_toy: Callable[..., Session], tmp_path: Path
) -> None:
    walk.start_recording(tmp_path / "walk.flaneur")
    make_chunks(walk, 5, RUNNING)
    moment = walk.history.at(2)
    assert moment is not None
    assert walk.branch_off(moment) == tmp_path / "walk.flaneur"
    assert walk.recorder.path == tmp_path / "walk-2.flaneur"
    make_chunks(walk, 3)
    walk.recorder.stop()
    first = read_recording(tmp_path / "walk.flaneur", with_latents=True)
    second = read_recording(tmp_path / "walk-2.flaneur", with_latents=True)
    assert first.complete
    assert second.complete
    assert len(second.chunks) >= 5
    assert [chunk.latents_sha256 for chunk in first.chunks[:2]] == [
        chunk.latents_sha256 for chunk in second.chunks[:2]
    ]
    for recording in (first, second):
        assert all(chunk.latents is not None for chunk in recording.chunks)
        assert verify_replay(recording, open_toy()).identical


@pytest.mark.parametrize("take_away", [Path.unlink, lambda file: os.truncate(file, 500)])
def test_going_back_ends_a_recording_whose_file_is_gone_and_the_walk_goes_on(
    walk: Walk, tmp_path: Path, take_away: Callable[[Path], None]
) -> None:
    file = tmp_path / "walk.flaneur"
    walk.start_recording(file)
    make_chunks(walk, 4, RUNNING)
    moment = walk.history.at(3)
    assert moment is not None
    take_away(file)
    with pytest.raises(RecordingStopped, match="cannot be read back"):
        walk.branch_off(moment)
    assert walk.recorder.path is None
    assert not (tmp_path / "walk-2.flaneur").exists()
    make_chunks(walk, 2)
    assert walk.recorder.num_chunks == 5


def test_the_branch_that_was_left_goes_on_where_it_ended(
    walk: Walk, open_toy: Callable[..., Session], tmp_path: Path
) -> None:
    make_chunks(walk, 6, RUNNING)
    left = hashes(walk)
    moment = walk.history.at(2)
    assert moment is not None
    walk.branch_off(moment)
    make_chunks(walk, 3)
    walk.return_to_branch()
    assert walk.history.name == 1
    assert hashes(walk) == left
    make_chunks(walk, 2, RUNNING)
    walk.start_recording(tmp_path / "walk.flaneur")
    walk.recorder.stop()
    assert verify_replay(read_recording(tmp_path / "walk.flaneur"), open_toy()).identical


def test_a_walk_with_taps_is_recorded_and_verifies(
    walk: Walk, open_toy: Callable[..., Session], tmp_path: Path
) -> None:
    walk.start_recording(tmp_path / "walk.flaneur")
    for tap in (Intent(forward=1.0), Intent(yaw=-1.0), Intent(rise=1.0)):
        walk.update(tap, time.perf_counter())
        make_chunks(walk, 3)
    walk.recorder.stop()
    recording = read_recording(tmp_path / "walk.flaneur")
    tapped = [chunk.index for chunk in recording.chunks if chunk.intents[:, 1:].any()]
    assert len(tapped) == 3
    assert verify_replay(recording, open_toy()).identical


def test_a_moment_holds_no_more_memory_than_it_counts(walk: Walk) -> None:
    make_chunks(walk, 3, RUNNING)
    for moment in walk.history.snapshots:
        assert moment.latent is not None
        for array in (moment.frame.pixels, moment.latent):
            assert array.base is None


def test_a_saved_walk_goes_on_in_another_process_bit_for_bit(
    walk: Walk, open_toy: Callable[..., Session], tmp_path: Path
) -> None:
    make_chunks(walk, 3, RUNNING)
    make_chunks(walk, 4)
    file = tmp_path / "toy.state"
    moment = walk.history.at(4)
    assert moment is not None
    write_saved_walk(file, saved_walk(walk, moment))
    expected = walk.recorder.walked(7)

    other = Walk(session := open_toy(), rig_planner(session), 0, time.perf_counter)
    try:
        other.branch_off(*load_walk(file, session_spec(session)))
        assert other.seed == 5
        assert (other.frame.pixels == moment.frame.pixels).all()
        make_chunks(other, 3)
        for was, now in zip(expected, other.recorder.walked(7), strict=True):
            np.testing.assert_array_equal(now.track.c2w, was.track.c2w)
            assert now.latents_sha256 == was.latents_sha256
        other.start_recording(tmp_path / "walk.flaneur")
        other.recorder.stop()
    finally:
        other.close()
    assert verify_replay(read_recording(tmp_path / "walk.flaneur"), open_toy()).identical


def test_a_replay_that_was_saved_is_walked_on_from_where_it_was(
    walk: Walk, open_toy: Callable[..., Session], tmp_path: Path
) -> None:
    make_chunks(walk, 4, RUNNING)
    tracks = [chunk.track for chunk in walk.recorder.walked(4)]
    replay = Walk(open_toy(), TrackPlanner(tracks), 5, time.perf_counter)
    try:
        make_chunks(replay, 4)
        moment = replay.history.at(4)
        assert moment is not None
        write_saved_walk(tmp_path / "toy.state", saved_walk(replay, moment))
    finally:
        replay.close()
    other = Walk(session := open_toy(), rig_planner(session), 0, time.perf_counter)
    try:
        make_chunks(other, 1, Intent(forward=-1.0))
        other.branch_off(*load_walk(tmp_path / "toy.state", session_spec(session)))
        assert not other.live_turn_rad.any()
        make_chunks(other, 1)
        there = other.recorder.walked(5)[4].track.c2w[0]
        np.testing.assert_allclose(there, tracks[-1].c2w[-1], atol=1e-6)
    finally:
        other.close()


def test_loading_over_a_recording_with_another_seed_ends_it_and_begins_a_true_one(
    walk: Walk, open_toy: Callable[..., Session], tmp_path: Path
) -> None:
    make_chunks(walk, 3, RUNNING)
    moment = walk.history.newest
    assert moment is not None
    write_saved_walk(tmp_path / "toy.state", saved_walk(walk, moment))
    other = Walk(session := open_toy(), rig_planner(session), 0, time.perf_counter)
    try:
        other.start_recording(tmp_path / "walk.flaneur")
        make_chunks(other, 2)
        other.branch_off(*load_walk(tmp_path / "toy.state", session_spec(session)))
        make_chunks(other, 2)
        other.recorder.stop()
    finally:
        other.close()
    for name, seed in (("walk", 0), ("walk-2", 5)):
        recording = read_recording(tmp_path / f"{name}.flaneur")
        assert recording.header.seed == seed
        assert verify_replay(recording, open_toy()).identical


@pytest.fixture
def file(walk: Walk, tmp_path: Path) -> Path:
    make_chunks(walk, 2, RUNNING)
    moment = walk.history.newest
    assert moment is not None
    write_saved_walk(tmp_path / "toy.state", saved_walk(walk, moment))
    return tmp_path / "toy.state"


def test_another_world_engine_or_key_map_is_refused_in_one_sentence(
    file: Path, toy_world: World, make_bundle: Callable[..., Bundle], open_toy: Callable[..., Session]
) -> None:
    elsewhere = open_toy(replace(toy_world, sha256="f" * 64))
    with pytest.raises(SpecMismatch, match="saved in another world, toy; load it there"):
        read_saved_walk(file, session_spec(elsewhere), KEY_MAP)
    session = open_toy()
    with pytest.raises(SpecMismatch, match="version 1 of the keys, this is 999"):
        read_saved_walk(file, session_spec(session), "999")
    other = open_session(toy_world, make_bundle(3, 1), denoise_threads=1)
    try:
        with pytest.raises(SpecMismatch, match="saved with the engine toy on onnxruntime, another than this"):
            read_saved_walk(file, session_spec(other), KEY_MAP)
    finally:
        other.close()


def test_every_cut_and_every_flipped_bit_is_refused(file: Path, walk: Walk) -> None:
    raw, session = file.read_bytes(), walk.session
    for length in (0, 7, 100, len(raw) // 2, len(raw) - 1):
        file.write_bytes(raw[:length])
        with pytest.raises(SpecMismatch):
            read_saved_walk(file, session_spec(session), KEY_MAP)
    file.write_bytes(raw + b"\0")
    with pytest.raises(SpecMismatch, match="tail"):
        read_saved_walk(file, session_spec(session), KEY_MAP)
    data_start = 8 + int.from_bytes(raw[:8], "little")
    for position in np.linspace(data_start, len(raw) - 1, 60).astype(int):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(SpecMismatch, match="damaged"):
            read_saved_walk(file, session_spec(session), KEY_MAP)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("walk.c2w", [1 << 30, 4, 4, 4]),
        ("walk.c2w", [2, 1 << 30, 4, 4]),
        ("frame", [1 << 20, 1 << 20, 3]),
        ("rig", [1 << 39]),
        ("latent", [1 << 13, 1 << 13, 1 << 13]),
        ("snapshot.state.memory", [1 << 38]),
        ("rig", [-1]),
        ("rig", "x"),
    ],
)
def test_hostile_sizes_allocate_nothing(file: Path, walk: Walk, name: str, shape: Any) -> None:
    rewrite_header(file, lambda header: header[name].update(shape=shape))
    if isinstance(shape, list) and min(shape) > 0:
        num_bytes = lay_out_anew(file)
        with file.open("r+b") as stream:
            stream.truncate(num_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(SpecMismatch):
            read_saved_walk(file, session_spec(walk.session), KEY_MAP)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def rewrite_header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def lay_out_anew(file: Path) -> int:
    """Make the places of all tensors agree with their shapes; return the length of such a file, at most 16 GB."""
    sizes = {"F32": 4, "F64": 8, "I32": 4, "I64": 8, "U8": 1}
    end = 0

    def change(header: dict[str, Any]) -> None:
        nonlocal end
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = end, end + sizes[entry["dtype"]] * math.prod(entry["shape"])
                entry["data_offsets"] = [start, end]

    rewrite_header(file, change)
    return min(8 + int.from_bytes(file.read_bytes()[:8], "little") + end, 16 << 30)


def test_a_foreign_tensor_or_one_missing_is_refused(file: Path, walk: Walk) -> None:
    raw = file.read_bytes()
    for change in (
        lambda header: header.update(surprise=header["c2w"]),
        lambda header: header.pop("first_c2w"),
    ):
        file.write_bytes(raw)
        rewrite_header(file, change)
        with pytest.raises(SpecMismatch):
            read_saved_walk(file, session_spec(walk.session), KEY_MAP)


@pytest.mark.parametrize("frame_index", [0, 3, 10**40])
def test_a_frame_that_the_walk_does_not_end_with_is_refused(file: Path, walk: Walk, frame_index: int) -> None:
    def change(header: dict[str, Any]) -> None:
        info = json.loads(header["__metadata__"]["state"])
        header["__metadata__"]["state"] = json.dumps(info | {"frame_index": frame_index})

    rewrite_header(file, change)
    with pytest.raises(SpecMismatch, match="does not add up"):
        read_saved_walk(file, session_spec(walk.session), KEY_MAP)


def test_a_full_disk_leaves_the_old_save(file: Path, walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fill(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    moment = walk.history.newest
    assert moment is not None
    with pytest.raises(ValueError, match="No space left on device"):
        write_saved_walk(file, saved_walk(walk, moment))
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
