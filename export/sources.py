"""What there is to export: a model and its decoder, by name or from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.autoencoder import Autoencoder, AutoencoderConfig, StreamingDecoder
from model.checkpoint import load_checkpoint
from model.config import ModelConfig, pocket, sana_wm
from model.transformer import WorldModel

PRESETS = {"pocket": pocket, "sana-wm": sana_wm}
AUTOENCODER_FILE = "autoencoder.safetensors"
"""Weights of the autoencoder, in the folder of the checkpoint."""
SEED = 0
"""Of random weights."""


def open_source(name: str, random_weights: bool) -> tuple[WorldModel, StreamingDecoder]:
    """Return a model and its streaming decoder, float32, in evaluation mode.

    Args:
        name: `pocket` or `sana-wm`, or the path of a checkpoint (.safetensors) with its autoencoder beside it.
        random_weights: Take a preset's sizes with weights drawn from a fixed seed.
    """
    if name in PRESETS:
        if not random_weights:
            raise ValueError(
                f"{name} names the sizes of a model, not its weights; name a checkpoint file, or add --random-weights"
            )
        torch.manual_seed(SEED)
        config = PRESETS[name]()
        autoencoder = _new_autoencoder(config)
        return WorldModel(config, fresh=True).eval(), StreamingDecoder(autoencoder).eval()
    path = Path(name)
    if random_weights:
        raise ValueError(f"--random-weights goes with {' or '.join(PRESETS)}, not with {name!r}")
    if not path.is_file():
        raise ValueError(f"there is no model {name!r}; use {', '.join(PRESETS)} or the path of a checkpoint")
    model = load_checkpoint(path, dtype=torch.float32).eval()
    autoencoder = _new_autoencoder(model.config)
    weights = path.parent / AUTOENCODER_FILE
    try:
        autoencoder.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"cannot use the autoencoder {weights}; it belongs beside the checkpoint it was trained with"
        ) from error
    return model, StreamingDecoder(autoencoder).eval()


def _new_autoencoder(config: ModelConfig) -> Autoencoder:
    sizes = AutoencoderConfig(config.in_channels, config.temporal_stride)
    if sizes.spatial_stride != config.spatial_stride:
        raise ValueError(
            f"there is no decoder for {config.name}, whose latents are {config.spatial_stride} pixels wide; "
            f"export a model of stride {sizes.spatial_stride}"
        )
    return Autoencoder(sizes)
