"""One rollout: reset, step, snapshot, restore, close.

A session belongs to one thread, except that `refine` and `decode` may each run on one of their own while `denoise`
works on the next chunk; they share nothing but the LatentChunk handed over. `reset`, `snapshot`, `restore` and `close`
need all to be idle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from engine.errors import SpecMismatch
from engine.files.world import World
from engine.memory.keyframes import Keyframe
from engine.memory.rendering import Surroundings
from engine.session.sampler import MAX_SEED
from engine.types import CameraTrack, ChunkTimes, FrameChunk, LatentChunk, Snapshot

Clock = Callable[[], float]
MAX_IN_FLIGHT = 2
"""Chunks under way at once in a session without a refiner."""


class Session(ABC):
    """A world being walked through; frames come from a model, or from the ground truth."""

    world: World
    engine: str
    """Name of the bundle, or "holodeck"."""
    backend: str
    device: str
    identity: str
    """Hash of the engine and of the world: equal identities and seeds and tracks give equal rollouts."""
    frame_size: tuple[int, int]
    """(width, height) in pixels."""
    fps: float
    frames_per_chunk: int
    num_steps: int = 1
    """Denoising steps of the whole schedule; a chunk may be made with fewer."""
    snapshot_bytes: int = 0
    """Size of a snapshot's arrays; it never changes in a session."""
    refined_block: tuple[int, int, int, int] | None = None
    """[C, T, h, w] of what the refiner takes at a time; None where the session has no refiner."""
    refined_reach: int = 0
    """Most refined blocks that a snapshot holds."""
    refiner_sha256: str = ""
    """Of the refiner, empty where there is none."""
    refines_by_default: bool = False
    """Whether chunks are to be refined where nobody says otherwise: a refiner may be an option."""

    def __init__(self) -> None:
        self.keep_snapshots = False
        """Whether every chunk brings the snapshot behind it; may be set at any time, from any thread."""
        self.surroundings: Surroundings | None = None
        """What the memory shows around the chunk that was begun last, long before its frames are there; None where nothing was
        rendered. May be read at any time, from any thread."""
        self._seed = 0
        self._next_denoised = 0
        self._next_decoded = 0

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        """What the spatial memory holds by now: the world's keyframes, and those that the walk added."""
        return self.world.keyframes

    @property
    def next_chunk_index(self) -> int:
        """Index of the chunk the next step makes."""
        return self._next_denoised

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Begin a new rollout at the world's first frame."""

    def step(self, track: CameraTrack) -> FrameChunk:
        """Make the next chunk along `track`, one camera for each of its `frames_per_chunk` frames."""
        return self.decode(self.refine(self.denoise(track)))

    @property
    def has_refiner(self) -> bool:
        return self.refined_block is not None

    @property
    def max_in_flight(self) -> int:
        """Chunks that may be in the making or waiting to be shown: one to decode while the next is denoised, and with a refiner
        one more between them."""
        return MAX_IN_FLIGHT + self.has_refiner

    def refine(self, chunk: LatentChunk) -> LatentChunk:
        """Refine the latents of a chunk whose track asks for it; chunks come in order, refined or not."""
        return chunk

    @abstractmethod
    def denoise(self, track: CameraTrack) -> LatentChunk:
        """Make the next chunk's latents and commit them to the rollout's memory."""

    @abstractmethod
    def decode(self, chunk: LatentChunk) -> FrameChunk:
        """Turn latents into frames; chunks come in order."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the rollout as it stands between two chunks."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same engine and world."""

    def enter(self, world: World) -> None:
        """Switch to another world of the same engine, begun by the next reset; needs both threads to be idle."""
        raise ValueError(f"{self.engine} cannot switch to the world {world.name}; open it anew")

    @abstractmethod
    def close(self) -> None:
        """Free what the session holds."""

    def _check_track(self, track: CameraTrack) -> None:
        if track.num_frames != self.frames_per_chunk:
            raise ValueError(
                f"a chunk takes {self.frames_per_chunk} cameras, the track has {track.num_frames}; cut it"
            )
        if track.refine and not self.has_refiner:
            raise ValueError(
                f"{self.engine} was opened without a refiner; open it with --refiner on, or leave the chunk as it is"
            )
        if track.num_steps is not None and not 1 <= track.num_steps <= self.num_steps:
            raise ValueError(
                f"{self.engine} makes a chunk with 1 to {self.num_steps} steps, {track.num_steps} were asked for; "
                "take the bundle the walk was made with"
            )

    def _check_order(self, chunk: LatentChunk) -> None:
        if chunk.chunk_index != self._next_decoded:
            raise ValueError(
                f"chunk {chunk.chunk_index} cannot be decoded while {self._next_decoded} is next; reset first"
            )

    def _check_idle(self) -> None:
        if self._next_denoised != self._next_decoded:
            raise ValueError(
                f"chunk {self._next_decoded} is not decoded yet; decode it before taking a snapshot"
            )

    def _check_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.identity != self.identity:
            raise SpecMismatch("the snapshot is from another world or engine; restore it where it was taken")


def chunk_times(chunk: LatentChunk, decode_start_s: float, ready_s: float) -> ChunkTimes:
    return ChunkTimes(
        chunk.track.latched_s,
        chunk.model_start_s,
        chunk.denoised_s,
        chunk.committed_s,
        decode_start_s,
        ready_s,
        chunk.refine_start_s,
        chunk.refined_s,
        chunk.rendered_s,
    )


def check_seed(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"the seed must lie between 0 and {MAX_SEED}, got {seed}")
    return seed
