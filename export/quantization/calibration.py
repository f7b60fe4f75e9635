"""Largest magnitudes that reach the layers of a bundle, measured on chunks that it generates itself.

Taps are one more state tensor of the step graph, so that whatever runs the graph carries them along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from onnx import TensorProto
from torch import Tensor

from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.files.bundle import OUT, Bundle, EngineSpec, TensorSpec, hash_file, open_bundle
from engine.machine.hardware import num_cores
from engine.session.opening import default_denoise_threads
from evaluation.worlds import fitting_worlds
from export.folders import link_or_copy, partial_folder, write_spec
from export.graph import is_large, layer_of
from export.progress import Progress, Stage
from export.quantization.layers import Low, precision_of
from export.quantization.nvfp4 import BLOCK, hadamard_matrix
from export.scenes import Scene, graph_inputs, held_out_scenes, roll
from export.sources import RANDOM_WEIGHTS
from export.verify import GraphRunner, made_up_scene
from model.conditioning import Conditioning
from model.config import ModelConfig
from model.rollout import RolloutState, state_shapes
from model.world_model import WorldModel

TAPS = "activation_largest"
NOMINAL_LARGEST = 8.0
"""Magnitude said to reach a layer of random weights; it changes no size and no speed."""


OpenRunner = Callable[[Bundle], GraphRunner]
NUM_CHUNKS = 20
"""Chunks that are generated in each world."""


@dataclass(frozen=True)
class Walks:
    """What is generated to calibrate on."""

    scenes: Sequence[Scene]
    num_chunks: int
    """Of every scene, after the conditioning one."""
    timesteps: Sequence[float]

    @property
    def described(self) -> str:
        """What was generated, in words."""
        return f"measured, chunks in each world: {self.num_chunks}, worlds: {', '.join(s.name for s in self.scenes)}"


@dataclass(frozen=True)
class Calibration:
    """Largest magnitudes that reach the layers of 8 or 4 bits, from which their activations' scales are made."""

    largest: Mapping[str, float]
    """By layer; none in bf16."""
    origin: str
    """Where they come from, in a few words for the bundle's description."""


def nominal_calibration(bundle: Bundle, low: Low) -> Calibration:
    """Take one magnitude for every layer; for random weights, in which there is nothing to measure."""
    layers = low_layers(bundle, low)
    origin = f"nominal, {NOMINAL_LARGEST:g} at most in every layer: random weights were not calibrated"
    return Calibration(dict.fromkeys(layers, NOMINAL_LARGEST), origin if layers else "")


def calibrate_bundle(
    bundle: Bundle,
    low: Low,
    hadamard: bool,
    destination: Path,
    stage: Stage,
    notice: Callable[[str], None],
) -> Calibration:
    """Measure activations on the worlds that fit a bundle, or on a made-up walk where there is none.

    Args:
        notice: Told, in a sentence, what is calibrated on where that is no world.
    """
    if bundle.spec.notes == RANDOM_WEIGHTS:
        notice("weights from a seed: there is nothing to measure, activations get a nominal scale")
        return nominal_calibration(bundle, low)
    if low == "bf16":
        return Calibration({}, "")
    walks = calibration_walks(bundle, notice)
    advance = stage("calibrating", len(walks.scenes) * (walks.num_chunks + 1))
    large = is_large(bundle)
    threads = num_cores() if large else default_denoise_threads()

    def open_runner(tapped: Bundle) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(tapped, threads, 1, mapped=large)

    return calibrate(bundle, low, hadamard, walks, open_runner, destination, advance)


def calibration_walks(bundle: Bundle, notice: Callable[[str], None]) -> Walks:
    """Choose what to calibrate on: held-out walks through the worlds of a model and frame size, else a made-up walk."""
    spec = bundle.spec
    pixels = (spec.frame_height, spec.frame_width)
    if any(world.first_frame.shape[:2] == pixels for world in fitting_worlds(spec.weights_sha256)):
        encode = None
        if spec.memory_channels:
            runner = OnnxRuntimeBackend(bundle, default_denoise_threads(), 1)
            encode = lambda frames: torch.from_numpy(runner.run_encoder(frames))  # noqa: E731
        scenes = held_out_scenes(
            spec.weights_sha256, 1 + NUM_CHUNKS * spec.frames_per_chunk, spec.fps, encode
        )
        return Walks(scenes, NUM_CHUNKS, spec.timesteps)
    notice("no world here was made for this model; calibrating on a made-up walk")
    return Walks([made_up_scene(spec, 1)], 1, spec.timesteps)


