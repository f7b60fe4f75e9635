"""Refining a stream of latents with exported graphs: three Euler steps and a commit for every block of latents.

It knows nothing of what runs the graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.files.bundle import OUT, TensorSpec
from engine.files.refiner import CACHES, NUM_FRAMES, RefinerSpec, Segment

Tensors = Mapping[str, Any]
"""Arrays, or what the runner keeps in their place: `np.asarray` makes arrays of them."""
OWN = ("key", "value")
"""Keys, before rotation, and values of the tokens at hand, per block."""
TEXT = ("text_key", "text_value")


class GraphRunner(Protocol):
    """What runs graphs."""

    def run(self, graph: str, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Any]:
        """Run the graph in a file and return the outputs asked for."""
        ...

    def zeros(self, tensor: TensorSpec) -> Any:
        """Return a tensor of zeros."""
        ...

    def close(self) -> None:
        """Let go of the graphs."""
        ...


def names(segment: Segment, parts: Sequence[str], end: str = "") -> list[str]:
    """Name some tensors of each block of a segment, in the order graphs take them."""
    return [f"blocks.{block}.{part}{end}" for block in segment.blocks for part in parts]


class RefinerStream:
    """One stream of refined latents.

    The state is never changed in place: a stream can be put back to what `state` was at any block.
    """

    def __init__(
        self,
        spec: RefinerSpec,
        runner: GraphRunner,
        text: NDArray[np.float32],
        text_mask: NDArray[np.float32],
    ) -> None:
        """Read the text.

        Args:
            text: As the connectors give it, [L, text_dim].
            text_mask: 1 for tokens that count, [L].
        """
        if text.shape != (len(text_mask), spec.text_dim):
            raise ValueError(
                f"the text has the shape {text.shape} and its mask {text_mask.shape}; the refiner reads [L, {spec.text_dim}]"
            )
        self._spec, self._runner = spec, runner
        given = {"text": text[None], "text_mask": text_mask[None]}
        captions = runner.run(spec.caption_graph, given, ["captions", "text_bias"])
        self._text: dict[str, Any] = {"text_bias": captions["text_bias"]}
        for segment in spec.segments:
            shown = {"captions": captions["captions"]}
            self._text |= runner.run(segment.text_graph, shown, names(segment, TEXT))
        self.state: Tensors = self._zeros()

    def begin(self, latent: NDArray[np.float32]) -> None:
        """Start again from the first latent frame [C, h, w], which is never refined."""
        # The state before is let go of first: on a device it would be in memory twice.
        self.state = {}
        self.state = self._zeros()
        block = np.zeros(self._shape, np.float32)
        # While nothing is committed, only the first frame of a block is seen: it is the sink.
        block[0, :, 0] = latent
        self._commit(block, self._positions(), num_frames=1)

    def refine(
        self,
        latents: NDArray[np.float32],
        noise: NDArray[np.float32],
        memory: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Refine the latents [1, C, T, h, w] that follow, T being the block size, from unit Gaussian noise; and commit them.

        Args:
            memory: What a spatial memory shows of them, [1, M, T, h, w], for refiners that read one; None shows nothing.
        """
        if latents.shape != self._shape or noise.shape != self._shape:
            raise ValueError(f"latents are {latents.shape} and noise {noise.shape}; a block is {self._shape}")
        shown = self._shown(memory)
        sigmas = self._spec.sigmas
        x = latents.copy()
        x += np.float32(sigmas[0]) * (noise - latents)
        positions = self._positions()
        for sigma, following in pairwise(sigmas):
            tokens, time, _ = self._through_blocks(x, sigma, positions, shown, keep=False)
            head = {"hidden": tokens, "time": time}
            velocity = self._runner.run(self._spec.head_graph, head, ["velocity"])["velocity"]
            x += np.float32(following - sigma) * np.asarray(velocity)
        self._commit(x, positions, num_frames=self._spec.block_size)
        return x

    def commit(self, latents: NDArray[np.float32]) -> None:
        """Take in latents [1, C, T, h, w] that were refined before; the state is then what `refine` left."""
        self._commit(latents, self._positions(), num_frames=self._spec.block_size)

    def skip(self, num_blocks: int) -> None:
        """Count blocks that are not known any more; what reads their keys and values is wrong until it is forgotten."""
        skipped = np.float32(num_blocks * self._spec.block_size)
        self.state = {**self.state, NUM_FRAMES: self.state[NUM_FRAMES] + skipped}

    @property
    def _shape(self) -> tuple[int, ...]:
        spec = self._spec
        return (1, spec.latent_channels, spec.block_size, spec.latent_height, spec.latent_width)

    def _positions(self) -> dict[str, Any]:
        """Compute rotary tables, the mask and the sinks where they stand now."""
        sinks = [name for segment in self._spec.segments for name in names(segment, ("sink_key",))]
        inputs = {name: self.state[name] for name in (NUM_FRAMES, *sinks)}
        outputs = ["cos", "sin", "mask", *(name + OUT for name in sinks)]
        return self._runner.run(self._spec.positions_graph, inputs, outputs)

    def _shown(self, memory: NDArray[np.float32] | None) -> dict[str, NDArray[np.float32]]:
        """Give the embed graph's input for a memory; none where the refiner reads none."""
        if not self._spec.memory_channels:
            return {}
        shape = (1, self._spec.memory_channels, *self._shape[2:])
        if memory is None:
            return {"memory": np.zeros(shape, np.float32)}
        if memory.shape != shape:
            raise ValueError(f"the memory is {memory.shape}; a block's is {shape}")
        return {"memory": memory}

    def _through_blocks(
        self, x: NDArray[np.float32], sigma: float, positions: Tensors, shown: Tensors, keep: bool
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Run the transformer up to its head: tokens, time, and where kept each block's own keys and values."""
        noisy = {"latents": x, "sigma": np.full((1, 1), sigma, np.float32), **shown}
        embedded = self._runner.run(self._spec.embed_graph, noisy, ["hidden", "time", "modulation"])
        hidden, kept = embedded["hidden"], dict[str, Any]()
        shared = {"modulation": embedded["modulation"], "text_bias": self._text["text_bias"]}
        shared |= {name: positions[name] for name in ("cos", "sin", "mask")}
        for segment in self._spec.segments:
            inputs = {"hidden": hidden, **shared}
            inputs |= {name: self._text[name] for name in names(segment, TEXT)}
            inputs |= {name: self.state[name] for name in names(segment, CACHES[1:])}
            inputs |= {name: positions[name + OUT] for name in names(segment, CACHES[:1])}
            own = names(segment, OWN) if keep else []
            outputs = self._runner.run(segment.blocks_graph, inputs, ["hidden_out", *own])
            hidden = outputs.pop("hidden_out")
            kept |= outputs
        return hidden, embedded["time"], kept

    def _commit(self, x: NDArray[np.float32], positions: Tensors, num_frames: int) -> None:
        # What is committed is latents alone, so that they can be committed again without what they were refined with.
        _, _, own = self._through_blocks(x, 0.0, positions, self._shown(None), keep=True)
        shared = {NUM_FRAMES: self.state[NUM_FRAMES], "cos": positions["cos"], "sin": positions["sin"]}
        for segment in self._spec.segments:
            inputs = {**shared, **{name: own[name] for name in names(segment, OWN)}}
            inputs |= {name: self.state[name] for name in names(segment, CACHES)}
            written = self._runner.run(segment.commit_graph, inputs, names(segment, CACHES, OUT))
            # One segment after the other, so that a state that nobody else holds is not in memory twice.
            self.state = {**self.state, **{name.removesuffix(OUT): new for name, new in written.items()}}
            del inputs
        self.state = {**self.state, NUM_FRAMES: shared[NUM_FRAMES] + np.float32(num_frames)}

    def _zeros(self) -> dict[str, Any]:
        num_frames, *caches = self._spec.state
        return {
            NUM_FRAMES: num_frames.zeros(),
            **{tensor.name: self._runner.zeros(tensor) for tensor in caches},
        }
