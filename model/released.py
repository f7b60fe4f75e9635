"""Folders of released weights: which file is the network, and its sizes, which official files do not state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import from_diffusers, from_official, load_checkpoint, stored_config
from model.config import ModelConfig, sana_wm
from model.diffusers_format import RAY_CHANNELS, config_from_diffusers
from model.weight_files import CONTAINER_SUFFIXES, read_container, read_safetensors
from model.world_model import WorldModel

STUDENT = Path("sana_dit") / "model.pt"
"""The streaming student of the release."""
CONFIG_FILE = "config.json"
"""Of a network as diffusers saves it."""
NETWORK_FOLDERS = ("transformer", "dit")
"""Of diffusers, and of the releases that are not for streaming."""


def network_file(folder: Path) -> Path:
    """Find the network in a released folder: the streaming student's file, or the folder that holds the weights.

    Raises:
        ValueError: There is none.
    """
    if (folder / STUDENT).is_file():
        return folder / STUDENT
    for name in NETWORK_FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    raise ValueError(
        f"{folder} holds no network ({STUDENT.as_posix()}, {' or '.join(NETWORK_FOLDERS)}); "
        "name the folder of a release"
    )


def network_config(path: Path) -> ModelConfig:
    """Tell the sizes of a network of `network_file` without reading its numbers.

    Official files state none: they are told from shapes, and what shapes do not show is the released model's.

    Raises:
        ValueError: It is unreadable, or no network of this kind.
    """
    if (path / CONFIG_FILE).is_file():
        return config_from_diffusers(_read_config(path))
    if path.suffix in CONTAINER_SUFFIXES:
        weights, metadata = read_container(path, shapes_only=True), {}
    else:
        weights, metadata = read_safetensors(path, shapes_only=True)
    if (config := stored_config(metadata, path)) is not None:
        return config
    try:
        return sizes_of(from_official(weights))
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is no SANA-WM network: it lacks {error}; fetch it again") from None


def open_network(path: Path) -> WorldModel:
    """Open a network of `network_file`, in the precision of its file, in evaluation mode.

    Raises:
        ValueError: It is unreadable, or no network of this kind.
    """
    if (path / CONFIG_FILE).is_file():
        return from_diffusers(_read_config(path), read_safetensors(path)[0]).eval()
    return load_checkpoint(path, network_config(path)).eval()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {folder / CONFIG_FILE}: {error}; fetch it again") from None


def sizes_of(weights: Mapping[str, Tensor]) -> ModelConfig:
    """Tell a config from weights under our names.

    Raises:
        KeyError: A tensor is missing.
    """
    released = sana_wm()
    size, channels = weights["x_embedder.proj.weight"].shape[:2]
    num_layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    softmax = [layer for layer in range(num_layers) if f"blocks.{layer}.attn.conv_k.weight" not in weights]
    text = weights["y_embedder.y_proj.fc1.weight"]
    return replace(
        released,
        in_channels=channels,
        hidden_size=size,
        num_heads=len(weights["blocks.0.attn.beta_proj.weight"]),
        num_layers=num_layers,
        mlp_ratio=len(weights["blocks.0.mlp.inverted_conv.conv.weight"]) / 2 / size,
        softmax_every_n=softmax[0] + 1 if softmax else num_layers + 1,
        text_dim=text.shape[1],
        text_length=len(weights["y_embedder.y_embedding"]),
        temporal_stride=weights["plucker_embedder.proj.weight"].shape[1] // RAY_CHANNELS,
    )
