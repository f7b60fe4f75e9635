"""The recording file: whole or refused, recovered where it was cut, and never taking the walk down."""

from __future__ import annotations

import hashlib
import os
import resource
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from engine.camera.actions import integrate_actions, parse_actions
from engine.camera.formats.track_files import load_track
from engine.errors import SpecMismatch
from engine.files.recording import (
    MAGIC,
    MAX_RECORD_BYTES,
    RecordingHeader,
    chain,
    length_field,
    read_recording,
)
from engine.files.recording_writer import RecordingStopped, RecordingWriter
from engine.types import CameraTrack

FRAMES_PER_CHUNK = 2
IDENTITY = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def header() -> RecordingHeader:
    return RecordingHeader(
        app_version="0.1.0",
        seed=7,
        backend="onnxruntime",
        engine="pocket",
        identity="a:c",
        device="cpu",
        weights_sha256="b" * 64,
        world="town",
        world_sha256="c" * 64,
        key_map="current",
        fps=16.0,
        start_c2w=IDENTITY,
        start_intrinsics=(100.0, 100.0, 80.0, 48.0),
    )


def chunk_track(index: int) -> CameraTrack:
    first = 1 + index * FRAMES_PER_CHUNK
    c2w = integrate_actions(parse_actions("wd-40"), 16.0)[first : first + FRAMES_PER_CHUNK]
    intrinsics = np.tile(np.array([100.0, 100.0, 80.0, 48.0], np.float32), (FRAMES_PER_CHUNK, 1))
    return CameraTrack(c2w, intrinsics, latched_s=0.25 * index)


def chunk_latents(index: int) -> np.ndarray:
    return np.random.default_rng(index).standard_normal((2, 1, 3, 2), np.float32)


def record(path: Path, num_chunks: int = 3, crash: bool = False) -> Path:
    writer = RecordingWriter(path, header())
    for index in range(num_chunks):
        latents = chunk_latents(index)
        intents = np.array([[0.25 * index, 1.0, *[0.0] * 9]])
        writer.append(chunk_track(index), hashlib.sha256(latents.tobytes()).hexdigest(), intents, latents)
    if crash:
        content = path.read_bytes()
        writer.close()
        path.write_bytes(content)
    writer.close()
    return path


def test_a_recording_comes_back_bit_for_bit(tmp_path: Path):
    recording = read_recording(record(tmp_path / "walk.flaneur"), with_latents=True)
    assert recording.complete
    assert recording.header == header()
    assert [chunk.index for chunk in recording.chunks] == [0, 1, 2]
    for index, chunk in enumerate(recording.chunks):
        np.testing.assert_array_equal(chunk.track.c2w, chunk_track(index).c2w)
        np.testing.assert_array_equal(chunk.track.intrinsics, chunk_track(index).intrinsics)
        assert chunk.track.latched_s == 0.25 * index
        assert chunk.latents is not None
        np.testing.assert_array_equal(chunk.latents, chunk_latents(index))
        np.testing.assert_array_equal(chunk.intents[:, :2], [[0.25 * index, 1.0]])


def test_a_recording_is_a_track_that_begins_where_the_world_does(tmp_path: Path):
    track = load_track(record(tmp_path / "walk.flaneur"))
    np.testing.assert_array_equal(track.c2w, integrate_actions(parse_actions("wd-6"), 16.0))
    assert track.fps == 16.0


def test_every_flipped_byte_is_refused(tmp_path: Path):
    path = record(tmp_path / "walk.flaneur", num_chunks=2)
    content = path.read_bytes()
    damaged = tmp_path / "damaged.flaneur"
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        damaged.write_bytes(flipped)
        with pytest.raises(SpecMismatch):
            read_recording(damaged)


def test_every_truncation_gives_back_the_whole_chunks_before_it(tmp_path: Path):
    path = record(tmp_path / "walk.flaneur", num_chunks=2)
    content = path.read_bytes()
    cut = tmp_path / "cut.flaneur"
    recovered = []
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        try:
            recording = read_recording(cut)
        except SpecMismatch as error:
            assert length < len(MAGIC) or "cut before its first chunk" in str(error)  # noqa: PT017
            recovered.append(0)
            continue
        assert not recording.complete
        for index, chunk in enumerate(recording.chunks):
            np.testing.assert_array_equal(chunk.track.c2w, chunk_track(index).c2w)
        recovered.append(len(recording.chunks))
    assert recovered == sorted(recovered)
    assert set(recovered) == {0, 1, 2}


def test_a_walk_that_crashed_loses_no_chunk_that_was_appended(tmp_path: Path):
    path = record(tmp_path / "walk.flaneur", num_chunks=3, crash=True)
    recording = read_recording(path)
    assert len(recording.chunks) == 3
    assert not recording.complete


def test_a_tail_of_zeros_after_a_power_cut_is_a_cut(tmp_path: Path):
    path = record(tmp_path / "walk.flaneur", num_chunks=3, crash=True)
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert len(read_recording(path).chunks) == 3


def test_records_cannot_be_exchanged_dropped_or_followed_by_others(tmp_path: Path):
    path = record(tmp_path / "walk.flaneur", num_chunks=3)
    content = path.read_bytes()
    spans = record_spans(content)
    first, second = spans[1], spans[2]
    exchanged = content[: first[0]] + content[slice(*second)] + content[slice(*first)] + content[second[1] :]
    dropped = content[: first[0]] + content[first[1] :]
    for damaged in (exchanged, dropped, content + b"\0", content + content[slice(*spans[3])]):
        path.write_bytes(damaged)
        with pytest.raises(SpecMismatch, match="damaged"):
            read_recording(path)