def calibrate(
    bundle: Bundle,
    low: Low,
    hadamard: bool,
    walks: Walks,
    open_runner: OpenRunner,
    destination: Path,
    progress: Progress,
) -> Calibration:
    """Generate chunks of every scene and measure what reaches each layer of precision `low`.

    Args:
        hadamard: Measure after rotation, as the layers will see it.
        destination: Beside it lies, for that time, a copy of the bundle with taps.
    """
    layers = low_layers(bundle, low)
    if not layers:
        return Calibration({}, "")
    with partial_folder(destination) as folder:
        tapped = _tapped_bundle(bundle, folder, layers, hadamard)
        runner = open_runner(tapped)
        try:
            model = GraphModel(bundle.spec, runner)
            for index, scene in enumerate(walks.scenes):
                chunks = roll(cast(WorldModel, model), scene, walks.timesteps, walks.num_chunks, seed=0)
                for done, _ in enumerate(chunks):
                    progress(index * (walks.num_chunks + 1) + done + 1)
        finally:
            runner.close()
    return Calibration(dict(zip(layers, model.largest.tolist(), strict=True)), walks.described)


class GraphModel:
    """A bundle's step graph in the place of a PyTorch model, for rollouts; it keeps what the taps saw."""

    def __init__(self, spec: EngineSpec, runner: GraphRunner) -> None:
        self.config = ModelConfig.from_dict(spec.model)
        self.largest = np.zeros(0, np.float32)
        self._runner = runner
        self._taps: dict[str, np.ndarray] = {}

    def step(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        state: RolloutState,
        keep_state: bool = True,
    ) -> tuple[Tensor, RolloutState]:
        """Run the graph as `WorldModel.step` would run; a graph gives its state whether it is kept or not."""
        inputs = graph_inputs(latents, timesteps, conditioning)
        carried = {name: tensor.numpy() for name, tensor in state.tensors.items()}
        if not self._taps:
            self._taps = {TAPS: self._runner.to_arrays(self._runner.new_state())[TAPS]}
        velocity, after = self._runner.run_step(inputs, carried | self._taps, True)
        arrays = self._runner.to_arrays(after)
        self.largest = arrays[TAPS]
        self._taps = {TAPS: self.largest}
        names = state_shapes(self.config)
        return torch.from_numpy(velocity), RolloutState(
            {name: torch.from_numpy(arrays[name]) for name in names}
        )


def low_layers(bundle: Bundle, low: Low) -> list[str]:
    """Return the layers of a bundle's step graph that bear 8 or 4 bits."""
    graph = onnx.load(bundle.step_graph(bundle.spec.chunk_size), load_external_data=False).graph
    products = [layer_of(node) for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    return [name for name in products if precision_of(name, low) in ("nvfp4", "fp8")]


def _tapped_bundle(bundle: Bundle, folder: Path, layers: Sequence[str], hadamard: bool) -> Bundle:
    spec = bundle.spec
    steps = set(spec.step_graphs.values())
    for name in spec.files.keys() - steps:
        link_or_copy(bundle.path / name, folder)
    for name in steps:
        graph_file = onnx.load(bundle.path / name, load_external_data=False)
        _add_taps(graph_file.graph, layers, hadamard)
        onnx.save(graph_file, folder / name)
    taps = TensorSpec(name=TAPS, shape=(len(layers),), dtype="float32")
    hashes = spec.files | {name: hash_file(folder / name) for name in steps}
    write_spec(folder, spec.model_copy(update={"state": (*spec.state, taps), "files": hashes}))
    return open_bundle(folder, verify=False)


def _add_taps(graph: onnx.GraphProto, layers: Sequence[str], hadamard: bool) -> None:
    """Give a step graph one more state tensor: the largest input of each layer so far."""
    watched = {
        layer_of(node): node.input[0]
        for node in graph.node
        if layer_of(node) in layers and node.op_type in ("MatMul", "Gemm")
    }
    make = onnx.helper.make_node
    constants = {"tap_axis": np.array([0], np.int64), "tap_blocks": np.array([-1, BLOCK], np.int64)}
    if hadamard:
        constants["tap_rotation"] = hadamard_matrix().numpy()
    for index, layer in enumerate(layers):
        source = watched[layer]
        if hadamard:
            graph.node.append(make("Reshape", [source, "tap_blocks"], [f"tap_{index}_blocks"]))
            graph.node.append(
                make("MatMul", [f"tap_{index}_blocks", "tap_rotation"], [f"tap_{index}_turned"])
            )
            source = f"tap_{index}_turned"
        graph.node.append(make("Abs", [source], [f"tap_{index}_abs"]))
        graph.node.append(make("ReduceMax", [f"tap_{index}_abs"], [f"tap_{index}_max"], keepdims=0))
        graph.node.append(make("Unsqueeze", [f"tap_{index}_max", "tap_axis"], [f"tap_{index}"]))
    graph.node.append(make("Concat", [f"tap_{i}" for i in range(len(layers))], ["tap_all"], axis=0))
    graph.node.append(make("Max", ["tap_all", TAPS], [TAPS + OUT]))
    for name, values in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    info = onnx.helper.make_tensor_value_info
    graph.input.append(info(TAPS, TensorProto.FLOAT, [len(layers)]))
    graph.output.append(info(TAPS + OUT, TensorProto.FLOAT, [len(layers)]))
