"""An autoencoder of any size from its weights alone: the sizes are told by their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.autoencoder import STEM, Autoencoder, AutoencoderConfig

AUTOENCODER_FILE = "autoencoder.safetensors"
"""Weights of the autoencoder, in the folder of the checkpoint."""
RGB = 3


def load_autoencoder_weights(path: Path) -> Autoencoder:
    """Read an autoencoder, fp32, in evaluation mode.

    Raises:
        ValueError: The file is missing, damaged, or no autoencoder's.
    """
    try:
        weights = load_file(path)
        model = Autoencoder(sizes_of(weights))
        model.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(":")
        raise ValueError(f"the autoencoder {path} cannot be used ({reason})") from None
    return model.eval()


def sizes_of(weights: Mapping[str, Tensor]) -> AutoencoderConfig:
    """Return the sizes of an autoencoder with such weights.

    Raises:
        KeyError: A tensor is missing.
        TypeError: A tensor is a single number.
        ValueError: The first convolution is no matrix.
    """
    width, stem = weights["encoder.conv_in.weight"].shape[:2]
    return AutoencoderConfig(
        latent_channels=len(weights["latents_mean"]),
        temporal_stride=stem // (RGB * STEM**2),
        width=width,
        deep_width=len(weights["encoder.down.weight"]),
        num_encoder_blocks=_num_blocks(weights, "encoder"),
        num_decoder_blocks=_num_blocks(weights, "decoder"),
    )


def _num_blocks(weights: Mapping[str, Tensor], half: str) -> tuple[int, int]:
    shallow, deep = (
        sum(name.startswith(f"{half}.{blocks}.") and name.endswith("norm.weight") for name in weights)
        for blocks in ("blocks", "deep_blocks")
    )
    return shallow, deep
