"""What there is to export: a model and its decoder, by name or from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.machine.assets import bundle_names, checkpoints_dir, find_bundle
from model.checkpoint import load_checkpoint
from model.config import pocket, sana_wm
from model.decoders import decoder_beside, new_decoder
from model.vae.guided import StreamingEncoder
from model.world_model import WorldModel

PRESETS = {"pocket": pocket, "sana-wm": sana_wm}
SEED = 0
"""Of random weights."""
RANDOM_WEIGHTS = "random weights"
"""What the description of a bundle made from them notes."""


def open_source(
    name: str, random_weights: bool, frame_size: tuple[int, int] | None = None
) -> tuple[WorldModel, nn.Module]:
    """Return a model and its streaming decoder, float32, in evaluation mode.

    Args:
        name: `pocket` or `sana-wm`, or the path of a checkpoint with its autoencoder beside it: `autoencoder.safetensors`, or
            for the released model a folder `vae` or `ltx2_causal_vae` there or one level up.
        random_weights: Take a preset's sizes with weights drawn from a fixed seed.
        frame_size: Width and height to generate at, pixels; the weights fit all. None keeps the model's own.

    Raises:
        ValueError: There is no such model, or its latents do not divide such frames.
    """
    model, decoder = _open_source(name, random_weights)
    # Without gradients nothing needs to be copied before it is exported.
    for module in (model, decoder):
        module.requires_grad_(False)
    if frame_size is not None:
        width, height = frame_size
        model.config = replace(model.config, frame_width=width, frame_height=height)
    return model, decoder


def shipped(model: str, random_weights: bool) -> tuple[str, list[float] | None]:
    """Return the checkpoint that a name stands for, and the schedule of its bundle, where both come with Flaneur."""
    checkpoint = checkpoints_dir() / f"{model}.safetensors"
    if random_weights or model not in bundle_names() or not checkpoint.is_file():
        return model, None
    return str(checkpoint), list(find_bundle(model, verify=False).spec.timesteps)


def _open_source(name: str, random_weights: bool) -> tuple[WorldModel, nn.Module]:
    if name in PRESETS:
        if not random_weights:
            raise ValueError(
                f"{name} names the sizes of a model, not its weights; name a checkpoint file, or add --random-weights"
            )
        torch.manual_seed(SEED)
        config = PRESETS[name]()
        decoder = new_decoder(config)
        return WorldModel(config, fresh=True).eval(), decoder
    path = Path(name)
    if random_weights:
        raise ValueError(f"--random-weights goes with {' or '.join(PRESETS)}, not with {name!r}")
    if not path.exists():
        raise ValueError(f"there is no model {name!r}; use {', '.join(PRESETS)} or the path of a checkpoint")
    # Official files carry no config, and there is one released model.
    model = load_checkpoint(path, sana_wm(), torch.float32).eval()
    return model, decoder_beside(path, model.config)


def depth_graph_beside(model: str) -> Path | None:
    """The depth graph of the bundle that a name stands for; None where that bundle has none, or no bundle has that name."""
    if model not in bundle_names():
        return None
    bundle = find_bundle(model, verify=False)
    return None if bundle.spec.depth_graph is None else bundle.path / bundle.spec.depth_graph


def picture_encoder(encoder: StreamingEncoder | None) -> Callable[[NDArray[np.uint8]], Tensor] | None:
    """An encoder as a function of frames [R, H, W, 3] to a latent [1, C, 1, h, w]; None for none."""
    if encoder is None:
        return None
    return lambda frames: encoder(torch.from_numpy(np.ascontiguousarray(frames)))
