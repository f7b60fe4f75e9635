"""A bundle held against the model it was made from: same inputs, carried state, largest difference.

It runs no graph itself: whoever calls it brings a backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.bundle import EngineSpec
from export.rollouts import Scene
from model.config import ModelConfig
from model.rollout import RolloutState
from model.sampler import ChunkConditions, commit_chunk, euler_step
from model.transformer import WorldModel

Arrays = NDArray[Any]


class GraphRunner(Protocol):
    """The part of an engine backend that verification needs."""

    def new_state(self) -> Mapping[str, Any]: ...
    def new_caches(self) -> Mapping[str, Any]: ...
    def run_step(
        self, inputs: Mapping[str, Arrays], state: Mapping[str, Any], keep_state: bool
    ) -> tuple[Arrays, Mapping[str, Any]]: ...
    def run_decoder(self, latent: Arrays, caches: Mapping[str, Any]) -> tuple[Arrays, Mapping[str, Any]]: ...
    def to_arrays(self, state: Mapping[str, Any]) -> dict[str, Arrays]: ...


@dataclass(frozen=True)
class ChunkErrors:
    """Largest absolute differences after one chunk."""

    chunk_index: int
    velocity: float
    """Over all denoising steps and the commit."""
    state: float
    """Over all state tensors after the commit."""
    frames: int
    """Over all bytes of the decoded pictures."""


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found."""

    chunks: tuple[ChunkErrors, ...]

    @property
    def velocity(self) -> float:
        return max(chunk.velocity for chunk in self.chunks)

    @property
    def state(self) -> float:
        return max(chunk.state for chunk in self.chunks)

    @property
    def frames(self) -> int:
        return max(chunk.frames for chunk in self.chunks)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        rows = [vars(chunk) for chunk in self.chunks]
        return {"velocity": self.velocity, "state": self.state, "frames": self.frames, "chunks": rows}


