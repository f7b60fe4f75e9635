"""The refiner to ONNX: a folder with graphs for segments of its blocks, and their description."""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict
from pathlib import Path

import onnx
import torch
from torch import nn

from engine.files.bundle import CPU, OUT, TensorSpec, hash_file
from engine.files.refiner import CACHES, NUM_FRAMES, REFINER_FILE, RefinerSpec, Segment
from engine.session.refiner import OWN, TEXT, names
from export.folders import making_bundle, write_spec
from export.graph import SharedWeights
from export.onnx import MAX_TEXT_LENGTH, Progress, plain, write_graph
from export.refiner.graphs import (
    BlocksGraph,
    CaptionGraph,
    CommitGraph,
    EmbedGraph,
    HeadGraph,
    PositionsGraph,
    Sizes,
    TextGraph,
)
from model.checkpoint import weights_sha256
from model.refiner import Refiner
from model.refiner.state import SINK_FRAMES, state_shapes

BLOCKS_PER_SEGMENT = 12
"""A quarter of the released refiner: 13 GB of float32 weights while they are exported."""
TEXT_LENGTH = 8
"""Of the examples that graphs are traced with; the axis may have any length."""
LENGTH_AXES = {"text": 1, "text_mask": 1, "text_bias": 3, "captions": 1, "text_key": 2, "text_value": 2}
"""Which axis of an input is the text's length."""


def export_refiner(
    refiner: Refiner,
    destination: Path,
    sizes: Sizes,
    blocks_per_segment: int = BLOCKS_PER_SEGMENT,
    notes: str = "",
    progress: Progress | None = None,
    by_default: bool = True,
) -> Path:
    """Write a refiner for ONNX Runtime, float32, whole or not at all.

    Args:
        destination: Folder to make; an exported refiner there is replaced.
        sizes: What the graphs are made for.
        progress: Told the name of each graph as it starts.
        by_default: Whether `--refiner auto` refines with it.

    Raises:
        ValueError: The destination is something else, or the sizes cannot be used.
        BuildFailed: The exporter gave up.
    """
    if min(*sizes.grid, sizes.block_size, sizes.history, blocks_per_segment) < 1 or not sizes.fps > 0:
        raise ValueError(
            f"a refiner cannot be exported for {sizes}; a window needs two latent frames or more"
        )
    with making_bundle(Path(destination), REFINER_FILE) as partial:
        writer = _Writer(refiner, sizes, partial, progress or (lambda _stage: None))
        num_layers = refiner.config.num_layers
        starts = range(0, num_layers, blocks_per_segment)
        parts = [range(start, min(start + blocks_per_segment, num_layers)) for start in starts]
        segments = tuple(writer.write_segment(index, blocks) for index, blocks in enumerate(parts))
        writer.write_shared()
        described = _describe(refiner, sizes, segments, partial, notes, by_default)
        write_spec(partial, described, REFINER_FILE)
    return Path(destination)


def _describe(
    refiner: Refiner,
    sizes: Sizes,
    segments: tuple[Segment, ...],
    folder: Path,
    notes: str,
    by_default: bool,
) -> RefinerSpec:
    config = refiner.config
    state = state_shapes(config, sizes.tokens, sizes.history)
    return RefinerSpec(
        format_version=1,
        model=asdict(config),
        weights_sha256=weights_sha256(refiner),
        latent_channels=config.in_channels,
        latent_height=sizes.grid[0],
        latent_width=sizes.grid[1],
        fps=sizes.fps,
        block_size=sizes.block_size,
        window=sizes.window,
        sigmas=refiner.sigmas,
        text_dim=config.caption_channels,
        memory_channels=config.memory_channels,
        by_default=by_default,
        caption_graph="captions.onnx",
        positions_graph="positions.onnx",
        embed_graph="embed.onnx",
        head_graph="head.onnx",
        segments=segments,
        state=tuple(
            TensorSpec(
                name=name,
                shape=(1, *shape),
                dtype="float16" if _is_half(name, sizes) else "float32",
            )
            for name, shape in state.items()
        ),
        precision="float32",
        target=CPU,
        builder=f"torch {torch.__version__}, onnx {onnx.__version__}",
        files={file.name: hash_file(file) for file in sorted(folder.iterdir())},
        notes=notes,
    )


def _is_half(name: str, sizes: Sizes) -> bool:
    return name != NUM_FRAMES and sizes.half_state


