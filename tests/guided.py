"""A model with a spatial memory, small enough to be read: for tests of sessions and of worlds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import Backend, State
from engine.files.bundle import EngineSpec
from engine.files.world import World
from engine.memory.keyframes import Keyframe
from engine.types import CameraTrack
from tests.conftest import CACHES, STATE, WEIGHTS_SHA256, C, R

HEIGHT, WIDTH, STRIDE = 32, 64, 16
INTRINSICS = np.array([40, 40, 32, 16], np.float32)


class GuidedBackend(Backend):
    """A model with a spatial memory: latents come from noise and memory, frames are what the guide shows or a wall."""

    name = "guided"
    device = "none"

    def __init__(self) -> None:
        self.memories: list[NDArray[Any]] = []

    def new_state(self) -> State:
        return {tensor["name"]: np.zeros(tensor["shape"], tensor["dtype"]) for tensor in STATE}

    def new_caches(self) -> State:
        return {tensor["name"]: np.zeros(tensor["shape"], tensor["dtype"]) for tensor in CACHES}

    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        self.memories.append(inputs["memory"])
        kept = {**state, "count": state["count"] + 1} if keep_state else state
        return inputs["latents"] * 0.1 + inputs["memory"][:, :C] * 0.3 + state["count"] * 0.01, kept

    def run_decoder(
        self, inputs: Mapping[str, NDArray[Any]], caches: State
    ) -> tuple[dict[str, NDArray[Any]], State]:
        covered = inputs["guide_coverage"] > 0
        level = np.float32(100 + 5 * np.tanh(inputs["latent"].mean()))
        frames = np.where(covered[..., None], inputs["guide_color"], np.uint8(level))
        depth = np.where(covered, inputs["guide_inverse_depth"], np.float32(0.25))
        return {"frames": frames, "inverse_depth": depth.astype(np.float32)}, caches

    def run_encoder(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        cells = frames.reshape(R, HEIGHT // STRIDE, STRIDE, WIDTH // STRIDE, STRIDE, 3).mean((0, 2, 4))
        return np.repeat(cells.mean(-1)[None, None, None].astype(np.float32) / 255, C, 1)

    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        return {name: array.copy() for name, array in state.items()}

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        return dict(arrays)

    def close(self) -> None:
        pass


def guided_spec() -> EngineSpec:
    """Describe its bundle."""
    files = ("step.onnx", "decoder.onnx", "encoder.onnx")
    return EngineSpec.model_validate(
        {
            "format_version": 2,
            "name": "guided",
            "model": {},
            "weights_sha256": WEIGHTS_SHA256,
            "latent_channels": C,
            "latent_height": HEIGHT // STRIDE,
            "latent_width": WIDTH // STRIDE,
            "frame_height": HEIGHT,
            "frame_width": WIDTH,
            "fps": 16,
            "temporal_stride": R,
            "spatial_stride": STRIDE,
            "chunk_size": 1,
            "first_chunk_size": 1,
            "timesteps": (1000, 500),
            "step_graphs": {"1": files[0]},
            "decoder_graph": files[1],
            "encoder_graph": files[2],
            "memory_channels": C + 1,
            "state": tuple(STATE),
            "decoder_caches": tuple(CACHES),
            "precision": {},
            "target": "cpu",
            "builder": "tests",
            "files": dict.fromkeys(files, "ab" * 32),
            "text_dim": 6,
        }
    )


def wall(depth_m: float = 3.0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Colour and inverse depth of a grey wall."""
    return np.full((HEIGHT, WIDTH, 3), 90, np.uint8), np.full((HEIGHT, WIDTH), 1 / depth_m, np.float32)


def guided_world(toy_world: World) -> World:
    """A world that remembers what one keyframe saw."""
    color, depth = wall()
    return replace(
        toy_world,
        first_latent=np.zeros((C, HEIGHT // STRIDE, WIDTH // STRIDE), np.float32),
        first_frame=color,
        intrinsics=INTRINSICS,
        c2w=np.eye(4),
        keyframes=(Keyframe.of(color, depth, np.eye(4), INTRINSICS),),
    )


def turn_round(first: int, count: int, refine: bool = False) -> list[CameraTrack]:
    """Turn right by 8 degrees a chunk."""
    tracks = []
    for chunk in range(first, first + count):
        c2w = np.tile(np.eye(4), (R, 1, 1))
        for frame in range(R):
            angle = np.radians(8 * (chunk + (frame + 1) / R))
            c2w[frame, :3, :3] = [
                [np.cos(angle), 0, np.sin(angle)],
                [0, 1, 0],
                [-np.sin(angle), 0, np.cos(angle)],
            ]
        tracks.append(CameraTrack(c2w, np.tile(INTRINSICS, (R, 1)), refine=refine))
    return tracks
