"""Toy bundles with a small random refiner inside; exports are made once a run, since each takes seconds."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from engine.files.bundle import Bundle, EngineSpec, open_bundle
from engine.files.refiner import FOLDER, REFINER_FILE
from tests.refiner_cases import small_refiner

WINDOW = 3


def with_refiner(bundle: Bundle, folder: Path, shared: Path, by_default: bool = True) -> Bundle:
    """Copy a bundle and put a refiner of two blocks into it, in a segment each, which reads the world's own text.

    Args:
        folder: Of the copy.
        shared: Where exports are kept for the whole run.
    """
    shutil.copytree(bundle.path, folder)
    shutil.copytree(_exported(bundle.spec, shared), folder / FOLDER)
    if not by_default:
        described = json.loads((folder / FOLDER / REFINER_FILE).read_text())
        (folder / FOLDER / REFINER_FILE).write_text(json.dumps({**described, "by_default": False}))
    return open_bundle(folder)


def _exported(spec: EngineSpec, shared: Path) -> Path:
    """Return the refiner for a bundle's sizes; the first test that asks exports it."""
    from export.refiner.folder import export_refiner
    from export.refiner.graphs import Sizes

    made = shared / f"refiner-{spec.chunk_size}"
    if not made.exists():
        refiner = small_refiner(
            torch.float32,
            num_layers=2,
            in_channels=spec.latent_channels,
            out_channels=spec.latent_channels,
            caption_channels=spec.text_dim,
        )
        sizes = Sizes((spec.latent_height, spec.latent_width), spec.fps, spec.chunk_size, WINDOW)
        own = Path(tempfile.mkdtemp(dir=shared)) / FOLDER
        export_refiner(refiner, own, sizes, blocks_per_segment=1)
        # Another process may have been quicker; both made the same.
        with suppress(OSError):
            own.rename(made)
    return made