class _Writer:
    """Writes the graphs of one refiner into a folder."""

    def __init__(self, refiner: Refiner, sizes: Sizes, folder: Path, report: Progress) -> None:
        self.refiner, self.sizes, self.folder, self.report = refiner, sizes, folder, report
        config = refiner.config
        heads, head_dim, width = config.num_attention_heads, config.attention_head_dim, config.hidden_size
        num_tokens = sizes.block_size * sizes.tokens
        table = torch.zeros(heads, num_tokens, head_dim // 2)
        own, text = torch.zeros(1, heads, num_tokens, head_dim), torch.zeros(1, heads, TEXT_LENGTH, head_dim)
        state = {
            name.removeprefix("blocks.0."): torch.zeros(
                1, *shape, dtype=torch.float16 if _is_half(name, sizes) else torch.float32
            )
            for name, shape in state_shapes(config, sizes.tokens, sizes.history).items()
        }
        seen = SINK_FRAMES * sizes.tokens + sizes.history * sizes.tokens + num_tokens
        self.examples = {
            "text": torch.zeros(1, TEXT_LENGTH, config.caption_channels),
            "text_mask": torch.ones(1, TEXT_LENGTH),
            "text_bias": torch.zeros(1, 1, 1, TEXT_LENGTH),
            "captions": torch.zeros(1, TEXT_LENGTH, width),
            "latents": torch.zeros(1, config.in_channels, sizes.block_size, *sizes.grid),
            "sigma": torch.zeros(1, 1),
            "memory": torch.zeros(1, config.memory_channels, sizes.block_size, *sizes.grid),
            "hidden": torch.zeros(1, sizes.block_size, sizes.tokens, width),
            "time": torch.zeros(1, 1, width),
            "modulation": torch.zeros(1, 1, 6, width),
            "cos": table,
            "sin": table,
            "mask": torch.zeros(1, 1, 1, seen),
            "num_frames": torch.ones(1),
            "key": own,
            "value": own,
            "text_key": text,
            "text_value": text,
            **state,
        }
        """An input of each name, by its part after `blocks.{i}.`."""

    def write_shared(self) -> None:
        """Write the graphs that stand once beside the segments."""
        refiner, blocks = self.refiner, range(self.refiner.config.num_layers)
        sinks = [f"blocks.{block}.sink_key" for block in blocks]
        self._write("captions", CaptionGraph(refiner), ["text", "text_mask"], ["captions", "text_bias"])
        self._write(
            "positions",
            PositionsGraph(refiner.config, self.sizes),
            [NUM_FRAMES, *sinks],
            ["cos", "sin", "mask", *(name + OUT for name in sinks)],
        )
        given = ["latents", "sigma", *(["memory"] if refiner.config.memory_channels else [])]
        self._write("embed", EmbedGraph(refiner), given, ["hidden", "time", "modulation"])
        self._write("head", HeadGraph(refiner, self.sizes.grid), ["hidden", "time"], ["velocity"])

    def write_segment(self, index: int, blocks: range) -> Segment:
        """Write the graphs of some blocks."""
        segment = Segment(
            first_block=blocks.start,
            num_blocks=len(blocks),
            text_graph=f"text_{index}.onnx",
            blocks_graph=f"blocks_{index}.onnx",
            commit_graph=f"commit_{index}.onnx",
        )
        self._write(f"text_{index}", TextGraph(self.refiner, blocks), ["captions"], names(segment, TEXT))
        self._write(
            f"blocks_{index}",
            BlocksGraph(self.refiner, blocks),
            ["hidden", "modulation", "text_bias", "cos", "sin", "mask", *names(segment, TEXT + CACHES)],
            ["hidden_out", *names(segment, OWN)],
        )
        self._write(
            f"commit_{index}",
            CommitGraph(self.refiner.config, self.sizes),
            [NUM_FRAMES, "cos", "sin", *names(segment, OWN + CACHES)],
            names(segment, CACHES, OUT),
        )
        return segment

    def _write(self, name: str, graph: nn.Module, inputs: list[str], outputs: list[str]) -> None:
        self.report(f"{name} graph")
        parts = [re.sub(r"^blocks\.\d+\.", "", given) for given in inputs]
        length = torch.export.Dim("text_length", min=2, max=MAX_TEXT_LENGTH)
        axes = [{LENGTH_AXES[part]: length} if part in LENGTH_AXES else {} for part in parts]
        plain_inputs = inspect.signature(graph.forward).parameters
        num_named = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in plain_inputs.values())
        dynamic = tuple(axes[:num_named])
        if len(plain_inputs) > num_named:
            dynamic = (*dynamic, tuple(axes[num_named:]))
        write_graph(
            plain(graph.eval()),
            tuple(self.examples[part].clone() for part in parts),
            self.folder / f"{name}.onnx",
            SharedWeights(self.folder / f"{name}.weights"),
            inputs,
            outputs,
            dynamic,
        )
