"""A session on a model: denoise against the committed past, commit, decode."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import FRAMES, INVERSE_DEPTH, LATENT, Backend
from engine.errors import RolloutDiverged, SpecMismatch
from engine.files.bundle import GUIDE_INPUTS, ModelSpec, Playable, TensorSpec
from engine.files.world import World
from engine.memory.keyframes import Keyframe
from engine.memory.rendering import MemoryRendering
from engine.memory.spatial_memory import SpatialMemory
from engine.session.chunk_refiner import ChunkRefiner
from engine.session.protocol import Clock, Session, check_seed, chunk_times
from engine.session.sampler import (
    chunk_noise,
    denoise_chunk,
    refiner_noise,
    shorter_schedule,
    window_frames,
)
from engine.types import CameraTrack, Conditioning, FrameChunk, LatentChunk, RefinedHistory, Snapshot


class ModelSession(Session):
    """A rollout of a model."""

    def __init__(
        self,
        model: Playable,
        world: World,
        backend: Backend,
        clock: Clock = time.perf_counter,
        keep_latents: bool = False,
        refiner: ChunkRefiner | None = None,
        refines_by_default: bool = True,
    ) -> None:
        super().__init__()
        spec = model.spec
        self.engine, self.backend, self.device = spec.name, backend.name, backend.device
        self.frame_size = spec.frame_width, spec.frame_height
        self.fps = spec.fps
        self.frames_per_chunk = spec.frames_per_chunk
        self.num_steps = len(spec.timesteps)
        self.snapshot_bytes = sum(tensor.num_bytes for tensor in (*spec.state, *spec.decoder_caches))
        self._spec, self._model_sha256 = spec, model.sha256
        self._backend = backend
        self._clock = clock
        self._keep_latents = keep_latents
        self._refiner = refiner
        if refiner is not None:
            self.refined_block, self.refined_reach = refiner.block_shape, refiner.reach
            self.refiner_sha256 = refiner.sha256
            self.refines_by_default = refines_by_default
        self.enter(world)
        self._state = backend.new_state()
        self._caches = backend.new_caches()

    def enter(self, world: World) -> None:
        check_fit(world, self._spec)
        if self._refiner is not None:
            self._refiner.enter(world)
        self.world = world
        self._memory = None
        if self._spec.memory_channels:
            self._memory = SpatialMemory(world.keyframes, self.max_in_flight)
        self.identity = f"{self._model_sha256}:{world.sha256}"
        if self._refiner is not None:
            self.identity += f":{self._refiner.sha256}"
        self._to_origin = np.linalg.inv(world.origin_c2w)

    def reset(self, seed: int) -> None:
        self._seed = check_seed(seed)
        self._state = self._backend.new_state()
        if self._memory is not None:
            self._memory.restore(())
        if self._refiner is not None:
            self._refiner.begin(self.world.first_latent)
        latent = self.world.first_latent[None, :, None]
        stride = self._spec.temporal_stride
        still = CameraTrack(
            np.repeat(self.world.c2w[None], stride, 0), np.repeat(self.world.intrinsics[None], stride, 0)
        )
        rendering = self._render(0, still)
        self._keep_surroundings(rendering, still)
        results, self._caches = self._backend.run_decoder(
            {LATENT: latent, **_guide(rendering, 0, stride)}, self._backend.new_caches()
        )
        frames = results[FRAMES]
        expected = (self._spec.temporal_stride, self._spec.frame_height, self._spec.frame_width, 3)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise SpecMismatch(
                f"the decoder makes {frames.dtype} {list(frames.shape)}, not uint8 {list(expected)}; "
                "export the bundle again"
            )
        self._next_denoised = 0
        if self._spec.first_chunk_size == 1:
            alone = CameraTrack(np.empty((0, 4, 4)), np.empty((0, 4), np.float32))
            self._commit(latent, self._conditioning(0, 1, alone, rendering))
            self._next_denoised = 1
        self._next_decoded = self._next_denoised

    def denoise(self, track: CameraTrack) -> LatentChunk:
        self._check_track(track)
        model_start_s = self._clock()
        index, spec = self._next_denoised, self._spec
        start_frame = 0 if index == 0 else spec.first_chunk_size + (index - 1) * spec.chunk_size
        size = spec.first_chunk_size if index == 0 else spec.chunk_size
        rendering = self._render(index, track)
        rendered_s = None if rendering is None else self._clock()
        self._keep_surroundings(rendering, track)
        conditioning = self._conditioning(start_frame, size, track, rendering)
        noise = chunk_noise(
            self._seed, index, (1, spec.latent_channels, size, spec.latent_height, spec.latent_width)
        )
        timesteps = shorter_schedule(spec.timesteps, track.num_steps)
        latents = denoise_chunk(
            lambda x, t: self._run(x, t, conditioning), noise, timesteps, self._clean_first(index)
        )
        _check_finite({"latents": latents}, index)
        denoised_s = self._clock()
        self._commit(latents, conditioning)
        state = self._backend.to_arrays(self._state) if self.keep_snapshots else None
        if state is not None:
            # A snapshot that holds such numbers would bring them back whenever it is restored.
            _check_finite(state, index)
        self._next_denoised = index + 1
        sha256 = hashlib.sha256(latents.tobytes()).hexdigest()
        return LatentChunk(
            index,
            start_frame,
            latents[0],
            sha256,
            track,
            model_start_s,
            denoised_s,
            self._clock(),
            state,
            rendering,
            None if conditioning.memory is None else conditioning.memory[0],
            rendered_s=rendered_s,
        )

    def refine(self, chunk: LatentChunk) -> LatentChunk:
        """Refine a chunk, or end the refiner's stream where its track does not ask for it; latent frame 0 stays as it is."""
        refiner = self._refiner
        if refiner is None:
            return chunk
        if not chunk.track.refine:
            refiner.begin(chunk.latents[:, -1].copy())
            return replace(chunk, refined=refiner.history)
        start_s = self._clock()
        given = 1 if chunk.start_frame == 0 else 0
        noise = refiner_noise(self._seed, chunk.chunk_index, refiner.block_shape)
        memory = None if chunk.memory is None else chunk.memory[:, given:]
        refined = refiner.refine(chunk.latents[:, given:], noise, memory)
        _check_finite({"refined latents": refined}, chunk.chunk_index)
        latents = np.concatenate([chunk.latents[:, :given], refined], 1)
        return replace(
            chunk,
            latents=latents,
            sha256=hashlib.sha256(latents.tobytes()).hexdigest(),
            refined=refiner.history,
            refine_start_s=start_s,
            refined_s=self._clock(),
        )

    def decode(self, chunk: LatentChunk) -> FrameChunk:
        self._check_order(chunk)
        decode_start_s = self._clock()
        if chunk.rendering is None:
            # Of a recording: nobody denoised it here.
            chunk = replace(chunk, rendering=self._render(chunk.chunk_index, chunk.track))
        frames, depths, stride = [], [], self._spec.temporal_stride
        # The world's own latent frame was decoded by the reset and is never shown again.
        skipped = 1 if chunk.start_frame == 0 else 0
        for t in range(skipped, chunk.latents.shape[1]):
            latent = np.ascontiguousarray(chunk.latents[None, :, t : t + 1])
            first = (t - skipped) * stride
            guide = _guide(chunk.rendering, first, first + stride)
            results, self._caches = self._backend.run_decoder({LATENT: latent, **guide}, self._caches)
            frames.append(results[FRAMES])
            depths.append(results.get(INVERSE_DEPTH))
        inverse_depth = None if depths[0] is None else _joined(depths)
        self._grow(chunk, frames[-1][-1], inverse_depth)
        self._next_decoded = chunk.chunk_index + 1
        snapshot = None
        if chunk.state is not None:
            snapshot = self._snapshot_before(self._next_decoded, chunk.state, chunk.refined)
        return FrameChunk(
            chunk.chunk_index,
            _joined(frames),
            chunk.track,
            chunk_times(chunk, decode_start_s, self._clock()),
            chunk.sha256,
            inverse_depth=inverse_depth,
            latents=chunk.latents if self._keep_latents else None,
            snapshot=snapshot,
        )

    def snapshot(self) -> Snapshot:
        self._check_idle()
        refined = None if self._refiner is None else self._refiner.history
        return self._snapshot_before(self._next_denoised, self._backend.to_arrays(self._state), refined)

    def _snapshot_before(
        self, chunk_index: int, state: Mapping[str, NDArray[Any]], refined: RefinedHistory | None
    ) -> Snapshot:
        arrays = {f"state.{name}": value for name, value in state.items()}
        arrays |= {f"cache.{name}": value for name, value in self._backend.to_arrays(self._caches).items()}
        grown = () if self._memory is None else self._memory.grown
        return Snapshot(self.identity, self._seed, chunk_index, self.world.c2w, arrays, grown, refined)

    def restore(self, snapshot: Snapshot) -> None:
        self._check_snapshot(snapshot)
        state = self._part(snapshot, "state", self._spec.state)
        caches = self._part(snapshot, "cache", self._spec.decoder_caches)
        self._seed = check_seed(snapshot.seed)
        self.surroundings = None
        self._next_denoised = self._next_decoded = snapshot.chunk_index
        self._state = self._backend.from_arrays(state)
        self._caches = self._backend.from_arrays(caches)
        if self._memory is not None:
            self._memory.restore(snapshot.grown)
        if self._refiner is not None:
            # Equal identities mean the same refiner, whose histories all its snapshots hold.
            assert snapshot.refined is not None, "a snapshot of a session with a refiner"
            self._refiner.restore(snapshot.refined)

    def _part(self, snapshot: Snapshot, part: str, tensors: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
        """Return the snapshot's arrays of one part; one that was read from a file may hold anything."""
        arrays: dict[str, NDArray[Any]] = {}
        for tensor in tensors:
            array = snapshot.arrays.get(f"{part}.{tensor.name}")
            if array is None or array.shape != tensor.shape or array.dtype != tensor.dtype:
                raise SpecMismatch(
                    f"the snapshot lacks {part}.{tensor.name} as {self.engine} keeps it; "
                    "take it again with this version"
                )
            arrays[tensor.name] = array
        return arrays

    def close(self) -> None:
        self._state, self._caches = {}, {}
        if self._refiner is not None:
            self._refiner.close()
        self._backend.close()

    def _clean_first(self, chunk_index: int) -> NDArray[np.float32] | None:
        return self.world.first_latent if chunk_index == 0 else None

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        return super().keyframes if self._memory is None else self._memory.keyframes

    def _render(self, chunk_index: int, track: CameraTrack) -> MemoryRendering | None:
        """Return what the spatial memory shows of a chunk's frames."""
        if self._memory is None:
            return None
        width, height = self.frame_size
        return self._memory.render(chunk_index, track.c2w, track.intrinsics, width, height)

    def _keep_surroundings(self, rendering: MemoryRendering | None, track: CameraTrack) -> None:
        if rendering is not None:
            self.surroundings = rendering.surroundings(track.c2w[-1], track.intrinsics[-1])

    def _grow(
        self, chunk: LatentChunk, frame: NDArray[np.uint8], inverse_depth: NDArray[np.float32] | None
    ) -> None:
        """Let the memory take in the last frame of a chunk."""
        if self._memory is None or chunk.rendering is None or inverse_depth is None:
            return
        self._memory.grow(
            chunk.chunk_index,
            frame,
            inverse_depth[-1],
            chunk.rendering.coverage[-1],
            chunk.track.c2w[-1],
            chunk.track.intrinsics[-1],
        )

    def _encoded_memory(self, rendering: MemoryRendering, size: int) -> NDArray[np.float32]:
        """Return what the model reads of a rendering: encoding and coverage of `size` latent frames, [1, M, T, h, w]."""
        spec, parts = self._spec, []
        stride = spec.temporal_stride
        for t in range(size):
            frames = slice(t * stride, (t + 1) * stride)
            latent = self._backend.run_encoder(rendering.color[frames])
            cells = rendering.coverage[frames].reshape(
                stride, spec.latent_height, spec.spatial_stride, spec.latent_width, spec.spatial_stride
            )
            parts.append(np.concatenate([latent, cells.mean((0, 2, 4))[None, None, None]], 1))
        return np.concatenate(parts, 2)

    def _conditioning(
        self, start_frame: int, size: int, track: CameraTrack, rendering: MemoryRendering | None
    ) -> Conditioning:
        """Return what the model is conditioned on through all steps of a chunk.

        `track` holds the frames after those of the previous chunk; frame 0 is the world's own.
        """
        relative = (self._to_origin @ track.c2w).astype(np.float32)
        intrinsics = track.intrinsics.astype(np.float32)
        frames = window_frames(start_frame, size, self._spec.temporal_stride)
        if start_frame == 0:
            relative = np.concatenate([self._first_pose()[None], relative])
            intrinsics = np.concatenate([self.world.intrinsics[None], intrinsics])
        else:
            frames = frames - frames[0]
        return Conditioning(
            self.world.text[None],
            self.world.text_mask[None],
            relative[frames][None],
            intrinsics[frames][None],
            start_frame,
            None if rendering is None else self._encoded_memory(rendering, size),
        )

    def _first_pose(self) -> NDArray[np.float32]:
        """Return the pose of the world's first frame as the model counts it, [4, 4]: exactly none in most worlds."""
        if self.world.origin is None:
            return np.eye(4, dtype=np.float32)
        return (self._to_origin @ self.world.c2w).astype(np.float32)

    def _run(
        self,
        latents: NDArray[np.float32],
        timesteps: NDArray[np.float32],
        conditioning: Conditioning,
    ) -> NDArray[np.float32]:
        inputs = {"latents": latents, "timesteps": timesteps, **conditioning.as_inputs()}
        return self._backend.run_step(inputs, self._state, keep_state=False)[0]

    def _commit(self, latents: NDArray[np.float32], conditioning: Conditioning) -> None:
        timesteps = np.zeros((1, latents.shape[2]), np.float32)
        inputs = {"latents": latents, "timesteps": timesteps, **conditioning.as_inputs()}
        self._state = self._backend.run_step(inputs, self._state, keep_state=True)[1]


def _guide(rendering: MemoryRendering | None, first: int, end: int) -> dict[str, NDArray[Any]]:
    """Return the decoder's inputs that show it frames of the memory's rendering."""
    if rendering is None:
        return {}
    parts = (rendering.color, rendering.coverage, rendering.inverse_depth)
    return {name: part[first:end] for name, part in zip(GUIDE_INPUTS, parts, strict=True)}


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _check_finite(arrays: Mapping[str, NDArray[Any]], index: int) -> None:
    """Refuse NaN and infinity, which no rollout recovers from."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RolloutDiverged(
                f"the rollout diverged in chunk {index}: not all of its {name} is finite; reset it"
            )


def check_fit(world: World, spec: ModelSpec) -> None:
    """Refuse a world that was made for another model."""
    if world.info.model != spec.weights_sha256:
        raise SpecMismatch(
            f"the world {world.name} was made for another model than {spec.name}; make it again for this one"
        )
    for what, has, wants in (
        (
            "first latent",
            world.first_latent.shape,
            (spec.latent_channels, spec.latent_height, spec.latent_width),
        ),
        ("first frame", world.first_frame.shape, (spec.frame_height, spec.frame_width, 3)),
        ("text", world.text.shape[1:], (spec.text_dim,)),
    ):
        if has != wants:
            raise SpecMismatch(
                f"the {what} of the world {world.name} is {list(has)} where {spec.name} wants {list(wants)}; "
                "make it again for this model"
            )