def test_hostile_records_are_refused_before_they_are_allocated(tmp_path: Path):
    path = tmp_path / "hostile.flaneur"
    good = record_payloads(record(tmp_path / "walk.flaneur", num_chunks=1).read_bytes())
    chunk = msgpack.unpackb(good[1])
    changes = {
        "index": 5,
        "c2w": chunk["c2w"][:-8],
        "intrinsics": chunk["intrinsics"] + b"\0" * 16,
        "latents_shape": [65536, 65536, 65536, 65536],
        "latents_sha256": "0" * 64,
        "intents": b"123",
        "kind": "sandwich",
        "num_steps": 0,
        "extra": 1,
    }
    for name, value in changes.items():
        path.write_bytes(sealed([good[0], packb(chunk | {name: value})]))
        with pytest.raises((SpecMismatch, ValueError), match=r"hostile\.flaneur") as caught:
            read_recording(path)
        assert "\n" not in str(caught.value)
    nan = np.frombuffer(chunk["c2w"]).copy()
    nan[3] = np.nan
    path.write_bytes(sealed([good[0], packb(chunk | {"c2w": nan.tobytes()})]))
    with pytest.raises(ValueError, match="not finite"):
        read_recording(path)
    path.write_bytes(sealed([b"\x91" * 5000]))
    with pytest.raises(SpecMismatch, match="damaged in its header"):
        read_recording(path)
    path.write_bytes(MAGIC + length_field(MAX_RECORD_BYTES + 1))
    with pytest.raises(SpecMismatch, match="damaged in its header"):
        read_recording(path)


def test_another_version_or_another_file_is_named(tmp_path: Path):
    path = tmp_path / "other.flaneur"
    payload = packb(header().model_dump() | {"format_version": 5})
    path.write_bytes(sealed([payload]))
    with pytest.raises(SpecMismatch, match=r"format_version.*another version"):
        read_recording(path)
    path.write_bytes(b"not a recording at all")
    with pytest.raises(SpecMismatch, match="is not a recording"):
        read_recording(path)
    with pytest.raises(ValueError, match="cannot read the recording"):
        read_recording(tmp_path / "missing.flaneur")


def test_a_recording_from_before_steps_were_kept_is_still_read(tmp_path: Path):
    path = record(tmp_path / "walk.flaneur", num_chunks=2)
    payloads = [msgpack.unpackb(payload) for payload in record_payloads(path.read_bytes())]
    payloads[0]["format_version"] = 1
    for chunk in payloads[1:-1]:
        del chunk["num_steps"]
    path.write_bytes(sealed([packb(payload) for payload in payloads]))
    recording = read_recording(path)
    assert recording.complete
    assert [chunk.track.num_steps for chunk in recording.chunks] == [None, None]


def test_a_full_disk_stops_the_recording_once_and_the_walk_goes_on(tmp_path: Path):
    path = tmp_path / "walk.flaneur"
    writer = RecordingWriter(path, header())
    writer.append(chunk_track(0), "0" * 64)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        with pytest.raises(RecordingStopped, match="stopped after 1 chunks: File too large"):
            writer.append(chunk_track(1), "0" * 64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.append(chunk_track(1), "0" * 64)
    writer.close()
    assert writer.stopped
    recording = read_recording(path)
    assert len(recording.chunks) == 1
    assert not recording.complete


def test_an_existing_file_is_never_written_over(tmp_path: Path):
    path = record(tmp_path / "walk.flaneur")
    content = path.read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        RecordingWriter(path, header())
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match=r"ends in \.flaneur"):
        RecordingWriter(tmp_path / "walk.mp4", header())


def test_a_recording_without_a_chunk_leaves_no_file(tmp_path: Path):
    with RecordingWriter(tmp_path / "walk.flaneur", header()):
        pass
    assert os.listdir(tmp_path) == []


def packb(record: dict[str, Any]) -> bytes:
    payload = msgpack.packb(record)
    assert isinstance(payload, bytes)
    return payload


def sealed(payloads: list[bytes]) -> bytes:
    """Build a file with good checksums around any payloads, as an attacker would."""
    content, digest = MAGIC, chain(MAGIC)
    for payload in payloads:
        digest = chain(digest + length_field(len(payload)) + payload)
        content += length_field(len(payload)) + payload + digest
    return content


def record_spans(content: bytes) -> list[tuple[int, int]]:
    spans, start = [], len(MAGIC)
    while start < len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "little") + 16
        spans.append((start, end))
        start = end
    return spans


def record_payloads(content: bytes) -> list[bytes]:
    return [content[start + 8 : end - 16] for start, end in record_spans(content)]


def test_latents_of_another_form_are_refused(tmp_path: Path):
    path = tmp_path / "walk.flaneur"
    latents = chunk_latents(0).reshape(4, 3)
    with RecordingWriter(path, header()) as writer:
        writer.append(chunk_track(0), hashlib.sha256(latents.tobytes()).hexdigest(), latents=latents)
    with pytest.raises(SpecMismatch, match="is damaged at chunk 0"):
        read_recording(path)
