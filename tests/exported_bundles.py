"""A tiny model's bundle, and toy bundles with a small refiner inside; exports are made once a run, since each takes seconds."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.files.bundle import Bundle, EngineSpec, open_bundle
from engine.files.refiner import FOLDER, REFINER_FILE
from model.config import tiny
from model.world_model import WorldModel
from tests.models import SmallDecoder, random_model
from tests.refiner_cases import small_refiner

WINDOW = 3
TINY = replace(tiny(), num_layers=2, softmax_every_n=2, spatial_stride=16, frame_height=32, frame_width=48)


def tiny_model() -> WorldModel:
    """Return what `tiny_bundle` is exported from, with `tiny_decoder`."""
    torch.manual_seed(0)
    return random_model(TINY)


def tiny_decoder() -> SmallDecoder:
    torch.manual_seed(1)
    return SmallDecoder(TINY).eval()


def tiny_bundle(shared: Path) -> Bundle:
    """Open the bundle of a model of two blocks, a linear and a softmax one; nobody may write into it.

    Args:
        shared: Where exports are kept for the whole run.
    """
    from export.onnx import export_bundle

    def export(folder: Path) -> None:
        export_bundle(tiny_model(), tiny_decoder(), folder, timesteps=(1000, 500), notes="a test")

    return open_bundle(_made_once(shared, "tiny", export))


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

    def export(folder: Path) -> None:
        refiner = small_refiner(
            torch.float32,
            num_layers=2,
            in_channels=spec.latent_channels,
            out_channels=spec.latent_channels,
            caption_channels=spec.text_dim,
        )
        sizes = Sizes((spec.latent_height, spec.latent_width), spec.fps, spec.chunk_size, WINDOW)
        export_refiner(refiner, folder, sizes, blocks_per_segment=1)

    return _made_once(shared, f"refiner-{spec.chunk_size}", export)


def _made_once(shared: Path, name: str, export: Callable[[Path], None]) -> Path:
    made = shared / name
    if not made.exists():
        own = Path(tempfile.mkdtemp(dir=shared)) / name
        export(own)
        # Another process may have been quicker; both made the same.
        with suppress(OSError):
            own.rename(made)
    return made


def graphs_kept_in(folder: Path) -> Callable[..., None]:
    """Return what may stand for `export.onnx.write_graph`: graphs of the same module and weights are exported once.

    Args:
        folder: Where they are kept, for as many processes as there are, one after the other.
    """
    from export.onnx import write_graph

    def write(module: nn.Module, example: tuple[Tensor, ...], path: Path, *others: Any, **named: Any) -> None:
        digest = hashlib.sha256(f"{type(module).__name__} {[tensor.shape for tensor in example]}".encode())
        for name, tensor in module.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        kept = _made_once(
            folder,
            f"{digest.hexdigest()}.onnx",
            lambda own: write_graph(module, example, own, *others, **named),
        )
        shutil.copyfile(kept, path)

    return write
