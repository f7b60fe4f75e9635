"""What `flaneur export` does with a refiner's weights: export, verification, precision, plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.backends.onnxruntime import OnnxRuntimeGraphs
from engine.files.refiner import REFINER_FILE, RefinerFolder, open_refiner
from engine.machine.hardware import num_cores
from export.engine import check_target, load_library
from export.folders import check_destination
from export.onnx import Progress
from export.progress import Stage
from export.quantization.layers import Recipe
from export.quantization.quantize import nominal_calibration, quantised_layers
from export.refiner.folder import export_refiner
from export.refiner.graphs import Sizes
from export.refiner.plans import build_refiner, calibrate_refiner
from export.refiner.verify import (
    PrecisionReport,
    RefinerReport,
    made_up_clip,
    measure_precision,
    verify_refiner,
)
from model.checkpoint import weights_sha256
from model.refiner import Refiner, RefinerConfig, load_refiner
from model.refiner.adapter import merge_adapter, read_adapter
from model.refiner.streaming import BLOCK_SIZE, WINDOW

CALIBRATION_BLOCKS = 4


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
    block_size: int = BLOCK_SIZE,
    half_weights: bool = False,
    by_default: bool = True,
) -> ReleasedExport:
    """Export a release's refiner folder, or its single file.

    Args:
        frame_size: Width and height in pixels.
        window: Latent frames that a block sees besides its own; None takes the released number.
        num_verified: Blocks of latents to hold against PyTorch afterwards.
        progress: Told the name of each graph as it starts.
        adapter: LoRA to merge into the weights, whichever refiner it was trained on.
        block_size: Latent frames refined at a time.
        half_weights: Round the weights to float16, which halves the files; graphs compute in float32 all the same.
        by_default: Whether `--refiner auto` refines with it.

    Raises:
        ValueError: The weights or the sizes cannot be used.
    """
    check_destination(destination, REFINER_FILE)
    loaded = load_refiner(weights)
    if adapter is not None:
        merge_adapter(loaded.model, read_adapter(adapter))
    if half_weights:
        loaded.model.half().float()
    width, height = frame_size
    _, row_px, column_px = loaded.model.config.vae_scale_factors
    if width % column_px or height % row_px:
        raise ValueError(
            f"a frame of {width}x{height} is no multiple of {column_px}x{row_px}; use such as 1280x704"
        )
    grid = (height // row_px, width // column_px)
    sizes = Sizes(grid, fps, block_size, window or WINDOW, half_state)
    export_refiner(
        loaded.model, destination, sizes, blocks_per_segment, progress=progress, by_default=by_default
    )
    folder = open_refiner(destination)
    report = None
    if num_verified:
        runner = OnnxRuntimeGraphs(folder, num_cores())
        report = verify_refiner(folder, runner, loaded.model.float(), num_verified)
    return ReleasedExport(folder, loaded.num_audio_tensors, report)


def verify_exported(folder: RefinerFolder, weights: Path, num_blocks: int) -> RefinerReport:
    """Hold an exported refiner against PyTorch.

    Args:
        weights: What it was exported from.

    Raises:
        ValueError: They are other weights, or cannot be read.
    """
    return verify_refiner(
        folder, OnnxRuntimeGraphs(folder, num_cores()), _weights_of(folder, weights), num_blocks
    )


def measure_exported(
    folder: RefinerFolder, weights: Path, recipe: Recipe, num_blocks: int
) -> PrecisionReport:
    """Hold an exported refiner in low precision against float32.

    Raises:
        ValueError: The weights are others, or cannot be read.
    """
    return measure_precision(_weights_of(folder, weights), folder.spec, recipe, num_blocks)


def build_exported(
    folder: RefinerFolder, weights: Path | None, destination: Path, target: str, recipe: Recipe, stage: Stage
) -> RefinerFolder:
    """Build an exported refiner for a GPU.

    Args:
        weights: To measure on them what reaches each layer; None takes one magnitude for all.

    Raises:
        ValueError: Folder, target or weights cannot be used.
        BuildFailed: TensorRT refused.
    """
    check_destination(destination, REFINER_FILE)
    check_target(load_library(), target)
    if weights is None:
        with torch.device("meta"):
            network = Refiner(RefinerConfig.from_dict(folder.spec.model))
        calibration = nominal_calibration(quantised_layers(network, recipe))
    else:
        clip = made_up_clip(folder.spec, CALIBRATION_BLOCKS)
        stage("calibrating", None)
        refiner = _weights_of(folder, weights)
        calibration = calibrate_refiner(
            refiner, recipe, clip.latents, clip.text, clip.text_mask, folder.spec.fps, clip.memory
        )
    return open_refiner(build_refiner(folder, destination, target, recipe, calibration, stage))


def _weights_of(folder: RefinerFolder, weights: Path) -> Refiner:
    model = load_refiner(weights).model.float()
    if weights_sha256(model) != folder.spec.weights_sha256:
        # Perhaps they were rounded when they were exported.
        model.half().float()
    if weights_sha256(model) != folder.spec.weights_sha256:
        raise ValueError(f"{folder.path} was exported from other weights than {weights}; name its own")
    return model
