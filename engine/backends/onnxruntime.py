"""ONNX Runtime on the CPU.

State lives in plain arrays: on a CPU, runs with bound buffers measured no faster than plain ones, and arrays
that are never written twice make a snapshot free.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import onnxruntime
from numpy.typing import NDArray

from engine.backends.base import Backend, State
from engine.bundle import OUT, STEP_INPUTS, Bundle, TensorSpec
from engine.errors import SpecMismatch

ELEMENT_TYPES = {
    "float": "float32",
    "float16": "float16",
    "int64": "int64",
    "int32": "int32",
    "uint8": "uint8",
}


class OnnxRuntimeBackend(Backend):
    """A bundle's graphs in ONNX Runtime's CPU provider.

    The step graphs and the decoder have thread pools of their own, so that they can run at the same time.
    Results repeat bit for bit for the same number of threads on the same machine.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, denoise_threads: int, decode_threads: int) -> None:
        spec = bundle.spec
        self.device = f"cpu, {denoise_threads} + {decode_threads} threads"
        self._state = spec.state
        self._caches = spec.decoder_caches
        self._steps = {
            int(size): _load(bundle.path / file, denoise_threads) for size, file in spec.step_graphs.items()
        }
        self._decoder = _load(bundle.decoder_graph, decode_threads)
        for graph in self._steps.values():
            _check_interface(graph, STEP_INPUTS, "velocity", spec.state)
        _check_interface(self._decoder, ("latent",), "frames", spec.decoder_caches)
        self._step_outputs = ["velocity", *(tensor.name + OUT for tensor in spec.state)]
        self._decoder_outputs = ["frames", *(tensor.name + OUT for tensor in spec.decoder_caches)]

    def new_state(self) -> State:
        return {tensor.name: tensor.zeros() for tensor in self._state}

    def new_caches(self) -> State:
        return {tensor.name: tensor.zeros() for tensor in self._caches}

    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        graph = self._steps[inputs["latents"].shape[2]]
        if not keep_state:
            return _run(graph, ["velocity"], {**inputs, **state})[0], state
        velocity, *values = _run(graph, self._step_outputs, {**inputs, **state})
        return velocity, _named(self._state, values)

    def run_decoder(self, latent: NDArray[Any], caches: State) -> tuple[NDArray[Any], State]:
        frames, *values = _run(self._decoder, self._decoder_outputs, {"latent": latent, **caches})
        return frames, _named(self._caches, values)

    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        return dict(state)

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        return dict(arrays)

    def close(self) -> None:
        self._steps.clear()
        del self._decoder


def _run(
    graph: onnxruntime.InferenceSession, outputs: list[str], feed: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    try:
        # Every output of our graphs is a dense tensor, which the runtime's own annotation cannot know.
        return cast("list[NDArray[Any]]", graph.run(outputs, feed))
    except Exception as error:
        # A graph that does not fit its description, or no memory; the runtime raises bare Exceptions.
        raise SpecMismatch(
            f"ONNX Runtime cannot run a graph of the bundle ({_reason(error)}); export the bundle again"
        ) from error


def _named(specs: tuple[TensorSpec, ...], values: list[NDArray[Any]]) -> State:
    return {spec.name: value for spec, value in zip(specs, values, strict=True)}


def _load(path: Path, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SpecMismatch(
            f"ONNX Runtime cannot load {path} ({_reason(error)}); export the bundle again with this version"
        ) from error


def _reason(error: Exception) -> str:
    """Return the beginning of what ONNX Runtime says: its Exceptions are of many classes, some with pages of text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_interface(
    graph: onnxruntime.InferenceSession, inputs: tuple[str, ...], output: str, state: tuple[TensorSpec, ...]
) -> None:
    """Refuse a graph whose inputs and outputs are not those its bundle promises."""
    given = {node.name: node for node in graph.get_inputs()}
    made = {node.name for node in graph.get_outputs()}
    expected_inputs = {*inputs, *(tensor.name for tensor in state)}
    expected_outputs = {output, *(tensor.name + OUT for tensor in state)}
    for kind, expected, actual in (
        ("input", expected_inputs, set(given)),
        ("output", expected_outputs, made),
    ):
        if odd := sorted(expected ^ actual):
            what = "lacks" if odd[0] in expected else "has the unexpected"
            raise SpecMismatch(f"a graph of the bundle {what} {kind} {odd[0]}; export the bundle again")
    for tensor in state:
        node = given[tensor.name]
        dtype = ELEMENT_TYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))
        if dtype != tensor.dtype or tuple(node.shape) != tensor.shape:
            raise SpecMismatch(
                f"the bundle promises {tensor.name} as {tensor.dtype} {list(tensor.shape)}, "
                f"its graph wants {dtype} {node.shape}; export the bundle again"
            )