@torch.no_grad()
def verify_bundle(
    model: WorldModel,
    decoder: nn.Module,
    spec: EngineSpec,
    runner: GraphRunner,
    num_chunks: int = 4,
    seed: int = 0,
) -> VerifyReport:
    """Run the graphs and PyTorch side by side on a made-up walk, each carrying its own state.

    Latents of both sides are PyTorch's, so that the errors are those of one pass and not of a whole rollout.

    Args:
        model: Float32, in evaluation mode.
        decoder: The streaming decoder the bundle was made with.
        num_chunks: Chunks generated after the conditioning one; cache faults hide in later chunks.
    """
    scene = made_up_scene(spec, num_chunks, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    grid = (model.config.latent_height, model.config.latent_width)
    pair = _Pair(model, decoder, spec, runner)
    found = []
    start = 0
    for index in range(num_chunks + 1):
        frames = model.config.first_chunk_size if index == 0 else model.config.chunk_size
        conditions = scene.conditions(model.config, start, frames)
        latents = torch.randn(1, model.config.in_channels, frames, *grid, generator=generator)
        gaps = []
        for step, following in pairwise([*spec.timesteps, 0.0]):
            velocity, gap = pair.step(latents, step, conditions)
            here, there = torch.full((1, frames), step / 1000), torch.full((1, frames), following / 1000)
            latents = euler_step(latents, velocity, here, there)
            gaps.append(gap)
        gaps.append(pair.step(latents, 0.0, conditions)[1])
        found.append(ChunkErrors(index, max(gaps), pair.commit(latents, conditions), pair.decode(latents)))
        start += frames
    return VerifyReport(tuple(found))


def check_sizes(spec: EngineSpec, config: ModelConfig) -> None:
    """Refuse to hold a bundle against a model of other sizes."""
    if ModelConfig.from_dict(spec.model) != config:
        raise ValueError(
            f"the bundle holds {spec.name}, and its sizes are not those of the model {config.name}; "
            "name the one it was made from with --model"
        )


class _Pair:
    """A rollout in PyTorch and the same one in graphs, each with its own state and caches."""

    def __init__(self, model: WorldModel, decoder: nn.Module, spec: EngineSpec, runner: GraphRunner) -> None:
        self.model, self.decoder, self.runner = model, decoder, runner
        self.state = RolloutState.zeros(model.config)
        self.caches = tuple(torch.from_numpy(tensor.zeros()) for tensor in spec.decoder_caches)
        self.graph_state, self.graph_caches = runner.new_state(), runner.new_caches()

    def step(self, latents: Tensor, timestep: float, conditions: ChunkConditions) -> tuple[Tensor, float]:
        """Return PyTorch's velocity and the largest difference of the graph's."""
        theirs, _ = self.runner.run_step(_inputs(latents, timestep, conditions), self.graph_state, False)
        ours = _torch_step(self.model, latents, timestep, conditions, self.state)
        return ours, _difference(ours.numpy(), theirs)

    def commit(self, latents: Tensor, conditions: ChunkConditions) -> float:
        """Write the chunk into both states; returns their largest difference."""
        _, self.graph_state = self.runner.run_step(_inputs(latents, 0.0, conditions), self.graph_state, True)
        self.state = commit_chunk(self.model, latents, conditions, self.state)
        arrays = self.runner.to_arrays(self.graph_state)
        return max(_difference(t.numpy(), arrays[name]) for name, t in self.state.tensors.items())

    def decode(self, latents: Tensor) -> int:
        """Decode the chunk on both sides; returns the largest difference of a byte."""
        worst = 0
        for latent in latents.split(1, dim=2):
            pictures, *made = self.decoder(latent.contiguous(), *self.caches)
            self.caches = tuple(made)
            shown, self.graph_caches = self.runner.run_decoder(latent.contiguous().numpy(), self.graph_caches)
            gap = np.abs(pictures.numpy().astype(np.int16) - shown.astype(np.int16))
            worst = max(worst, int(gap.max()))
        return worst


def made_up_scene(spec: EngineSpec, num_chunks: int, seed: int = 0) -> Scene:
    """Return a smooth made-up camera path from a noise latent under a noise text, the same for the same seed."""
    config = ModelConfig.from_dict(spec.model)
    generator = torch.Generator().manual_seed(seed)
    grid = (config.latent_height, config.latent_width)
    frames = 1 + spec.temporal_stride * (config.first_chunk_size + num_chunks * config.chunk_size)
    time = np.arange(frames)
    angle = time * 0.02
    c2w = np.tile(np.eye(4), (frames, 1, 1))
    c2w[:, 0, 0] = c2w[:, 2, 2] = np.cos(angle)
    c2w[:, 0, 2], c2w[:, 2, 0] = np.sin(angle), -np.sin(angle)
    c2w[:, 0, 3], c2w[:, 2, 3] = time * 0.03, time * 0.08
    width, height = config.frame_width, config.frame_height
    return Scene(
        name="made up",
        first_latent=torch.randn(1, config.in_channels, 1, *grid, generator=generator),
        text=torch.randn(1, config.text_rows, config.text_dim, generator=generator),
        text_mask=torch.ones(1, config.text_rows),
        intrinsics=np.array([0.8 * width, 0.8 * width, width / 2, height / 2], np.float32),
        c2w=c2w,
    )


def _inputs(latents: Tensor, timestep: float, conditions: ChunkConditions) -> dict[str, Arrays]:
    return {
        "latents": latents.numpy(),
        "timesteps": np.full((1, latents.shape[2]), timestep, np.float32),
        "c2w": conditions.c2w_windows.numpy(),
        "intrinsics": conditions.intrinsics.numpy(),
        "start_frame": conditions.start_frame.numpy(),
        "text": conditions.text.numpy(),
        "text_mask": conditions.text_mask.numpy(),
    }


def _torch_step(
    model: WorldModel, latents: Tensor, timestep: float, conditions: ChunkConditions, state: RolloutState
) -> Tensor:
    timesteps = torch.full((1, latents.shape[2]), timestep)
    return model.step(
        latents,
        timesteps,
        conditions.c2w_windows,
        conditions.intrinsics,
        conditions.start_frame,
        conditions.text,
        conditions.text_mask,
        state,
    )[0]


def _difference(ours: Arrays, theirs: Arrays) -> float:
    """Largest absolute difference; infinite where one of them is not a number."""
    gap = np.abs(ours.astype(np.float64) - theirs)
    return float(gap.max()) if np.isfinite(gap).all() else float("inf")
