"""A released refiner, read, exported and held against PyTorch in one go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.backends.onnxruntime import OnnxRuntimeGraphs
from engine.files.refiner import REFINER_FILE, RefinerFolder, open_refiner
from engine.machine.hardware import num_cores
from export.folders import check_destination
from export.onnx import Progress
from export.refiner.folder import export_refiner
from export.refiner.graphs import Sizes
from export.refiner.verify import RefinerReport, verify_refiner
from model.refiner import load_refiner
from model.refiner.adapter import merge_adapter, read_adapter
from model.refiner.streaming import BLOCK_SIZE, WINDOW


@dataclass(frozen=True)
class ReleasedExport:
    """What was made."""

    folder: RefinerFolder
    num_audio_tensors: int
    """Tensors of the release that were skipped because only sound needs them."""
    report: RefinerReport | None
    """Differences from PyTorch, where that was asked for."""


def export_released(
    weights: Path,
    destination: Path,
    frame_size: tuple[int, int],
    fps: float,
    window: int | None,
    blocks_per_segment: int,
    half_state: bool,
    num_verified: int,
    progress: Progress,
    adapter: Path | None = None,
) -> ReleasedExport:
    """Export a release's refiner folder, or its single file.

    Args:
        frame_size: Width and height in pixels.
        window: Latent frames that a block sees besides its own; None takes the released number.
        num_verified: Blocks of latents to hold against PyTorch afterwards.
        progress: Told the name of each graph as it starts.
        adapter: LoRA to merge into the weights, whichever refiner it was trained on.

    Raises:
        ValueError: The weights or the sizes cannot be used.
    """
    check_destination(destination, REFINER_FILE)
    loaded = load_refiner(weights)
    if adapter is not None:
        merge_adapter(loaded.model, read_adapter(adapter))
    width, height = frame_size
    _, row_px, column_px = loaded.model.config.vae_scale_factors
    if width % column_px or height % row_px:
        raise ValueError(
            f"a frame of {width}x{height} is no multiple of {column_px}x{row_px}; use such as 1280x704"
        )
    grid = (height // row_px, width // column_px)
    sizes = Sizes(grid, fps, BLOCK_SIZE, window or WINDOW, half_state)
    export_refiner(loaded.model, destination, sizes, blocks_per_segment, progress=progress)
    folder = open_refiner(destination)
    report = None
    if num_verified:
        runner = OnnxRuntimeGraphs(folder, num_cores())
        report = verify_refiner(folder, runner, loaded.model.float(), num_verified)
    return ReleasedExport(folder, loaded.num_audio_tensors, report)
