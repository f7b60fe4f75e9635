"""What the graphs of a bundle must look like from outside, whatever runs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import SpecMismatch
from engine.files.bundle import OUT, STEP_INPUTS, EngineSpec, TensorSpec

VELOCITY = "velocity"
LATENT = "latent"
FRAMES = "frames"


@dataclass(frozen=True)
class GraphInput:
    """One input of a graph; sizes that may vary are no integers, or negative."""

    dtype: str | None
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class GraphInterface:
    """Names that one kind of graph takes and gives."""

    inputs: tuple[str, ...]
    output: str
    state: tuple[TensorSpec, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """All outputs, the state's in the order of the state."""
        return self.output, *(tensor.name + OUT for tensor in self.state)

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


def step_interface(spec: EngineSpec) -> GraphInterface:
    return GraphInterface(STEP_INPUTS, VELOCITY, spec.state)


def decoder_interface(spec: EngineSpec) -> GraphInterface:
    return GraphInterface((LATENT,), FRAMES, spec.decoder_caches)
