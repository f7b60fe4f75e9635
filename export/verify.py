"""A bundle held against the model it was made from: same inputs, carried state, largest difference.

PyTorch goes first and leaves what it found on disk, so that a model and its graphs are never in memory together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.protocol import FRAMES, INVERSE_DEPTH
from engine.backends.providers import MAX_DEPTH_ERROR, MAX_FRAME_ERROR, MAX_VELOCITY_ERROR
from engine.files.bundle import GUIDE_INPUTS, Bundle, EngineSpec
from engine.machine.hardware import num_cores
from export.folders import ending_on_sigterm
from export.graph import is_large
from export.progress import Progress, Stage, unseen
from export.scenes import Scene, graph_inputs
from export.sources import open_source
from model.config import ModelConfig
from model.rollout import RolloutState
from model.sampler import check_timesteps, euler_step
from model.world_model import WorldModel

Arrays = NDArray[Any]
_GIVEN = "given."
"""Begins the names of what a decoder gave, in a file with what it was shown."""


class GraphRunner(Protocol):
    """The part of an engine backend that verification needs."""

    def new_state(self) -> Mapping[str, Any]: ...
    def new_caches(self) -> Mapping[str, Any]: ...
    def run_step(
        self, inputs: Mapping[str, Arrays], state: Mapping[str, Any], keep_state: bool
    ) -> tuple[Arrays, Mapping[str, Any]]: ...
    def run_decoder(
        self, inputs: Mapping[str, Arrays], caches: Mapping[str, Any]
    ) -> tuple[dict[str, Arrays], Mapping[str, Any]]: ...
    def to_arrays(self, state: Mapping[str, Any]) -> dict[str, Arrays]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class ChunkErrors:
    """Largest absolute differences after one chunk."""

    chunk_index: int
    velocity: float
    """Over all denoising passes and the commit."""
    state: float
    """Over all state tensors after the commit."""
    frames: int
    """Over all bytes of the pictures of its first latent frame."""
    inverse_depth: float = 0.0
    """Over all pixels of those pictures, 1/m; 0 where the decoder gives none."""


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

    @property
    def inverse_depth(self) -> float:
        return max(chunk.inverse_depth for chunk in self.chunks)

    @property
    def passed(self) -> bool:
        exact = self.velocity <= MAX_VELOCITY_ERROR and self.inverse_depth <= MAX_DEPTH_ERROR
        return exact and self.frames <= MAX_FRAME_ERROR

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        rows = [vars(chunk) for chunk in self.chunks]
        names = ("velocity", "state", "frames", "inverse_depth")
        return {name: getattr(self, name) for name in names} | {"chunks": rows}


def verify_source(
    bundle: Bundle, source: str, random_weights: bool, num_chunks: int, stage: Stage
) -> VerifyReport:
    """Hold a bundle's graphs against the model that `open_source` opens by a name or path.

    Raises:
        ValueError: The bundle holds plans, or was made from another model.
    """
    spec = bundle.spec
    if spec.is_plan:
        raise ValueError(
            f"this bundle was built for {spec.target}; verify the bundle it was built from, or use --against fp32"
        )
    large = is_large(bundle)
    threads = num_cores() if large else 1

    def open_model() -> tuple[WorldModel, nn.Module]:
        model, decoder = open_source(source, random_weights, (spec.frame_width, spec.frame_height))
        check_sizes(spec, model.config)
        return model, decoder

    def open_runner() -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(bundle, threads, threads, mapped=large)

    return verify_bundle(open_model, open_runner, spec, num_chunks, stage)


def verify_bundle(
    open_model: Callable[[], tuple[WorldModel, nn.Module]],
    open_runner: Callable[[], GraphRunner],
    spec: EngineSpec,
    num_chunks: int = 4,
    stage: Stage = unseen,
) -> VerifyReport:
    """Run PyTorch and then the graphs on the same made-up walk, each carrying its own state.

    Latents of both sides are PyTorch's, so that the errors are those of one pass and not of a whole rollout. One latent
    frame of each chunk is decoded.

    Args:
        open_model: Gives the model and the streaming decoder the bundle was made with, float32, in evaluation mode.
        open_runner: Gives what runs the graphs; it is closed in the end.
        num_chunks: Chunks generated after the conditioning one; cache faults hide in later chunks.

    Raises:
        ValueError: There is no room for PyTorch's results.
    """
    with tempfile.TemporaryDirectory(prefix="flaneur-verify.") as folder, ending_on_sigterm():
        passes = (num_chunks + 1) * (len(spec.timesteps) + 1)
        # Nothing here holds the model while the graphs run.
        record_walk(*open_model(), spec, num_chunks, Path(folder), stage("PyTorch", passes))
        runner = open_runner()
        try:
            return replay_walk(runner, spec, Path(folder), stage("graphs", passes))
        finally:
            runner.close()


@torch.no_grad()
def record_walk(
    model: WorldModel,
    decoder: nn.Module,
    spec: EngineSpec,
    num_chunks: int,
    folder: Path,
    progress: Progress,
) -> None:
    """Generate a made-up walk and write the inputs and results of every pass to `folder`."""
    config = model.config
    scene, generator = made_up_scene(spec, num_chunks), torch.Generator().manual_seed(1)
    state = RolloutState.zeros(config)
    caches = tuple(torch.from_numpy(tensor.zeros()) for tensor in spec.decoder_caches)
    start = 0
    for index in range(num_chunks + 1):
        frames = config.first_chunk_size if index == 0 else config.chunk_size
        grid = (frames, config.latent_height, config.latent_width)
        latents = torch.randn(1, config.in_channels, *grid, generator=generator)
        conditioning = scene.conditioning(config, start, frames)
        if config.memory_channels:
            memory = torch.randn(1, config.memory_channels, *grid, generator=generator)
            conditioning = replace(conditioning, memory=memory)
        chunk = _RecordedChunk(folder, index, len(spec.timesteps))
        for number, (step, following) in enumerate(pairwise([*spec.timesteps, 0.0])):
            timesteps = torch.full((1, frames), step)
            velocity, _ = model.step(latents, timesteps, conditioning, state)
            chunk.write_pass(number, graph_inputs(latents, timesteps, conditioning), velocity)
            here, there = torch.full((1, frames), step / 1000), torch.full((1, frames), following / 1000)
            latents = euler_step(latents, velocity, here, there)
            progress(chunk.num_passes * index + number + 1)
        clean = torch.zeros(1, frames)
        velocity, state = model.step(latents, clean, conditioning, state)
        chunk.write_pass(len(spec.timesteps), graph_inputs(latents, clean, conditioning), velocity)
        chunk.write_state(state)
        shown = latents[:, :, :1].contiguous()
        guide = made_up_guide(spec, generator) if config.memory_channels else {}
        pictures, *made = decoder(shown, *guide.values(), *caches)
        # A decoder that is shown a guide gives inverse depth beside the pictures.
        depth, *made = made if guide else (None, *made)
        caches = tuple(made)
        chunk.write_pictures({"latent": shown, **guide}, pictures, depth)
        progress(chunk.num_passes * (index + 1))
        start += frames


def replay_walk(runner: GraphRunner, spec: EngineSpec, folder: Path, progress: Progress) -> VerifyReport:
    """Run the graphs on what `record_walk` left in `folder` and compare."""
    state, caches = runner.new_state(), runner.new_caches()
    found: list[ChunkErrors] = []
    while (chunk := _RecordedChunk(folder, len(found), len(spec.timesteps))).exists:
        gaps = []
        for number, (inputs, expected) in enumerate(chunk.passes(), 1):
            commits = number == chunk.num_passes
            velocity, state = runner.run_step(inputs, state, commits)
            gaps.append(_difference(expected, velocity))
            progress(chunk.num_passes * len(found) + number)
        arrays = runner.to_arrays(state)
        state_gap = max(_difference(values, arrays[name]) for name, values in chunk.state())
        shown, expected = chunk.pictures()
        results, caches = runner.run_decoder(shown, caches)
        pictures_gap = int(_difference(expected[FRAMES], results[FRAMES]))
        depth_gap = 0.0
        if INVERSE_DEPTH in expected:
            depth_gap = _difference(expected[INVERSE_DEPTH], results[INVERSE_DEPTH])
        found.append(ChunkErrors(len(found), max(gaps), state_gap, pictures_gap, depth_gap))
    return VerifyReport(tuple(found))


def rescheduled(spec: EngineSpec, timesteps: Sequence[float]) -> EngineSpec:
    """Return a description with another step schedule, for shorter checks."""
    return spec.model_copy(update={"timesteps": tuple(check_timesteps(timesteps))})


def check_sizes(spec: EngineSpec, config: ModelConfig) -> None:
    """Refuse to hold a bundle against a model of other sizes."""
    if ModelConfig.from_dict(spec.model) != config:
        raise ValueError(
            f"the bundle holds {spec.name}, and its sizes are not those of the model {config.name}; "
            "name the one it was made from with --model"
        )


class _RecordedChunk:
    """What one chunk of PyTorch's walk was made from and came to, in files: a file for each pass, the state, the pictures."""

    def __init__(self, folder: Path, index: int, num_steps: int) -> None:
        self.num_passes = num_steps + 1
        self._files = [folder / f"{index}.pass{number}.npz" for number in range(self.num_passes)]
        self._state, self._pictures = folder / f"{index}.state.npz", folder / f"{index}.pictures.npz"

    @property
    def exists(self) -> bool:
        return self._pictures.is_file()

    def write_pass(self, number: int, inputs: Mapping[str, Arrays], velocity: Tensor) -> None:
        self._save(self._files[number], {**inputs, "velocity": velocity.numpy()})

    def write_state(self, state: RolloutState) -> None:
        self._save(self._state, {name: tensor.numpy() for name, tensor in state.tensors.items()})

    def write_pictures(self, shown: Mapping[str, Tensor], pictures: Tensor, depth: Tensor | None) -> None:
        """Write what the decoder was shown and what it gave, with inverse depth where it gives that."""
        arrays = {name: tensor.numpy() for name, tensor in shown.items()}
        arrays |= {_GIVEN + FRAMES: pictures.numpy()}
        arrays |= {} if depth is None else {_GIVEN + INVERSE_DEPTH: depth.numpy()}
        self._save(self._pictures, arrays)

    def _save(self, file: Path, arrays: dict[str, Any]) -> None:
        try:
            np.savez(file, **arrays)
        except OSError as error:
            raise ValueError(
                f"cannot write {file}: {error.strerror or error}; free some space, or name a larger folder in TMPDIR"
            ) from error

    def passes(self) -> Iterator[tuple[dict[str, Arrays], Arrays]]:
        """Yield the inputs and the velocity of each pass, the commit last."""
        for file in self._files:
            with np.load(file) as arrays:
                inputs = dict(arrays)
            yield inputs, inputs.pop("velocity")

    def state(self) -> Iterator[tuple[str, Arrays]]:
        """Yield the tensors of the state after the commit, one in memory at a time."""
        with np.load(self._state) as arrays:
            for name in arrays.files:
                yield name, arrays[name]

    def pictures(self) -> tuple[dict[str, Arrays], dict[str, Arrays]]:
        """Return the decoder's inputs without the caches, and what it gave."""
        with np.load(self._pictures) as file:
            arrays = dict(file)
        given = {
            name.removeprefix(_GIVEN): arrays.pop(name) for name in list(arrays) if name.startswith(_GIVEN)
        }
        return arrays, given


def made_up_guide(spec: EngineSpec, generator: torch.Generator) -> dict[str, Tensor]:
    """Return a made-up rendering of a memory for the frames of one latent frame, half of it unknown."""
    size = (spec.temporal_stride, spec.frame_height, spec.frame_width)
    coverage = (torch.rand(size, generator=generator) < 0.5).float()
    color = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
    return dict(zip(GUIDE_INPUTS, (color, coverage, torch.rand(size, generator=generator)), strict=True))


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
        text=torch.randn(1, config.text_length, config.text_dim, generator=generator),
        text_mask=torch.ones(1, config.text_length),
        intrinsics=np.array([0.8 * width, 0.8 * width, width / 2, height / 2], np.float32),
        c2w=c2w,
    )


def _difference(ours: Arrays, theirs: Arrays) -> float:
    """Largest absolute difference; infinite where one of them is not a number."""
    gap = np.abs(ours.astype(np.float64) - theirs)
    return float(gap.max()) if np.isfinite(gap).all() else float("inf")
