"""Replays that verify: the same walk gives the same latents, and any other is told apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from engine.camera.actions import integrate_actions, parse_actions
from engine.camera.tracks import rebase
from engine.errors import SpecMismatch
from engine.files.recording import Recording, read_recording
from engine.files.recording_writer import RecordingWriter
from engine.files.world import World, WorldInfo
from engine.session.protocol import Session, Snapshot
from engine.session.replay import header_for
from engine.types import CameraTrack, FrameChunk, LatentChunk
from tests.replays import verify_replay

NUM_CHUNKS = 5


def make_world(sha256: str = "c" * 64) -> World:
    return World(
        info=WorldInfo(name="yard", title="Yard", licence="CC0", model="b" * 64),
        first_latent=np.zeros((2, 3, 4), np.float32),
        first_frame=np.zeros((12, 16, 3), np.uint8),
        text=np.zeros((1, 2), np.float32),
        text_mask=np.ones(1, np.float32),
        intrinsics=np.array([10.0, 10.0, 8.0, 6.0], np.float32),
        c2w=np.eye(4),
        sha256=sha256,
    )


class FeedbackSession(Session):
    """A world model in one line: each chunk is made of the seed, its track and all chunks before it."""

    engine, backend, device = "feedback", "none", "cpu"
    frame_size, fps, frames_per_chunk = (16, 12), 16.0, 4

    def __init__(self, error_from: int = 1000) -> None:
        super().__init__()
        self.world = make_world()
        self.identity = f"feedback:{self.world.sha256}"
        self._error_from = error_from
        self._memory = np.zeros(1)

    def reset(self, seed: int) -> None:
        self._seed, self._next_denoised = seed, 1
        self._memory = np.array([float(seed)])

    def denoise(self, track: CameraTrack) -> LatentChunk:
        self._memory = np.cos(self._memory + track.c2w.sum())
        index = self._next_denoised
        self._next_denoised += 1
        latents = np.full((2, 1, 3, 4), self._memory[0], np.float32)
        if index > self._error_from:
            latents[0, 0, 0, 0] += 0.25
        return LatentChunk(
            index, index, latents, hashlib.sha256(latents.tobytes()).hexdigest(), track, 0.0, 0.0, 0.0
        )

    def decode(self, chunk: LatentChunk) -> FrameChunk:
        raise AssertionError("verification needs no frames")

    def snapshot(self) -> Snapshot:
        raise AssertionError("verification takes no snapshot")

    def restore(self, snapshot: Snapshot) -> None:
        raise AssertionError("verification restores nothing")

    def close(self) -> None:
        """Nothing is held."""


def record(path: Path, session: Session, keep_latents: bool) -> Recording:
    session.reset(seed=11)
    text = f"wd-{4 * NUM_CHUNKS}"
    c2w = rebase(integrate_actions(parse_actions(text), session.fps), session.world.c2w)[1:]
    intrinsics = np.tile(session.world.intrinsics, (len(c2w), 1))
    with RecordingWriter(path, header_for(session, "current")) as writer:
        for i in range(0, len(c2w), 4):
            track = CameraTrack(c2w[i : i + 4], intrinsics[i : i + 4])
            chunk = session.denoise(track)
            writer.append(track, chunk.sha256, latents=chunk.latents if keep_latents else None)
    return read_recording(path, with_latents=True)


def test_the_same_walk_verifies_chunk_by_chunk(tmp_path: Path):
    recording = record(tmp_path / "walk.flaneur", FeedbackSession(), keep_latents=False)
    report = verify_replay(recording, FeedbackSession())
    assert report.identical
    assert report.first_different is None
    assert report.num_identical == NUM_CHUNKS
    assert report.sentence() == "identical: all 5 chunks came out bit for bit"


@pytest.mark.parametrize("keep_latents", [True, False])
def test_the_first_chunk_that_differs_is_named_with_its_difference(tmp_path: Path, keep_latents: bool):
    recording = record(tmp_path / "walk.flaneur", FeedbackSession(), keep_latents)
    report = verify_replay(recording, FeedbackSession(error_from=3))
    assert not report.identical
    assert report.first_different == 3
    if keep_latents:
        assert report.max_difference == pytest.approx(0.25, abs=1e-6)
        assert "chunk 3 of 5 is the first that differs (by at most 0.25" in report.sentence()
    else:
        assert report.max_difference is None
        assert "holds no latents" in report.sentence()


def test_another_world_engine_or_rhythm_is_refused(tmp_path: Path):
    recording = record(tmp_path / "walk.flaneur", FeedbackSession(), keep_latents=False)
    session = FeedbackSession()
    session.frames_per_chunk = 8
    with pytest.raises(SpecMismatch, match="takes 8"):
        verify_replay(recording, session)
    session = FeedbackSession()
    session.identity = "other"
    with pytest.raises(SpecMismatch, match="the engine feedback on none, another than this"):
        verify_replay(recording, session)
    session.world = make_world("d" * 64)
    with pytest.raises(SpecMismatch, match="another version of the world yard"):
        verify_replay(recording, session)
