"""A refiner's plans on a device: what goes from graph to graph stays in the device's memory."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.device import Buffer, Device, Plan, Stream, check_input
from engine.files.bundle import TensorSpec
from engine.files.refiner import RefinerFolder


class SizedPlan(Plan, Protocol):
    """One compiled graph whose outputs may follow its inputs in size."""

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the outputs' shapes for inputs of these shapes."""
        ...


class DeviceTensor:
    """A tensor in a device's memory; whoever holds it keeps it from being written. `np.asarray` fetches its values."""

    def __init__(
        self,
        buffer: Buffer,
        shape: tuple[int, ...],
        dtype: str,
        fetch: Callable[[DeviceTensor], NDArray[Any]],
    ) -> None:
        self.buffer, self.shape, self.dtype, self._fetch = buffer, shape, dtype, fetch

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("values on a device cannot be read without a copy")
        return self._fetch(self).astype(dtype or self.dtype, copy=False)


class DeviceGraphs:
    """The plans of a refiner on a device, on a stream of their own; a `GraphRunner`."""

    def __init__(self, folder: RefinerFolder, device: Device, open_plan: Callable[[Path], SizedPlan]) -> None:
        """Open every plan of the folder."""
        self._plans = {name: open_plan(folder.path / name) for name in folder.spec.graphs}
        self._device = device
        self._stream: Stream = device.stream()
        self._free: dict[int, list[Buffer]] = defaultdict(list)
        self._buffers: list[Buffer] = []
        self._sending: list[NDArray[Any]] = []
        """Arrays that the device may still be reading."""

    def run(self, graph: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, DeviceTensor]:
        """Queue a graph; inputs are arrays or tensors that an earlier run gave."""
        plan = self._plans[graph]
        given = {name: self._on_device(inputs[name]) for name in plan.inputs}
        for name, tensor in given.items():
            check_input(plan.inputs[name], name, tensor.shape, tensor.dtype)
        shapes = {name: tensor.shape for name, tensor in given.items()}
        made = {
            name: self._tensor(shape, str(plan.outputs[name].dtype))
            for name, shape in plan.output_shapes(shapes).items()
        }
        plan.run(shapes, {name: tensor.buffer for name, tensor in (given | made).items()}, self._stream)
        return {name: made[name] for name in outputs}

    def zeros(self, tensor: TensorSpec) -> DeviceTensor:
        """Return a tensor of zeros on the device."""
        return self._on_device(tensor.zeros())

    def close(self) -> None:
        """Free everything; tensors that are still held are worth nothing then."""
        self._device.wait(self._stream)
        self._sending.clear()
        for plan in self._plans.values():
            plan.close()
        for buffer in self._buffers:
            self._device.free(buffer)
        self._buffers.clear()
        self._device.close()

    def _on_device(self, value: NDArray[Any] | DeviceTensor) -> DeviceTensor:
        if isinstance(value, DeviceTensor):
            return value
        array = np.ascontiguousarray(value)
        tensor = self._tensor(array.shape, array.dtype.name)
        self._device.upload(array, tensor.buffer, self._stream)
        self._sending.append(array)
        return tensor

    def _tensor(self, shape: tuple[int, ...], dtype: str) -> DeviceTensor:
        """Return a tensor in a buffer that nobody holds; work on the stream is done in order, so one let go of can be reused."""
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        free = self._free[num_bytes]
        if free:
            buffer = free.pop()
        else:
            buffer = self._device.allocate(num_bytes)
            self._buffers.append(buffer)
        tensor = DeviceTensor(buffer, shape, dtype, self._fetch)
        weakref.finalize(tensor, free.append, buffer)
        return tensor

    def _fetch(self, tensor: DeviceTensor) -> NDArray[Any]:
        array = np.empty(tensor.shape, tensor.dtype)
        self._device.download(tensor.buffer, array, self._stream)
        self._device.wait(self._stream)
        self._sending.clear()
        return array
