"""ONNX Runtime, on the CPU or on any of its other execution providers that is installed.

State lives in plain arrays: on a CPU, runs with bound buffers measured no faster than plain ones. They lie in the
runtime's arena, which gives nothing back as long as one of them is held, so a snapshot copies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine.backends.protocol import (
    FRAMES,
    INVERSE_DEPTH,
    LATENT,
    PICTURE,
    VELOCITY,
    Backend,
    GraphInput,
    GraphInterface,
    State,
    decoder_interface,
    depth_interface,
    encoder_interface,
    step_interface,
)
from engine.backends.providers import CPU_PROVIDER, PACKAGES, PROVIDERS
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import Bundle, TensorSpec
from engine.files.refiner import RefinerFolder

ELEMENT_TYPES = {
    "float": "float32",
    "float16": "float16",
    "int64": "int64",
    "int32": "int32",
    "uint8": "uint8",
}


PROVIDER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    # The same arithmetic as on the CPU: no TF32, no half precision where a device would choose it by itself.
    "cuda": {"use_tf32": "0"},
    "openvino": {"device_type": "CPU", "precision": "FP32"},
}


def installed_providers() -> list[str]:
    """Return which providers the installed ONNX Runtime has, by our names, in the order of trying."""
    built_in = onnxruntime.get_available_providers()
    return [name for name, theirs in PROVIDERS.items() if theirs in built_in]


class OnnxRuntimeBackend(Backend):
    """A bundle's graphs in ONNX Runtime.

    The step graphs and the decoder have thread pools of their own, so that they can run at the same time.
    Results repeat bit for bit on the same machine, on however many threads.
    """

    name = "onnxruntime"

    def __init__(
        self,
        bundle: Bundle,
        denoise_threads: int,
        decode_threads: int,
        mapped: bool = False,
        provider: str = CPU_PROVIDER,
    ) -> None:
        """Open every graph of the bundle; those of the steps, which take longest, on a thread that the first step waits for.

        Args:
            mapped: Leave weights in the file that holds them and free what a run needed, for models as large as the memory;
                the graphs run as they were written, several times slower.
            provider: One of PROVIDERS.

        Raises:
            BackendUnavailable: The provider is not installed, or does not start.
        """
        spec = bundle.spec
        self.device = f"{provider}, {denoise_threads} + {decode_threads} threads"
        if provider not in installed_providers():
            raise BackendUnavailable(
                f"the installed ONNX Runtime has no provider {provider}; {PACKAGES[provider]} has it"
            )
        self._step, self._decode = step_interface(spec), decoder_interface(spec)
        if not mapped:
            # Once, before two threads open graphs.
            _share_memory()
        opener = ThreadPoolExecutor(1, "flaneur-opener")
        self._steps = {
            int(size): opener.submit(_load, bundle.path / file, denoise_threads, self._step, mapped, provider)
            for size, file in spec.step_graphs.items()
        }
        opener.shutdown(wait=False)
        self._decoder = _load(bundle.decoder_graph, decode_threads, self._decode, mapped, provider)
        self._encoder = None
        if spec.encoder_graph is not None:
            self._encoder = _load(
                bundle.path / spec.encoder_graph, denoise_threads, encoder_interface(), mapped, provider
            )

    def new_state(self) -> State:
        return {tensor.name: tensor.zeros() for tensor in self._step.state}

    def new_caches(self) -> State:
        return {tensor.name: tensor.zeros() for tensor in self._decode.state}

    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        graph = self._steps[inputs["latents"].shape[2]].result()
        if not keep_state:
            return _run(graph, (VELOCITY,), {**inputs, **state})[0], state
        velocity, *values = _run(graph, self._step.outputs, {**inputs, **state})
        return velocity, self._step.named(values)

    def run_decoder(
        self, inputs: Mapping[str, NDArray[Any]], caches: State
    ) -> tuple[dict[str, NDArray[Any]], State]:
        values = _run(self._decoder, self._decode.outputs, {**inputs, **caches})
        count = len(self._decode.results)
        return dict(zip(self._decode.results, values, strict=False)), self._decode.named(values[count:])

    def run_encoder(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert self._encoder is not None, "the bundle has an encoder"
        return _run(self._encoder, (LATENT,), {FRAMES: frames})[0]

    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        return {name: array.copy() for name, array in state.items()}

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        return dict(arrays)

    def close(self) -> None:
        self._steps.clear()
        self._encoder = None
        del self._decoder


def tell_depth(bundle: Bundle, picture: NDArray[np.uint8], num_threads: int) -> NDArray[np.float32]:
    """Run a bundle's depth graph once: the inverse depth [H, W] of a picture [H, W, 3]."""
    assert bundle.spec.depth_graph is not None, "the bundle tells depth"
    path = bundle.path / bundle.spec.depth_graph
    graph = _load(path, num_threads, depth_interface(), False, CPU_PROVIDER)
    return _run(graph, (INVERSE_DEPTH,), {PICTURE: picture})[0]


