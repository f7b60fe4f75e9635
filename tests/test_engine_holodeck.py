from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

import holodeck
from engine.errors import SpecMismatch
from engine.files.world import World
from engine.session.opening import open_session
from engine.session.protocol import Session
from engine.types import CameraTrack


@pytest.fixture
def world(toy_world: World) -> World:
    place = holodeck.place_names()[0]
    info = toy_world.info.model_copy(update={"place": place})
    return replace(toy_world, info=info, c2w=holodeck.get_place(place).spawn)


@pytest.fixture
def session(world: World) -> Session:
    opened = open_session(world, backend="holodeck")
    opened.reset(0)
    return opened


def walk(session: Session, step: int) -> CameraTrack:
    c2w = np.tile(session.world.c2w, (session.frames_per_chunk, 1, 1))
    c2w[:, :3, 3] += 0.1 * (step * session.frames_per_chunk + np.arange(len(c2w)))[:, None] * c2w[0, :3, 2]
    return CameraTrack(c2w, np.tile(session.world.intrinsics, (len(c2w), 1)))


def test_the_frames_are_the_places_own(session: Session, world: World) -> None:
    track = walk(session, 1)
    chunk = session.step(track)
    assert world.place is not None
    place = holodeck.get_place(world.place)
    width, height = world.frame_size
    for frame, c2w in zip(chunk.frames, track.c2w, strict=True):
        np.testing.assert_array_equal(frame, place.render(c2w, world.intrinsics, width, height))
    assert chunk.latents_sha256 == hashlib.sha256(chunk.frames.tobytes()).hexdigest()
    assert chunk.chunk_index == 1


def test_a_snapshot_continues_the_count(session: Session) -> None:
    session.step(walk(session, 0))
    snapshot = session.snapshot()
    second = session.step(walk(session, 1))
    session.restore(snapshot)
    again = session.step(walk(session, 1))
    assert again.chunk_index == second.chunk_index
    assert again.latents_sha256 == second.latents_sha256


def test_a_world_without_a_place_is_refused(toy_world: World) -> None:
    with pytest.raises(SpecMismatch, match="not made from a holodeck place"):
        open_session(toy_world, backend="holodeck")


def test_an_unknown_place_is_refused(toy_world: World) -> None:
    info = toy_world.info.model_copy(update={"place": "atlantis"})
    with pytest.raises(SpecMismatch, match="atlantis"):
        open_session(replace(toy_world, info=info), backend="holodeck")
