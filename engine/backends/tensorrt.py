"""TensorRT on an NVIDIA GPU: TensorRT for RTX first, classic TensorRT where it alone is installed.

Built, not yet run on a GPU. What can be tested without one is in `engine.backends.device`.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.device import Buffer, DeviceBackend, Stream
from engine.backends.device_graphs import DeviceGraphs
from engine.backends.protocol import GraphInput
from engine.errors import BackendUnavailable, EngineError
from engine.files.atomic import replacing
from engine.files.bundle import Bundle
from engine.files.refiner import RefinerFolder
from engine.machine.hardware import TENSORRT_LIBRARIES, find_gpus, needed_bytes, refiner_bytes, why_not

CACHE_SUFFIX = ".runtime-cache"
"""Kernels that TensorRT for RTX finished on this GPU, beside the plan; made anew whenever it is missing."""
ELEMENT_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32", "UINT8": "uint8"}


def open_tensorrt(bundle: Bundle) -> DeviceBackend:
    """Open a bundle's plans on this machine's GPU.

    Raises:
        BackendUnavailable: One sentence, before anything is loaded: no driver, another GPU, too little memory, no TensorRT.
    """
    spec = bundle.spec
    gpu, device, open_plan = _opened(
        f"the bundle {spec.name}", spec.target, spec.builder, needed_bytes(bundle)
    )
    try:
        return DeviceBackend("tensorrt", gpu, bundle, device, open_plan)
    except BaseException:
        device.close()
        raise


def open_refiner_plans(folder: RefinerFolder) -> DeviceGraphs:
    """Open a refiner's plans on this machine's GPU.

    Raises:
        BackendUnavailable: As `open_tensorrt`.
    """
    spec = folder.spec
    _, device, open_plan = _opened(
        f"the refiner {folder.path}", spec.target, spec.builder, refiner_bytes(folder)
    )
    try:
        return DeviceGraphs(folder, device, open_plan)
    except BaseException:
        device.close()
        raise


def _opened(
    what: str, target: str, builder: str, needed: int
) -> tuple[str, CudaDevice, Callable[[Path], TensorRtPlan]]:
    """Return a GPU's name, the GPU, and what opens a plan on it."""
    gpus = find_gpus()
    if reason := why_not(what, target, needed, gpus):
        raise BackendUnavailable(reason)
    assert gpus, "why_not speaks of missing GPUs"
    ordinal = next(i for i, gpu in enumerate(gpus) if gpu.capability == target)
    trt = _import_runtime(builder)
    return gpus[ordinal].name, CudaDevice(ordinal), lambda path: TensorRtPlan(trt, path)


def _import_runtime(builder: str) -> Any:
    """Return the library that built the plans; the plans of one cannot be read by the other."""
    made_with = builder.split(" ")[0]
    for name in sorted(TENSORRT_LIBRARIES, key=lambda name: name != made_with):
        try:
            trt = importlib.import_module(name)
            importlib.import_module("cuda.bindings.runtime")
        except ImportError:
            continue
        if name != made_with:
            break
        return trt
    raise BackendUnavailable(
        f"the bundle was built with {builder}, which is not installed; run pip install -e '.[rtx]' in a clone"
    )


