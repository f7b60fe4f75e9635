"""Values that cross the engine's walls.

Camera convention everywhere: camera-to-world 4x4, OpenCV axes (x right, y down, z forward), metres.
Intrinsics are in pixels of the output frame; pixel column u spans [u, u + 1], so a centred camera has
cx = width / 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import Grown
from engine.memory.rendering import MemoryRendering


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera over a frame of `width` x `height` pixels."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def as_array(self) -> NDArray[np.float32]:
        """Return (fx, fy, cx, cy), [4] float32."""
        return np.array([self.fx, self.fy, self.cx, self.cy], np.float32)


@dataclass(frozen=True)
class CameraTrack:
    """The cameras of the video frames of one chunk (or of a whole walk)."""

    c2w: NDArray[np.float64]
    """[F, 4, 4], in the world's own frame (not relative to the first frame)."""
    intrinsics: NDArray[np.float32]
    """[F, 4]: fx, fy, cx, cy in pixels of the output frame."""
    latched_s: float = 0.0
    """Clock time at which the inputs behind this track were read, seconds."""
    num_steps: int | None = None
    """Denoising steps to make the chunk with; None for the engine's whole schedule."""
    refine: bool = False
    """Whether the second stage refines the chunk; only sessions with a refiner can."""
    plan: Any = field(default=None, compare=False, repr=False)
    """What the planner of this track wants back with its frames; no session reads it."""

    @property
    def num_frames(self) -> int:
        return int(self.c2w.shape[0])


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the model is conditioned on besides the latents of a chunk; the same through all its denoising steps.

    F = T * temporal_stride video frames, the window of each of the chunk's T latent frames.
    """

    text: NDArray[np.float32]
    """[1, L, D]."""
    text_mask: NDArray[np.float32]
    """[1, L], 1 where a token counts."""
    c2w: NDArray[np.float32]
    """[1, F, 4, 4], relative to the pose that the world's model counts from."""
    intrinsics: NDArray[np.float32]
    """[1, F, 4]: fx, fy, cx, cy in pixels of the output frame."""
    start_frame: int
    """Index of the chunk's first latent frame, counted from the world's first."""
    memory: NDArray[np.float32] | None = None
    """[1, M, T, h, w], what the spatial memory shows of the chunk, for models that read one: the encoding of its rendering,
    and the share of each cell that it covers."""

    def as_inputs(self) -> dict[str, NDArray[Any]]:
        """Return the inputs of a step graph by name."""
        inputs: dict[str, NDArray[Any]] = {
            "c2w": self.c2w,
            "intrinsics": self.intrinsics,
            "start_frame": np.array([self.start_frame], np.int64),
            "text": self.text,
            "text_mask": self.text_mask,
        }
        return inputs if self.memory is None else {**inputs, "memory": self.memory}


@dataclass(frozen=True, eq=False)
class RefinedHistory:
    """What a refiner's stream is rebuilt from, bit for bit, without its keys and values."""

    sink: NDArray[np.float32]
    """[C, h, w], the latent frame that the stream begins with: the last one that was not refined."""
    num_blocks: int = 0
    """Blocks refined since then; none where the last chunk was not refined."""
    blocks: tuple[NDArray[np.float32], ...] = ()
    """The newest of them, as far back as keys and values depend on, each [C, T, h, w]; histories share them."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything a session needs to continue from a chunk boundary, bit for bit."""

    identity: str
    """Of the engine and world it was taken in; it fits no other."""
    seed: int
    chunk_index: int
    """Of the next chunk."""
    first_c2w: NDArray[np.float64]
    """[4, 4], the start pose that all later poses are relative to, in the world's own frame."""
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    grown: tuple[Grown, ...] = field(default=(), repr=False)
    """What the walk had added to the world's spatial memory; snapshots share it."""
    refined: RefinedHistory | None = field(default=None, repr=False)
    """Of the refiner, where the session has one."""

    @property
    def num_bytes(self) -> int:
        """Size of what no other snapshot holds: of refined blocks, the newest."""
        own = [*self.arrays.values()]
        if self.refined is not None:
            own += [self.refined.sink, *self.refined.blocks[-1:]]
        return sum(array.nbytes for array in own)


