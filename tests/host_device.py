"""A device whose memory is the host's, and plans that ONNX Runtime runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine.backends.onnxruntime import ELEMENT_TYPES
from engine.backends.protocol import GraphInput

Array = NDArray[Any]


class HostDevice:
    """Host memory that counts what it gave and behaves badly on reuse: freed and fresh buffers hold rubbish."""

    def __init__(self) -> None:
        self.live: dict[int, Array] = {}
        self.waiting: list[int] = []
        self.num_streams = 0
        self.closed = False

    def allocate(self, num_bytes: int) -> int:
        memory = np.full(num_bytes, 0xFF, np.uint8)
        self.live[memory.ctypes.data] = memory
        return memory.ctypes.data

    def free(self, buffer: int) -> None:
        del self.live[buffer]

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        return np.zeros(shape, dtype)

    def stream(self) -> int:
        self.num_streams += 1
        return self.num_streams

    def upload(self, array: Array, buffer: int, stream: int) -> None:
        assert array.flags.c_contiguous
        self.live[buffer][: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)

    def download(self, buffer: int, array: Array, stream: int) -> None:
        array.view(np.uint8).reshape(-1)[:] = self.live[buffer][: array.nbytes]

    def wait(self, stream: int) -> None:
        assert 0 < stream <= self.num_streams

    def close(self) -> None:
        self.closed = True


class HostPlan:
    """A graph in ONNX Runtime that reads and writes the buffers it is given."""

    def __init__(self, device: HostDevice, path: Path) -> None:
        self._graph = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._device = device
        self._axes = {
            node.name: node.shape for node in (*self._graph.get_inputs(), *self._graph.get_outputs())
        }
        self.inputs, self.outputs = (
            {
                node.name: GraphInput(
                    ELEMENT_TYPES[node.type.removeprefix("tensor(").removesuffix(")")],
                    tuple(size if isinstance(size, int) else -1 for size in node.shape),
                )
                for node in nodes
            }
            for nodes in (self._graph.get_inputs(), self._graph.get_outputs())
        )

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        sizes = {
            axis: size
            for name, shape in shapes.items()
            for axis, size in zip(self._axes[name], shape, strict=True)
            if isinstance(axis, str)
        }
        return {
            name: tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self._axes[name])
            for name in self.outputs
        }

    def run(self, shapes: Mapping[str, tuple[int, ...]], buffers: Mapping[str, int], stream: int) -> None:
        feed = {}
        for name, tensor in self.inputs.items():
            fixed = tuple(size for size in tensor.shape if isinstance(size, int))
            shape = shapes.get(name, fixed)
            memory = self._device.live[buffers[name]]
            count = int(np.prod(shape)) * np.dtype(tensor.dtype).itemsize
            feed[name] = np.frombuffer(memory[:count].tobytes(), tensor.dtype).reshape(shape)
        for name, value in zip(self.outputs, self._graph.run(list(self.outputs), feed), strict=True):
            assert isinstance(value, np.ndarray)
            self._device.upload(np.ascontiguousarray(value), buffers[name], stream)

    def close(self) -> None:
        del self._graph
