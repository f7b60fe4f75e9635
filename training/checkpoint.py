"""Training state on disk: a tree of tensors and JSON values in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.files.atomic import replacing

FORMAT_VERSION = 1


def save_state(path: Path, tree: dict[Any, Any]) -> None:
    """Write a tree of dicts and lists whose leaves are tensors or JSON values; a crash leaves the old file whole.

    Raises:
        ValueError: The disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = without_tensors(tree, "", tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"tree": json.dumps(skeleton), "format_version": str(FORMAT_VERSION)}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
    except SafetensorError as error:
        raise ValueError(f"cannot write {path}: {error}; free some space or name another place") from error


def load_state(path: Path) -> dict[Any, Any]:
    """Read what `save_state` wrote.

    Raises:
        ValueError: The file is damaged or of another version.
    """
    return _read(path, lambda file, key: file.get_tensor(key))


def _read(path: Path, tensor: Callable[[Any, str], Tensor | None]) -> dict[Any, Any]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format_version") != str(FORMAT_VERSION):
                raise ValueError(
                    f"{path} is no training state of version {FORMAT_VERSION}; delete it to start the stage again"
                )
            return tree_of(json.loads(metadata["tree"]), {key: tensor(file, key) for key in file.keys()})  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to start the stage again") from error


def read_values(path: Path) -> dict[Any, Any]:
    """Read a state's JSON values alone, which takes no time; tensors are None.

    Raises:
        ValueError: The file is damaged or of another version.
    """
    return _read(path, lambda file, key: None)


def without_tensors(node: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Move tensors out of a tree of dicts and lists into `tensors`; each leaves its key behind as {"tensor": key}."""
    if isinstance(node, Tensor):
        tensors[prefix] = node.detach().clone().contiguous()
        return {"tensor": prefix}
    if isinstance(node, dict):
        # Integer keys (optimiser states) would become strings in JSON, so keys are stored as pairs.
        return {
            "pairs": [
                [key, without_tensors(value, f"{prefix}/{key}", tensors)] for key, value in node.items()
            ]
        }
    if isinstance(node, list | tuple):
        return {"items": [without_tensors(value, f"{prefix}/{n}", tensors) for n, value in enumerate(node)]}
    return {"value": node}


def tree_of(node: dict[str, Any], tensors: Mapping[str, Tensor | None]) -> Any:
    """Put the tensors back that `without_tensors` took out."""
    if "tensor" in node:
        return tensors[node["tensor"]]
    if "pairs" in node:
        return {key: tree_of(value, tensors) for key, value in node["pairs"]}
    if "items" in node:
        return [tree_of(value, tensors) for value in node["items"]]
    return node["value"]


def random_state() -> dict[str, Any]:
    """The state of torch's generator, to continue a run exactly."""
    return {"torch": torch.get_rng_state()}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` gave."""
    torch.set_rng_state(state["torch"])
