"""What a backend must be able to do (hold named buffers and run two graphs on them), and how those graphs look.

It knows nothing of chunks, poses, schedules or threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpecMismatch
from engine.files.bundle import GUIDE_INPUTS, MEMORY, OUT, STEP_INPUTS, ModelSpec, TensorSpec

State = Mapping[str, Any]
"""Named tensors in whatever form the backend keeps them. Never changed in place: a run returns the next
State, so that an older one stays valid for as long as somebody holds it."""


class Backend(ABC):
    """The step graph, the decoder graph and, where there is one, the encoder graph of a bundle, ready to run.

    `run_encoder` is called from the thread of `run_step`; `run_step` and `run_decoder` may be called from two threads at
    once, each from one thread at a time.
    """

    name: str
    device: str
    """For reports, e.g. "cpu, 2 + 1 threads"."""

    @abstractmethod
    def new_state(self) -> State:
        """Return the state of the step graph before anything was committed."""

    @abstractmethod
    def new_caches(self) -> State:
        """Return the caches of the decoder before anything was decoded."""

    @abstractmethod
    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        """Run the step graph.

        Args:
            inputs: The graph's named inputs but for the state; the size of `latents` chooses the graph.
            keep_state: Return the state the graph made; otherwise `state` comes back as it is.

        Returns:
            The velocity, [1, C, T, H, W], and the state.
        """

    @abstractmethod
    def run_decoder(
        self, inputs: Mapping[str, NDArray[Any]], caches: State
    ) -> tuple[dict[str, NDArray[Any]], State]:
        """Decode one latent frame.

        Args:
            inputs: `latent`, [1, C, 1, H, W], and the guide's parts where the decoder is shown one.

        Returns:
            `frames`, uint8 [R, H_px, W_px, 3], and `inverse_depth`, float32 [R, H_px, W_px], where the decoder is shown a
            guide; then the next caches.
        """

    @abstractmethod
    def run_encoder(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode R video frames, [R, H_px, W_px, 3], to one latent frame, [1, C, 1, H, W]; for bundles with an encoder."""

    @abstractmethod
    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        """Return a state (or caches) as arrays that nothing will change."""

    @abstractmethod
    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        """Return the state (or caches) that `to_arrays` was given."""

    @abstractmethod
    def close(self) -> None:
        """Free what the graphs hold; nothing may be called afterwards."""


VELOCITY = "velocity"
LATENT = "latent"
FRAMES = "frames"
PICTURE = "picture"
INVERSE_DEPTH = "inverse_depth"


@dataclass(frozen=True)
class GraphInput:
    """One input of a graph; sizes that may vary are no integers, or negative."""

    dtype: str | None
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class GraphInterface:
    """Names that one kind of graph takes and gives."""

    inputs: tuple[str, ...]
    results: tuple[str, ...]
    """Outputs before the state."""
    state: tuple[TensorSpec, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """All outputs, the state's in the order of the state."""
        return *self.results, *(tensor.name + OUT for tensor in self.state)

    def named(self, values: Sequence[Any]) -> dict[str, Any]:
        """Name the state among the outputs."""
        return {tensor.name: value for tensor, value in zip(self.state, values, strict=True)}

    def check(self, given: Mapping[str, GraphInput], made: Collection[str]) -> None:
        """Refuse a graph whose inputs and outputs are not those its bundle promises."""
        expected_inputs = {*self.inputs, *(tensor.name for tensor in self.state)}
        for kind, expected, actual in (
            ("input", expected_inputs, set(given)),
            ("output", set(self.outputs), set(made)),
        ):
            if odd := sorted(expected ^ actual):
                what = "lacks" if odd[0] in expected else "has the unexpected"
                raise SpecMismatch(f"a graph of the bundle {what} {kind} {odd[0]}; export the bundle again")
        for tensor in self.state:
            node = given[tensor.name]
            if node.dtype != tensor.dtype or node.shape != tensor.shape:
                raise SpecMismatch(
                    f"the bundle promises {tensor.name} as {tensor.dtype} {list(tensor.shape)}, "
                    f"its graph wants {node.dtype} {list(node.shape)}; export the bundle again"
                )


def step_interface(spec: ModelSpec) -> GraphInterface:
    inputs = (*STEP_INPUTS, MEMORY) if spec.memory_channels else STEP_INPUTS
    return GraphInterface(inputs, (VELOCITY,), spec.state)


def decoder_interface(spec: ModelSpec) -> GraphInterface:
    if not spec.memory_channels:
        return GraphInterface((LATENT,), (FRAMES,), spec.decoder_caches)
    return GraphInterface((LATENT, *GUIDE_INPUTS), (FRAMES, INVERSE_DEPTH), spec.decoder_caches)


def encoder_interface() -> GraphInterface:
    return GraphInterface((FRAMES,), (LATENT,), ())


def depth_interface() -> GraphInterface:
    return GraphInterface((PICTURE,), (INVERSE_DEPTH,), ())