class OnnxRuntimeGraphs:
    """The graphs of an exported refiner in ONNX Runtime's CPU provider; a `GraphRunner`."""

    def __init__(self, folder: RefinerFolder, num_threads: int) -> None:
        """Open every graph of the folder."""
        self._graphs = {name: _open(folder.path / name, num_threads) for name in folder.spec.graphs}

    def run(
        self, graph: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Run the graph in a file and return the outputs asked for."""
        return dict(zip(outputs, _run(self._graphs[graph], outputs, dict(inputs)), strict=True))

    def zeros(self, tensor: TensorSpec) -> NDArray[Any]:
        """Return an array of zeros."""
        return tensor.zeros()

    def close(self) -> None:
        """Let go of the graphs."""
        self._graphs.clear()


def _run(
    graph: onnxruntime.InferenceSession, outputs: Sequence[str], feed: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    try:
        # Every output of our graphs is a dense tensor, which the runtime's own annotation cannot know.
        return cast("list[NDArray[Any]]", graph.run(list(outputs), feed))
    except Exception as error:
        # A graph that does not fit its description, or no memory; the runtime raises bare Exceptions.
        raise SpecMismatch(
            f"ONNX Runtime cannot run a graph of the bundle ({_reason(error)}); export the bundle again"
        ) from error


def _load(
    path: Path, num_threads: int, interface: GraphInterface, mapped: bool, provider: str
) -> onnxruntime.InferenceSession:
    graph = _open(path, num_threads, mapped, provider)
    given = {node.name: GraphInput(_dtype(node.type), tuple(node.shape)) for node in graph.get_inputs()}
    interface.check(given, [node.name for node in graph.get_outputs()])
    return graph


@cache
def _share_memory() -> None:
    """Let all graphs of the process take memory from one pool that grows by what is asked for, and not by doubling."""
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    by_request = {"arena_extend_strategy": 1, "max_mem": 0}
    unset = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    onnxruntime.create_and_register_allocator(where, onnxruntime.OrtArenaCfg(by_request | unset))


def _open(
    path: Path, num_threads: int, mapped: bool = False, provider: str = CPU_PROVIDER
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Threads that wait by spinning take the cores from what else makes a chunk.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if mapped:
        # Folding, fusing and packing would copy every weight.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    else:
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    if provider == "dml":
        options.enable_mem_pattern = False
    chosen = PROVIDERS[provider]
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[(chosen, _provider_options(provider, num_threads))]
        )
    except Exception as error:
        if provider != CPU_PROVIDER:
            raise BackendUnavailable(
                f"ONNX Runtime's provider {provider} cannot load {path.name}; use --provider cpu, or export the bundle again"
            ) from error
        raise SpecMismatch(
            f"ONNX Runtime cannot load {path} ({_reason(error)}); export the bundle again with this version"
        ) from error
    # ONNX Runtime only warns where a provider cannot start, and runs everything on the CPU.
    if chosen not in session.get_providers():
        raise BackendUnavailable(
            f"ONNX Runtime's provider {provider} does not start here; install its libraries, or use --provider cpu"
        )
    return session


def _provider_options(provider: str, num_threads: int) -> dict[str, str]:
    options = dict(PROVIDER_OPTIONS.get(provider, {}))
    return options | {"num_of_threads": str(num_threads)} if provider == "openvino" else options


def _dtype(name: str) -> str | None:
    return ELEMENT_TYPES.get(name.removeprefix("tensor(").removesuffix(")"))


def _reason(error: Exception) -> str:
    """Return the beginning of what ONNX Runtime says: its Exceptions are of many classes, some with pages of text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
