"""One rollout of a bundle along a track: frames, poses, and the truth beside them.

Everything goes through the engine's own session, so what is measured is what is played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.files.world import World
from engine.memory.renderer import MemoryRenderer
from engine.session.protocol import Session
from engine.types import CameraTrack
from holodeck import Place, get_place

Frames = NDArray[np.uint8]
Poses = NDArray[np.float64]
Progress = Callable[[int], None]
Reconstruct = Callable[[Frames, Poses, World], Frames]
HELD_OUT_SEED = 90_000
"""Walks of this seed and above are never trained on."""


class TrackMaker(Protocol):
    """Lays a track through a place."""

    def __call__(self, place: Place, num_frames: int, fps: int, seed: int) -> Poses:
        """Return camera-to-world poses, metres, [num_frames, 4, 4]; the first is `place.spawn`."""
        ...


@dataclass(frozen=True)
class Rollout:
    """A video that was generated along a track, and what would truly have been seen."""

    world: str
    fps: float
    frames_per_chunk: int
    c2w: Poses
    """Camera-to-world of every frame, metres, [F, 4, 4]."""
    intrinsics: NDArray[np.float32]
    """fx, fy, cx, cy in pixels, [4]."""
    truth: Frames
    """[F, H, W, 3]."""
    generated: Frames
    """[F, H, W, 3]; frame 0 is the world's own first frame."""
    remembered: Frames | None = None
    """What the world's spatial memory alone shows, its holes filled from around, [F, H, W, 3]; None where it holds nothing."""
    covered: NDArray[np.bool_] | None = None
    """Where a world that began with one picture shows anything of it, [F, H, W]; None for other worlds."""
    reconstructed: Frames | None = None
    """The truth as the autoencoder keeps it, [F, H, W, 3]; None where it was not at hand."""

    @property
    def num_frames(self) -> int:
        return len(self.generated)


def place_of(world: World) -> Place:
    """Return the place a world was made from.

    Raises:
        ValueError: It was made from none, so there is no truth to compare with.
    """
    if world.place is None:
        raise ValueError(
            f"the world {world.name} has no holodeck place; only worlds made from one can be measured"
        )
    return get_place(world.place)


def began_with_one_picture(world: World) -> bool:
    """Whether all that a world's memory holds is one picture."""
    return len(world.keyframes) == 1


def num_chunks(seconds: float, fps: float, frames_per_chunk: int) -> int:
    """Chunks that last at least so long; a duration that ends on a chunk's last frame takes no further one."""
    return max(1, int(np.ceil(round(seconds * fps) / frames_per_chunk)))


def draw(place: Place, poses: Poses, intrinsics: NDArray[np.float32], size: tuple[int, int]) -> Frames:
    """Draw what is truly seen from each pose.

    Args:
        size: Width and height in pixels.
    """
    return np.stack([place.render(c2w, intrinsics, *size) for c2w in poses])


def stream(session: Session, poses: Poses, seed: int) -> Iterator[Frames]:
    """Yield the chunks that a session makes along a track whose first pose is that of the world's first frame."""
    length = session.frames_per_chunk
    session.reset(seed)
    for start in range(1, len(poses), length):
        part = poses[start : start + length]
        intrinsics = np.repeat(session.world.intrinsics[None], len(part), 0)
        yield session.step(CameraTrack(part, intrinsics, refine=session.refines_by_default)).frames


def roll_out(
    session: Session,
    place: Place,
    poses: Poses,
    seed: int,
    reconstruct: Reconstruct | None = None,
    progress: Progress | None = None,
) -> Rollout:
    """Generate a video along a track and draw its truth.

    Args:
        poses: 1 + n * frames_per_chunk of them, from the world's first frame on.
        reconstruct: Encodes and decodes the truth, seen from given poses in a world, for the ceiling.
        progress: Told how many chunks are made.
    """
    world = session.world
    truth: list[Frames] = [world.first_frame[None]]
    generated: list[Frames] = [world.first_frame[None]]
    remembered: list[Frames] = [world.first_frame[None]]
    is_of_one_picture = began_with_one_picture(world)
    covered = [np.ones((1, *world.first_frame.shape[:2]), bool)]
    memory = MemoryRenderer(world.keyframes) if world.keyframes else None
    for chunk in stream(session, poses, seed):
        start = sum(map(len, truth))
        seen_from = poses[start : start + len(chunk)]
        truth.append(draw(place, seen_from, world.intrinsics, world.frame_size))
        if memory is not None:
            lenses = np.repeat(world.intrinsics[None], len(chunk), 0)
            rendering = memory.render(seen_from, lenses, *world.frame_size)
            remembered.append(rendering.color)
            if is_of_one_picture:
                covered.append(rendering.coverage > 0)
        generated.append(chunk)
        if progress is not None:
            progress(len(generated) - 1)
    true_video = np.concatenate(truth)
    return Rollout(
        world=world.name,
        fps=session.fps,
        frames_per_chunk=session.frames_per_chunk,
        c2w=poses,
        intrinsics=world.intrinsics,
        truth=true_video,
        generated=np.concatenate(generated),
        remembered=None if memory is None else np.concatenate(remembered),
        covered=np.concatenate(covered) if is_of_one_picture else None,
        reconstructed=None if reconstruct is None else reconstruct(true_video, poses, world),
    )
