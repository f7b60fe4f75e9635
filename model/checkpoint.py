"""Model weights on disk: safetensors with the config as JSON metadata, official key names in and out."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.config import ModelConfig
from model.diffusers_format import config_from_diffusers, weights_from_diffusers
from model.vae.ltx import LtxAutoencoder
from model.vae.ltx_config import LtxAutoencoderConfig
from model.weight_files import CONTAINER_SUFFIXES, bare_name, read_container, read_safetensors
from model.world_model import WorldModel

CONFIG_KEY = "model_config"
"""Metadata entry that holds the config."""
UNUSED_KEYS = frozenset({"pos_embed"})
"""Official tensors that no part of the network reads."""
POINTWISE = {
    "x_embedder.proj.weight": 5,
    "plucker_embedder.proj.weight": 5,
    "raymap_embedder.proj.weight": 5,
    "mlp.inverted_conv.conv.weight": 4,
    "mlp.point_conv.conv.weight": 4,
}
"""Linear weights that the official file stores as 1x1 convolutions, by the end of their key, with that rank."""


def to_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give linear layers the convolution shapes of the official file."""
    return {name: _as_convolution(name, tensor) for name, tensor in weights.items()}


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    for end, rank in POINTWISE.items():
        if name.endswith(end) and tensor.ndim < rank:
            return tensor.reshape(*tensor.shape, *[1] * (rank - tensor.ndim))
    return tensor


def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn an official state dict, with or without a `model.` prefix and those of wrappers, into ours."""
    named = {bare_name(bare_name(name).removeprefix("model.")): tensor for name, tensor in weights.items()}
    return {
        name: tensor.flatten(1) if any(name.endswith(end) for end in POINTWISE) else tensor
        for name, tensor in named.items()
        if name not in UNUSED_KEYS
    }


def load_weights(model: WorldModel, weights: Mapping[str, Tensor]) -> None:
    """Put official weights into a model, which may be on the meta device.

    Raises:
        ValueError: A key is missing or unknown, or a shape differs.
    """
    ours = from_official(weights)
    _check_fit(f"the {model.config.name} model", model.state_dict(), ours)
    model.load_state_dict(ours, assign=any(tensor.is_meta for tensor in model.parameters()))


def _check_fit(what: str, wanted: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    problems = [
        *(f"missing {name}" for name in wanted if name not in ours),
        *(f"unexpected {name}" for name in ours if name not in wanted),
        *(
            f"{name} is {tuple(ours[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in ours and ours[name].shape != tensor.shape
        ),
        *(
            f"{name} holds {ours[name].dtype}"
            for name in wanted
            if name in ours and not ours[name].is_floating_point()
        ),
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(f"weights do not fit {what}: {shown}; use the config they came with")


def weights_sha256(model: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Hash names and values of all weights, whatever file they came from; in `dtype`, or in their own precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().to(dtype or tensor.dtype).cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.view(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()


def save_checkpoint(model: WorldModel, path: Path) -> None:
    """Write weights under their official names, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {n: t.detach().contiguous().cpu() for n, t in to_official(model.state_dict()).items()}
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    try:
        save_file(weights, partial, metadata={CONFIG_KEY: json.dumps(model.config.to_dict())})
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def from_diffusers(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> WorldModel:
    """Build a model from the config and state dict of diffusers' `SanaWMTransformer3DModel`.

    The result's bidirectional `forward` gives what that class gives for the same inputs, in the precision of the weights,
    which it shares with the state dict.

    Raises:
        ValueError: The config asks for what is not built, or the weights do not fit it.
    """
    ours = config_from_diffusers(config)
    with torch.device("meta"):
        model = WorldModel(ours)
    load_weights(model, weights_from_diffusers(ours, state_dict))
    return model


def stored_config(metadata: Mapping[str, str], path: Path) -> ModelConfig | None:
    """Return the config that a file of ours holds, None for other files.

    Raises:
        ValueError: It cannot be used.
    """
    if (stored := metadata.get(CONFIG_KEY)) is None:
        return None
    try:
        return ModelConfig.from_dict(json.loads(stored))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"the config in {path} cannot be used: {error}; save the model again") from None


def load_checkpoint(
    path: Path, config: ModelConfig | None = None, dtype: torch.dtype | None = None
) -> WorldModel:
    """Build a model from a file: ours, or an official one (`.safetensors`, or a `.pt` training container).

    Args:
        path: The file; the index of shards or their folder may stand for them.
        config: For official files, which carry none; a stored config wins.
        dtype: Precision of the weights; None keeps the file's.

    Raises:
        ValueError: The file is unreadable, has no config, or does not fit it.
    """
    path = Path(path)
    if path.suffix in CONTAINER_SUFFIXES:
        weights = read_container(path)
    else:
        weights, metadata = read_safetensors(path)
        config = stored_config(metadata, path) or config
    if config is None:
        raise ValueError(f"checkpoint {path} holds no model config; name the config to read it with")
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    with torch.device("meta"):
        model = WorldModel(config)
    load_weights(model, weights)
    return model


def load_ltx_autoencoder(folder: Path, dtype: torch.dtype | None = None) -> LtxAutoencoder:
    """Load an LTX-2 autoencoder from a folder as diffusers saves it: `config.json` and weights, in one file or in shards.

    Args:
        dtype: Precision of the weights; None keeps the file's.

    Raises:
        ValueError: A file is missing or unreadable, or the two do not fit.
    """
    folder = Path(folder)
    config = LtxAutoencoderConfig.from_file(folder / "config.json")
    weights, _ = read_safetensors(folder)
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    with torch.device("meta"):
        model = LtxAutoencoder(config)
    _check_fit("the autoencoder", model.state_dict(), weights)
    model.load_state_dict(weights, assign=True)
    return model.eval()