class CudaDevice:
    """Memory and streams of one GPU, through NVIDIA's runtime."""

    def __init__(self, ordinal: int) -> None:
        self._cuda = importlib.import_module("cuda.bindings.runtime")
        self._pinned: list[int] = []
        self._streams: list[Stream] = []
        self._ordinal = ordinal
        self._thread = threading.local()

    def allocate(self, num_bytes: int) -> Buffer:
        return int(self._call("cudaMalloc", num_bytes))

    def free(self, buffer: Buffer) -> None:
        self._call("cudaFree", buffer)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call("cudaMallocHost", count))
        self._pinned.append(address)
        memory: Any = (ctypes.c_uint8 * count).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    def stream(self) -> Stream:
        stream = self._call("cudaStreamCreate")
        self._streams.append(stream)
        return stream

    def upload(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        self._copy(buffer, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice", stream)

    def download(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        self._copy(array.ctypes.data, buffer, array.nbytes, "cudaMemcpyDeviceToHost", stream)

    def wait(self, stream: Stream) -> None:
        self._call("cudaStreamSynchronize", stream)

    def close(self) -> None:
        for stream in self._streams:
            self._call("cudaStreamDestroy", stream)
        for address in self._pinned:
            self._call("cudaFreeHost", address)
        self._streams.clear()
        self._pinned.clear()

    def _copy(self, target: int, source: int, num_bytes: int, kind: str, stream: Stream) -> None:
        kinds = self._cuda.cudaMemcpyKind
        self._call("cudaMemcpyAsync", target, source, num_bytes, getattr(kinds, kind), stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        # The current device is a property of the thread, and two of them work here.
        if not hasattr(self._thread, "chosen"):
            self._thread.chosen = True
            self._call("cudaSetDevice", self._ordinal)
        status, *values = getattr(self._cuda, function)(*arguments)
        if int(status) != 0:
            raise BackendUnavailable(
                f"the GPU failed ({function}: {status.name}); close other programs on it, or update its driver"
            )
        return values[0] if values else None


class TensorRtPlan:
    """One plan with its own execution context, from which CUDA graphs are captured where the library offers it."""

    def __init__(self, trt: Any, path: Path) -> None:
        self._trt = trt
        self._cache_file = path.with_name(path.name + CACHE_SUFFIX)
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime: Any = trt.Runtime(self._logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BackendUnavailable(
                f"this GPU or its driver refuses {path.name}; update the driver, or build the engine again here"
            )
        self._cache: Any = None
        self._context: Any = self._open_context()
        modes = {trt.TensorIOMode.INPUT: {}, trt.TensorIOMode.OUTPUT: {}}
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            dtype = ELEMENT_TYPES.get(self._engine.get_tensor_dtype(name).name)
            shape = tuple(self._engine.get_tensor_shape(name))
            modes[self._engine.get_tensor_mode(name)][name] = GraphInput(dtype, shape)
        self.inputs: Mapping[str, GraphInput] = modes[trt.TensorIOMode.INPUT]
        self.outputs: Mapping[str, GraphInput] = modes[trt.TensorIOMode.OUTPUT]

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        self._set_shapes(shapes)
        return {name: tuple(self._context.get_tensor_shape(name)) for name in self.outputs}

    def run(
        self, shapes: Mapping[str, tuple[int, ...]], buffers: Mapping[str, Buffer], stream: Stream
    ) -> None:
        self._set_shapes(shapes)
        for name in (*self.inputs, *self.outputs):
            self._context.set_tensor_address(name, buffers[name])
        if not self._context.execute_async_v3(int(stream)):
            raise EngineError("the GPU refused to run a plan of the bundle; build the engine again")

    def close(self) -> None:
        """Keep the kernels that were finished on this GPU, then let go of everything."""
        if self._cache is not None:
            self._save_cache()
        self._cache = self._context = self._engine = self._runtime = None

    def _set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if -1 in self.inputs[name].shape:
                self._context.set_input_shape(name, shape)

    def _open_context(self) -> Any:
        """Return an execution context, with a runtime cache and graph capture where the library has them."""
        if not hasattr(self._trt, "IRuntimeCache"):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        self._cache = config.create_runtime_cache()
        if self._cache_file.is_file():
            self._cache.deserialize(self._cache_file.read_bytes())
        config.set_runtime_cache(self._cache)
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def _save_cache(self) -> None:
        try:
            with replacing(self._cache_file) as file:
                file.write_bytes(memoryview(self._cache.serialize()))
        except ValueError:
            # A bundle on a read-only disk: the next start compiles again.
            return
