"""The ground truth in place of a model: a session whose frames are ray-cast in the place a world was made from.

It is no world model; it has no memory and renders whatever pose it is given.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

import holodeck
from engine.errors import SpecMismatch
from engine.files.world import World
from engine.session.protocol import Session, check_seed, chunk_times
from engine.types import CameraTrack, FrameChunk, LatentChunk, Snapshot

FPS = 16.0
FRAMES_PER_CHUNK = 4
"""As in the pocket world, so that both answer at the same rate."""


class HolodeckSession(Session):
    """A walk through the holodeck place a world was made from, at the size of the world's first frame."""

    def __init__(self, world: World, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        if world.place is None:
            raise SpecMismatch(
                f"the world {world.name} was not made from a holodeck place; play it with a model's bundle"
            )
        if not holodeck.has_place(world.place):
            raise SpecMismatch(
                f"the world {world.name} asks for the unknown holodeck place {world.place}; make it again"
            )
        self.world = world
        self.engine = self.backend = "holodeck"
        self.device = "cpu"
        self.identity = f"holodeck-{world.place}:{world.sha256}"
        self.frame_size = world.frame_size
        self.fps = FPS
        self.frames_per_chunk = FRAMES_PER_CHUNK
        self._place = holodeck.get_place(world.place)
        self._clock = clock

    def reset(self, seed: int) -> None:
        self._seed = check_seed(seed)
        self._next_denoised = self._next_decoded = 1

    def denoise(self, track: CameraTrack) -> LatentChunk:
        """Render the frames; they stand in for latents, [3, F, H, W]."""
        self._check_track(track)
        model_start_s = self._clock()
        width, height = self.frame_size
        frames = np.stack(
            [
                self._place.render(c2w, intrinsics, width, height)
                for c2w, intrinsics in zip(track.c2w, track.intrinsics, strict=True)
            ]
        )
        index = self._next_denoised
        self._next_denoised = index + 1
        latents = np.ascontiguousarray(frames.transpose(3, 0, 1, 2), np.float32)
        sha256 = hashlib.sha256(frames.tobytes()).hexdigest()
        rendered_s = self._clock()
        return LatentChunk(index, index, latents, sha256, track, model_start_s, rendered_s, rendered_s)

    def decode(self, chunk: LatentChunk) -> FrameChunk:
        self._check_order(chunk)
        decode_start_s = self._clock()
        frames = np.ascontiguousarray(chunk.latents.transpose(1, 2, 3, 0), np.uint8)
        self._next_decoded = chunk.chunk_index + 1
        times = chunk_times(chunk, decode_start_s, self._clock())
        snapshot = self._snapshot_before(self._next_decoded) if self.keep_snapshots else None
        return FrameChunk(
            chunk.chunk_index,
            frames,
            chunk.track,
            times,
            chunk.sha256,
            inverse_depth=self._inverse_depth(chunk.track),
            snapshot=snapshot,
        )

    def _inverse_depth(self, track: CameraTrack) -> NDArray[np.float32]:
        """Measure the place along a track, [F, H, W], 1/m."""
        width, height = self.frame_size
        poses = zip(track.c2w, track.intrinsics, strict=True)
        depths = [self._place.depth(c2w, intrinsics, width, height) for c2w, intrinsics in poses]
        return np.reciprocal(np.stack(depths)).astype(np.float32)

    def snapshot(self) -> Snapshot:
        self._check_idle()
        return self._snapshot_before(self._next_denoised)

    def _snapshot_before(self, chunk_index: int) -> Snapshot:
        return Snapshot(self.identity, self._seed, chunk_index, self.world.c2w, {})

    def restore(self, snapshot: Snapshot) -> None:
        self._check_snapshot(snapshot)
        self._seed = snapshot.seed
        self._next_denoised = self._next_decoded = snapshot.chunk_index

    def close(self) -> None:
        """Nothing is held."""


Slide = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""(position [3], wished displacement [3]) -> position [3], metres in the world's own frame."""

WALKER_RADIUS_M = 0.6
"""Nearest a walker comes to a wall, wider than shoulders: nearer, a wall of one colour is all there is to see,
and no world model was trained there."""


@dataclass(frozen=True)
class PlaceBox:
    """Where the camera of a walker may be in a place, metres, world frame."""

    low_xz_m: tuple[float, float]
    high_xz_m: tuple[float, float]
    ceiling_m: float
    """Greatest height above the ground."""


def _known_place(world: World) -> holodeck.Place | None:
    if world.place is None or not holodeck.has_place(world.place):
        return None
    return holodeck.get_place(world.place)


def place_box(world: World) -> PlaceBox | None:
    """Return the limits of a world's place; None where it has none that is known here."""
    if (place := _known_place(world)) is None:
        return None
    low_x, low_z, high_x, high_z = place.bounds
    radius = WALKER_RADIUS_M
    return PlaceBox((low_x + radius, low_z + radius), (high_x - radius, high_z - radius), place.ceiling_m)


def place_slide(world: World) -> Slide | None:
    """Return the collision of a world's place; None where it has none that is known here."""
    place = _known_place(world)
    return None if place is None else partial(place.slide, radius_m=WALKER_RADIUS_M)


@dataclass(frozen=True)
class TrueView:
    """Draws what is truly seen in a world that was made from a holodeck place."""

    world: World
    place: holodeck.Place

    @classmethod
    def of(cls, world: World) -> TrueView | None:
        """Return the view of a world; None where it was made from no place that is known here."""
        place = _known_place(world)
        return None if place is None else cls(world, place)

    def draw(self, c2w: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Draw a frame, [H, W, 3], from a camera-to-world pose, [4, 4]."""
        return self.place.render(c2w, self.world.intrinsics, *self.world.frame_size)
