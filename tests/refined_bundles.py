"""Toy bundles with a small random refiner inside."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from engine.files.bundle import Bundle, open_bundle
from engine.files.refiner import FOLDER
from tests.refiner_cases import small_refiner


def with_refiner(
    bundle: Bundle, folder: Path, window: int = 3, blocks_per_segment: int = 2, by_default: bool = True
) -> Bundle:
    """Copy a bundle and export a refiner of two blocks into it, which reads the world's own text."""
    from export.refiner.folder import export_refiner
    from export.refiner.graphs import Sizes

    spec = bundle.spec
    shutil.copytree(bundle.path, folder)
    refiner = small_refiner(
        torch.float32,
        num_layers=2,
        in_channels=spec.latent_channels,
        out_channels=spec.latent_channels,
        caption_channels=spec.text_dim,
    )
    sizes = Sizes((spec.latent_height, spec.latent_width), spec.fps, spec.chunk_size, window)
    export_refiner(
        refiner, folder / FOLDER, sizes, blocks_per_segment=blocks_per_segment, by_default=by_default
    )
    return open_bundle(folder)
