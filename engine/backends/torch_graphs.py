"""Denoising passes captured as CUDA graphs: launched as one, at fixed addresses.

Built, not yet run on a GPU; on a CPU a pass is run again in the place of a replay, which tests what is copied where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Pass = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""Maps inputs and state to a velocity."""
WARM_RUNS = 3
"""Before a capture, so that libraries have chosen their kernels."""


class CapturedPass:
    """One pass for inputs of one kind, with memory of its own for inputs, state and velocity."""

    def __init__(self, work: Pass, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Capture the pass on copies of inputs and state."""
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self._state = {name: tensor.clone() for name, tensor in state.items()}
        self._loaded: Mapping[str, Tensor] = state
        device = next(iter(inputs.values())).device
        capture = _capture if device.type == "cuda" else _repeat
        self._velocity, self._replay = capture(lambda: work(self._inputs, self._state))

    def run(self, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Tensor:
        """Return the velocity, which the next run overwrites; a state is copied when it is another than before."""
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor)
        if state is not self._loaded:
            for name, tensor in state.items():
                self._state[name].copy_(tensor)
            self._loaded = state
        self._replay()
        return self._velocity


class CapturedPasses:
    """Passes by the shapes of their inputs: the first chunk, later ones, and texts of other lengths."""

    def __init__(self, work: Pass) -> None:
        self._work = work
        self._captured: dict[tuple[tuple[int, ...], ...], CapturedPass] = {}

    def run(self, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Tensor:
        key = tuple(tuple(tensor.shape) for tensor in inputs.values())
        if key not in self._captured:
            self._captured[key] = CapturedPass(self._work, inputs, state)
        return self._captured[key].run(inputs, state)


def _capture(work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Capture work as a graph; returns what it writes to, and what launches it."""
    current = torch.cuda.current_stream()
    warm = torch.cuda.Stream()
    warm.wait_stream(current)
    with torch.cuda.stream(warm):
        for _ in range(WARM_RUNS):
            work()
    current.wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = work()
    return made, graph.replay


def _repeat(work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Stand in for a graph where there are none."""
    made = work()

    def replay() -> None:
        made.copy_(work())

    return made, replay