@dataclass(frozen=True)
class LatentChunk:
    """What one step of the generator makes."""

    chunk_index: int
    start_frame: int
    """Index of its first latent frame, counted from the world's first (conditioning) latent frame."""
    latents: NDArray[np.float32]
    """[C, T, H, W], clean."""
    sha256: str
    """Of the latents' bytes (float32, C order)."""
    track: CameraTrack
    """The cameras of the frames to be decoded from it."""
    model_start_s: float = 0.0
    denoised_s: float = 0.0
    committed_s: float = 0.0
    state: Mapping[str, NDArray[Any]] | None = field(default=None, repr=False)
    """The rollout's memory behind it, where the session was asked to keep snapshots."""
    rendering: MemoryRendering | None = field(default=None, repr=False)
    """What the spatial memory shows of its frames, where the model reads one."""
    memory: NDArray[np.float32] | None = field(default=None, repr=False)
    """The same as model and refiner read it, encoding and coverage, [M, T, H, W]."""
    refined: RefinedHistory | None = field(default=None, repr=False)
    """Of the refiner behind it, where the session has one."""
    refine_start_s: float | None = None
    refined_s: float | None = None
    """When it was refined; None where it was not."""
    rendered_s: float | None = None
    """When the spatial memory's rendering was there; None where the model reads none."""


@dataclass(frozen=True)
class ChunkTimes:
    """Clock times of one chunk's life in the engine, seconds; they travel with the chunk."""

    latched_s: float
    model_start_s: float
    denoised_s: float
    committed_s: float
    decode_start_s: float
    ready_s: float
    refine_start_s: float | None = None
    refined_s: float | None = None
    """None where the chunk was not refined."""
    rendered_s: float | None = None
    """None where no spatial memory was rendered."""

    @property
    def render_ms(self) -> float:
        """Time that rendering the spatial memory took, 0 where there is none."""
        return 0.0 if self.rendered_s is None else 1e3 * (self.rendered_s - self.model_start_s)

    @property
    def denoise_ms(self) -> float:
        """Time until the latents were clean, rendering included."""
        return 1e3 * (self.denoised_s - self.model_start_s)

    @property
    def commit_ms(self) -> float:
        return 1e3 * (self.committed_s - self.denoised_s)

    @property
    def refine_ms(self) -> float:
        """Time that the refiner took, 0 where it did nothing."""
        if self.refine_start_s is None or self.refined_s is None:
            return 0.0
        return 1e3 * (self.refined_s - self.refine_start_s)

    @property
    def refine_delay_ms(self) -> float:
        """How much later the chunk could be decoded for being refined, the wait for the refiner included."""
        return 0.0 if self.refined_s is None else 1e3 * (self.refined_s - self.committed_s)

    @property
    def decode_ms(self) -> float:
        return 1e3 * (self.ready_s - self.decode_start_s)

    @property
    def chunk_ms(self) -> float:
        """Wall time from the model's start to the last decoded frame."""
        return 1e3 * (self.ready_s - self.model_start_s)


@dataclass(frozen=True)
class FrameChunk:
    """The video frames of one chunk, with their cameras, plan and time stamps."""

    chunk_index: int
    frames: NDArray[np.uint8]
    """[F, H, W, 3], RGB."""
    track: CameraTrack
    """The cameras they were rendered for, with what their planner wants back."""
    times: ChunkTimes
    latents_sha256: str
    """Of the latents these frames were decoded from (of the frames themselves in the holodeck)."""
    inverse_depth: NDArray[np.float32] | None = field(default=None, repr=False)
    """[F, H, W], 1/m along the optical axis, where the model gives it."""
    latents: NDArray[np.float32] | None = field(default=None, repr=False)
    """[C, T, H, W], where the session was asked to keep them."""
    snapshot: Snapshot | None = field(default=None, repr=False)
    """The rollout behind this chunk, where the session was asked to keep snapshots."""

    @property
    def c2w(self) -> NDArray[np.float64]:
        """The pose of each frame, [F, 4, 4], in the world's own frame."""
        return self.track.c2w
