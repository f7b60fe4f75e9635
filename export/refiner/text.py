"""A prompt as the refiner reads it: all hidden states of a Gemma-3 through the text connectors, once per world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.text import load_text_encoder
from model.refiner import load_connectors

TEXT_LENGTH = 1024
"""Tokens, registers included."""
ENCODER = "gemma-3-12b-it"
ENCODER_FOLDERS = ("text_encoder", "gemma3_12b", ENCODER)
"""Names of the text encoder's folder in the releases, beside the connectors' or one folder above."""


@dataclass(frozen=True)
class RefinerTextFolders:
    """Where the parts lie that turn a prompt into the refiner's text."""

    connectors: Path
    """A folder that holds `connectors/`, or the first release's file."""
    text_encoder: Path


def find_text_folders(refiner: Path) -> RefinerTextFolders:
    """Find connectors and text encoder from a release's refiner folder, or its single file.

    Raises:
        ValueError: One of them is not there.
    """
    home = refiner.parent if refiner.is_file() else refiner
    if not refiner.is_file() and not (refiner / "connectors" / "config.json").is_file():
        raise ValueError(f"{refiner} holds no connectors/config.json; name the release's refiner folder")
    for folder in (parent / name for parent in (home, home.parent) for name in ENCODER_FOLDERS):
        if (folder / "config.json").is_file():
            return RefinerTextFolders(refiner, folder)
    raise ValueError(f"{home} has no text encoder; put {ENCODER} into {home / ENCODER_FOLDERS[0]}")


@torch.no_grad()
def encode_refiner_text(
    prompt: str,
    folders: RefinerTextFolders,
    length: int = TEXT_LENGTH,
    dtype: torch.dtype = torch.bfloat16,
) -> NDArray[np.float32]:
    """Encode a prompt for the refiner: [length, D], every token of which counts.

    The text encoder is gone before the connectors are read; the values are those that float16 holds, as world files do.

    Args:
        dtype: Precision of the text encoder; the connectors run in float32.

    Raises:
        ValueError: A file is missing or damaged, or the two do not fit.
    """
    encoder = load_text_encoder(folders.text_encoder, dtype, ENCODER)
    width, states = encoder.width, encoder.num_hidden_states
    hidden_states, mask = encoder.all_hidden_states(prompt, length)
    del encoder
    connectors = load_connectors(folders.connectors, torch.float32).model
    wanted = (connectors.config.caption_channels, connectors.config.text_proj_in_factor)
    if (width, states) != wanted:
        raise ValueError(
            f"the text encoder in {folders.text_encoder} gives {states} hidden states of {width} numbers, the connectors read "
            f"{wanted[1]} of {wanted[0]}; fetch {ENCODER}"
        )
    text, _ = connectors(hidden_states, mask)
    return text[0].half().float().numpy()
