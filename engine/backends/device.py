"""A backend on buffers that a device holds, written once for every device and for every way to run a plan.

State goes back and forth between sets of buffers and is never copied: a run reads one set and writes another, and a set
is free again when nobody holds the state in it any more.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import (
    FRAMES,
    LATENT,
    VELOCITY,
    Backend,
    GraphInput,
    GraphInterface,
    State,
    decoder_interface,
    encoder_interface,
    step_interface,
)
from engine.errors import SpecMismatch
from engine.files.bundle import OUT, Bundle, TensorSpec

Buffer = Any
"""Memory of a device, in the device's own form."""
Stream = Any
"""A queue of work of a device."""


class Device(Protocol):
    """Memory and queues."""

    def allocate(self, num_bytes: int) -> Buffer: ...
    def free(self, buffer: Buffer) -> None: ...
    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return host memory that the device copies to directly."""
        ...

    def stream(self) -> Stream: ...
    def upload(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None: ...
    def download(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None: ...
    def wait(self, stream: Stream) -> None:
        """Return when the stream's work is done."""
        ...

    def close(self) -> None:
        """Free the pinned memory and the streams."""
        ...


class Plan(Protocol):
    """One compiled graph."""

    @property
    def inputs(self) -> Mapping[str, GraphInput]: ...
    @property
    def outputs(self) -> Mapping[str, GraphInput]: ...

    def run(
        self, shapes: Mapping[str, tuple[int, ...]], buffers: Mapping[str, Buffer], stream: Stream
    ) -> None:
        """Queue a run on buffers for every input and output; shapes are those of the inputs that vary."""
        ...

    def close(self) -> None: ...


class BufferSet(dict[str, Buffer]):
    """The buffers of one state, by tensor name; whoever holds it keeps them from being written."""


class BufferPool:
    """Sets of buffers for a list of tensors, as many as are held at once and one more."""

    def __init__(self, device: Device, tensors: Sequence[TensorSpec]) -> None:
        self._device = device
        self._tensors = tensors
        self._free: list[dict[str, Buffer]] = []
        self._all: list[dict[str, Buffer]] = []

    def take(self) -> BufferSet:
        """Return a set that nobody holds; its contents are left over."""
        if self._free:
            buffers = self._free.pop()
        else:
            buffers = {tensor.name: self._device.allocate(tensor.num_bytes) for tensor in self._tensors}
            self._all.append(buffers)
        held = BufferSet(buffers)
        weakref.finalize(held, self._free.append, buffers)
        return held

    def close(self) -> None:
        for buffers in self._all:
            for buffer in buffers.values():
                self._device.free(buffer)
        self._all.clear()
        self._free.clear()


class _Lane:
    """Plans of one interface with their own stream, buffers and state pool."""

    def __init__(self, device: Device, interface: GraphInterface, plans: Mapping[int, Plan]) -> None:
        for plan in plans.values():
            interface.check(plan.inputs, list(plan.outputs))
        self.device, self.interface, self.plans = device, interface, plans
        self.pool = BufferPool(device, interface.state)
        self.stream = device.stream()
        self._inputs: dict[str, tuple[int, Buffer]] = {}
        self._results: dict[tuple[int, str], tuple[Buffer, NDArray[Any]]] = {}

    def run(
        self, key: int, inputs: Mapping[str, NDArray[Any]], state: State
    ) -> tuple[dict[str, NDArray[Any]], BufferSet]:
        """Run the plan `key`; returns its results by name and the state it made."""
        plan, after = self.plans[key], self.pool.take()
        buffers: dict[str, Buffer] = dict(state)
        # Kept until the stream is waited for: the device may still be reading them.
        arrays = {name: np.ascontiguousarray(inputs[name]) for name in self.interface.inputs}
        for name, array in arrays.items():
            check_input(plan.inputs[name], name, array.shape, array.dtype.name)
            buffers[name] = self._input_buffer(name, array.nbytes)
            self.device.upload(array, buffers[name], self.stream)
        hosts: dict[str, NDArray[Any]] = {}
        for name in self.interface.results:
            buffers[name], hosts[name] = self._result_buffer(key, name, plan.outputs[name])
        buffers |= {name + OUT: buffer for name, buffer in after.items()}
        plan.run({name: array.shape for name, array in arrays.items()}, buffers, self.stream)
        for name, host in hosts.items():
            self.device.download(buffers[name], host, self.stream)
        self.device.wait(self.stream)
        return {name: host.copy() for name, host in hosts.items()}, after

    def zeros(self) -> BufferSet:
        return self.from_arrays({tensor.name: tensor.zeros() for tensor in self.interface.state})

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> BufferSet:
        held = self.pool.take()
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        for name, array in contiguous.items():
            self.device.upload(array, held[name], self.stream)
        self.device.wait(self.stream)
        return held

    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        arrays = {tensor.name: tensor.zeros() for tensor in self.interface.state}
        for name, array in arrays.items():
            self.device.download(state[name], array, self.stream)
        self.device.wait(self.stream)
        return arrays

    def close(self) -> None:
        self.device.wait(self.stream)
        for plan in self.plans.values():
            plan.close()
        self.pool.close()
        for buffer in [pair[1] for pair in self._inputs.values()] + [
            pair[0] for pair in self._results.values()
        ]:
            self.device.free(buffer)

    def _input_buffer(self, name: str, num_bytes: int) -> Buffer:
        """Return a buffer that is large enough; texts differ in length from world to world."""
        size, buffer = self._inputs.get(name, (0, None))
        if size < num_bytes:
            if size:
                self.device.free(buffer)
            buffer = self.device.allocate(num_bytes)
            self._inputs[name] = num_bytes, buffer
        return buffer

    def _result_buffer(self, plan: int, name: str, output: GraphInput) -> tuple[Buffer, NDArray[Any]]:
        key = (plan, name)
        if key not in self._results:
            shape = tuple(size for size in output.shape if isinstance(size, int))
            assert output.dtype is not None
            host = self.device.pinned(shape, output.dtype)
            self._results[key] = self.device.allocate(host.nbytes), host
        return self._results[key]


