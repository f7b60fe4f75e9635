from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.camera.tracks import Track
from engine.files.array_files import open_frames
from engine.files.bundle import Bundle
from engine.files.world import World
from engine.machine.bench import curve, run_bench
from engine.session.headless import num_chunks_for, place_track, run_headless
from engine.session.opening import open_session
from engine.session.protocol import Session
from engine.types import CameraTrack, FrameChunk


@pytest.fixture
def session(toy_bundle: Bundle, toy_world: World) -> Session:
    return open_session(toy_world, toy_bundle)


def test_a_run_makes_what_single_steps_make(session: Session, toy_world: World) -> None:
    track = curve(toy_world, 1 + 5 * 4)
    chunks: list[FrameChunk] = []
    report = run_headless(session, track, 5, 3, chunks.append)
    session.reset(3)
    for step, chunk in enumerate(chunks):
        part = slice(1 + 4 * step, 5 + 4 * step)
        alone = session.step(CameraTrack(track.c2w[part], track.intrinsics[part]))
        np.testing.assert_array_equal(chunk.frames, alone.frames)
        np.testing.assert_array_equal(chunk.c2w, track.c2w[part])
        assert report.latents_sha256[step] == alone.latents_sha256


def test_a_short_track_ends_in_holding_still(session: Session, toy_world: World) -> None:
    track = curve(toy_world, 4)
    chunks: list[FrameChunk] = []
    run_headless(session, track, 3, 0, chunks.append)
    poses = np.concatenate([chunk.c2w for chunk in chunks])
    np.testing.assert_array_equal(poses[:3], track.c2w[1:])
    np.testing.assert_array_equal(poses[3:], np.tile(track.c2w[-1], (9, 1, 1)))


def test_the_report_has_every_promised_field(session: Session, toy_world: World) -> None:
    report = run_headless(session, curve(toy_world, 9), 2, 5)
    fields = report.as_json(frames_path="a.npz")
    assert json.loads(json.dumps(fields)) == fields
    assert (fields["world"], fields["engine"], fields["backend"], fields["seed"]) == (
        "toy",
        "toy",
        "onnxruntime",
        5,
    )
    assert (fields["num_chunks"], fields["num_frames"], fields["fps"]) == (2, 9, 16)
    assert fields["first_frame_s"] > 0
    assert fields["realtime_factor"] > 0
    assert fields["chunk_ms"].keys() == {"p50", "p95"}
    assert len(fields["latents_sha256"]) == 2
    assert (fields["frames_path"], fields["video_path"]) == ("a.npz", None)


def test_one_chunk_has_no_realtime_factor(session: Session, toy_world: World) -> None:
    assert run_headless(session, curve(toy_world, 1), 1, 0).as_json()["realtime_factor"] is None


def test_progress_counts_to_the_end(session: Session, toy_world: World) -> None:
    seen: list[tuple[int, int]] = []
    run_headless(session, curve(toy_world, 1), 3, 0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("num_chunks", [0, -1, 10**9])
def test_a_senseless_number_of_chunks_is_refused(session: Session, toy_world: World, num_chunks: int) -> None:
    with pytest.raises(ValueError, match="number of chunks"):
        run_headless(session, curve(toy_world, 1), num_chunks, 0)


def test_an_interrupt_leaves_no_thread(session: Session, toy_world: World) -> None:
    def interrupt(chunk: FrameChunk) -> None:
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run_headless(session, curve(toy_world, 1), 5, 0, interrupt)
    assert set(threading.enumerate()) <= before


def test_a_track_is_moved_to_the_worlds_start(toy_world: World) -> None:
    own = curve(toy_world, 6)
    elsewhere = np.linalg.inv(own.c2w[3]) @ own.c2w
    placed = place_track(Track(elsewhere), toy_world)
    # Products of well-conditioned float64 matrices.
    np.testing.assert_allclose(placed.c2w, own.c2w, atol=1e-12)
    np.testing.assert_array_equal(placed.intrinsics, own.intrinsics)


def test_a_track_keeps_its_own_lens(toy_world: World) -> None:
    lens = np.tile([20.0, 20.0, 12.0, 8.0], (2, 1))
    placed = place_track(Track(np.tile(np.eye(4), (2, 1, 1)), lens), toy_world)
    np.testing.assert_array_equal(placed.intrinsics, lens.astype(np.float32))


@pytest.mark.parametrize(("num_frames", "num_chunks"), [(1, 1), (2, 1), (5, 1), (6, 2), (9, 2), (10, 3)])
def test_chunks_cover_a_track(toy_world: World, num_frames: int, num_chunks: int) -> None:
    assert num_chunks_for(curve(toy_world, num_frames), 4) == num_chunks


def test_frames_and_poses_are_written_as_numpy_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (9, 4, 6, 3), np.uint8)
    c2w = rng.standard_normal((9, 4, 4))
    with open_frames(tmp_path / "walk.npz", 9, (6, 4)) as writer:
        writer.write(frames[:1], c2w[:1])
        writer.write(frames[1:], c2w[1:])
    with np.load(tmp_path / "walk.npz") as arrays:
        assert set(arrays.files) == {"frames", "c2w"}
        np.testing.assert_array_equal(arrays["frames"], frames)
        np.testing.assert_array_equal(arrays["c2w"], c2w)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_frames_leave_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write_and_fail() -> None:
        with open_frames(tmp_path / "walk.npz", 9, (6, 4)) as writer:
            writer.write(np.zeros((1, 4, 6, 3), np.uint8), np.zeros((1, 4, 4)))
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_missing_frames_are_never_announced(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="9 frames were announced"),
        open_frames(tmp_path / "walk.npz", 9, (6, 4)) as writer,
    ):
        writer.write(np.zeros((1, 4, 6, 3), np.uint8), np.zeros((1, 4, 4)))
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_or_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.npz"), open_frames(tmp_path / "walk.mp4", 1, (6, 4)):
        pass
    with (
        pytest.raises(ValueError, match="one pose each"),
        open_frames(tmp_path / "walk.npz", 1, (6, 4)) as writer,
    ):
        writer.write(np.zeros((1, 6, 4, 3), np.uint8), np.zeros((1, 4, 4)))


def test_a_measurement_reports_stages_rhythm_and_memory(
    make_bundle: Callable[..., Bundle], toy_world: World
) -> None:
    report = run_bench(open_session(toy_world, make_bundle(3, 4)), 8)
    fields = report.as_json()
    assert json.loads(json.dumps(fields)) == fields
    assert set(fields["stages"]) == {"render_ms", "denoise_ms", "commit_ms", "decode_ms", "chunk_ms"}
    assert fields["deadline_ms"] == 750
    assert 0 <= fields["deadline_met"] <= 1
    assert fields["drift"] > 0
    assert fields["state_bytes"] > 0
    assert fields["peak_memory_bytes"] is None or fields["peak_memory_bytes"] > 1 << 20


def test_a_measurement_of_one_chunk_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        run_bench(session, 1)
