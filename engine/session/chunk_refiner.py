"""The refiner of a session: chunk after chunk in one stream, ended where a chunk is not refined, rebuilt after a restore.

Keys and values of the released refiner take 7.6 GB, too much to keep for every chunk. A `RefinedHistory` keeps refined
latents instead, from which the same keys and values come out when they are committed again. Those of layer l depend on
the latents of l windows before; so blocks further back than all layers' windows together need not be kept.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import CPU, Bundle
from engine.files.refiner import RefinerFolder, RefinerSpec, open_refiner
from engine.files.world import World
from engine.session.refiner import GraphRunner, RefinerStream
from engine.types import RefinedHistory


class ChunkRefiner:
    """Refines the chunks of a rollout; for one thread, but for `begin` and `restore`, which need it to be idle."""

    def __init__(self, folder: RefinerFolder, runner: GraphRunner) -> None:
        """Take the graphs; a world must be entered before anything is refined."""
        self.spec, self.sha256 = folder.spec, folder.sha256
        self.block_shape = block_shape(folder.spec)
        self.reach = reach(folder.spec)
        self._runner = runner
        self._stream: RefinerStream | None = None
        self._is_live = False

    def enter(self, world: World) -> None:
        """Read the text of a world.

        Raises:
            SpecMismatch: The world has none for this refiner.
        """
        text, mask = refiner_text(world, self.spec)
        self._stream, self._is_live = None, False
        self._stream = RefinerStream(self.spec, self._runner, text, mask)

    def begin(self, latent: NDArray[np.float32]) -> None:
        """Begin a stream behind a latent frame [C, h, w] that is not refined."""
        self.history = RefinedHistory(latent)
        self._is_live = False

    def restore(self, history: RefinedHistory) -> None:
        """Go on behind a history; its keys and values are computed with the next chunk."""
        self.history = history
        self._is_live = False

    def refine(
        self,
        latents: NDArray[np.float32],
        noise: NDArray[np.float32],
        memory: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Refine the latents [C, T, h, w] that follow, from unit Gaussian noise of the same shape.

        Args:
            memory: What the spatial memory shows of them, [M, T, h, w].
        """
        assert self._stream is not None, "a world was entered"
        if not self._is_live:
            self._rebuild(self._stream)
        # A pass that fails leaves keys and values half written; they are rebuilt then.
        self._is_live = False
        shown = None if memory is None else np.ascontiguousarray(memory[None])
        refined = self._stream.refine(np.ascontiguousarray(latents[None]), noise[None], shown)[0]
        self._is_live = True
        before = self.history
        self.history = RefinedHistory(
            before.sink, before.num_blocks + 1, (*before.blocks, refined)[-self.reach :]
        )
        return refined

    def close(self) -> None:
        """Let go of keys, values and graphs."""
        self._stream = None
        self._is_live = False
        self._runner.close()

    def _rebuild(self, stream: RefinerStream) -> None:
        history = self.history
        stream.begin(history.sink)
        if forgotten := history.num_blocks - len(history.blocks):
            stream.skip(forgotten)
        for block in history.blocks:
            stream.commit(np.ascontiguousarray(block[None]))
        self._is_live = True


def block_shape(spec: RefinerSpec) -> tuple[int, int, int, int]:
    """Return [C, T, h, w] of what a refiner takes at a time."""
    return (spec.latent_channels, spec.block_size, spec.latent_height, spec.latent_width)


def reach(spec: RefinerSpec) -> int:
    """Return how many blocks back a refiner's keys and values depend on: every layer looks back by one window more."""
    num_layers = sum(segment.num_blocks for segment in spec.segments)
    return num_layers * math.ceil((spec.window - 1) / spec.block_size)


def refiner_text(world: World, spec: RefinerSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what a refiner reads of a world, [L, D] and a mask [L]: text made for it, or the model's where it is as wide.

    Raises:
        SpecMismatch: The world has neither.
    """
    text = world.refiner_text
    if text is not None and text.shape[1] == spec.text_dim:
        return text, np.ones(len(text), np.float32)
    if text is None and world.text.shape[1] == spec.text_dim:
        return world.text, world.text_mask
    raise SpecMismatch(
        f"the world {world.name} has no text for this refiner; make it with `flaneur world create --refiner`, "
        "or play it with --refiner off"
    )


def open_chunk_refiner(bundle: Bundle, folder: Path, num_threads: int) -> ChunkRefiner:
    """Open a refiner for the chunks of a bundle.

    Raises:
        SpecMismatch: It is damaged, or was made for other chunks.
        BackendUnavailable: It was built for a GPU that is not here, or its library is missing.
    """
    opened = open_refiner(folder)
    spec, model = opened.spec, bundle.spec
    chunk = (model.latent_channels, model.chunk_size, model.latent_height, model.latent_width)
    if (block_shape(spec), spec.fps) != (chunk, model.fps):
        raise SpecMismatch(
            f"the refiner {folder} takes latents {list(block_shape(spec))} at {spec.fps:g} frames a second, {model.name} makes "
            f"{list(chunk)} at {model.fps:g}; export it for this bundle"
        )
    if spec.memory_channels not in (0, model.memory_channels):
        raise SpecMismatch(
            f"the refiner {folder} reads a memory of {spec.memory_channels} channels, {model.name} has one of "
            f"{model.memory_channels}; export it for this bundle"
        )
    return ChunkRefiner(opened, _open_graphs(opened, num_threads))


def _open_graphs(folder: RefinerFolder, num_threads: int) -> GraphRunner:
    """Open what runs a refiner: plans need TensorRT, graphs need ONNX Runtime."""
    if folder.spec.target != CPU:
        from engine.backends.tensorrt import open_refiner_plans

        return open_refiner_plans(folder)
    try:
        from engine.backends.onnxruntime import OnnxRuntimeGraphs
    except ImportError as error:
        raise BackendUnavailable(
            "onnxruntime is not installed; install it, or play with --refiner off"
        ) from error
    return OnnxRuntimeGraphs(folder, num_threads)