def check_input(expected: GraphInput, name: str, shape: tuple[int, ...], dtype: str | None) -> None:
    """Refuse an input that a plan would read past the end of.

    Raises:
        SpecMismatch: It has another shape or type.
    """
    fixed = [size if isinstance(size, int) and size >= 0 else None for size in expected.shape]
    fits = len(fixed) == len(shape) and all(
        size in (None, given) for size, given in zip(fixed, shape, strict=True)
    )
    if not fits or expected.dtype != dtype:
        raise SpecMismatch(
            f"a plan of the bundle takes {name} as {expected.dtype} {list(expected.shape)}, "
            f"not {dtype} {list(shape)}; build the engine again"
        )


class DeviceBackend(Backend):
    """A bundle's plans on a device: one stream denoises while another decodes."""

    def __init__(
        self, name: str, label: str, bundle: Bundle, device: Device, open_plan: Callable[[Path], Plan]
    ) -> None:
        """Open every plan of a bundle.

        Args:
            label: The device in words, for reports.
        """
        spec = bundle.spec
        self.name, self.device = name, label
        self._device = device
        steps = {int(size): open_plan(bundle.path / file) for size, file in spec.step_graphs.items()}
        self._denoise = _Lane(device, step_interface(spec), steps)
        self._decode = _Lane(device, decoder_interface(spec), {1: open_plan(bundle.decoder_graph)})
        self._encode = None
        if spec.encoder_graph is not None:
            self._encode = _Lane(
                device, encoder_interface(), {1: open_plan(bundle.path / spec.encoder_graph)}
            )

    def new_state(self) -> State:
        return self._denoise.zeros()

    def new_caches(self) -> State:
        return self._decode.zeros()

    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        results, after = self._denoise.run(inputs["latents"].shape[2], inputs, state)
        return results[VELOCITY], after if keep_state else state

    def run_decoder(
        self, inputs: Mapping[str, NDArray[Any]], caches: State
    ) -> tuple[dict[str, NDArray[Any]], State]:
        return self._decode.run(1, inputs, caches)

    def run_encoder(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert self._encode is not None, "the bundle has an encoder"
        return self._encode.run(1, {FRAMES: frames}, {})[0][LATENT]

    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        return self._lane(state).to_arrays(state)

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        return self._lane(arrays).from_arrays(arrays)

    def close(self) -> None:
        self._denoise.close()
        self._decode.close()
        if self._encode is not None:
            self._encode.close()
        self._device.close()

    def _lane(self, tensors: Mapping[str, Any]) -> _Lane:
        """Tell a state from caches by the names of its tensors."""
        lanes = (self._denoise, self._decode)
        return next(lane for lane in lanes if tensors.keys() == {t.name for t in lane.interface.state})
