"""Training state that many processes write together, each its own part, and any number of them read again.

A state is a folder of safetensors files and, beside it, a JSON file that names the folder and holds everything that is no tensor.
The JSON file is replaced when a new folder is complete, so whatever breaks off the writing leaves the former state.
"""

from __future__ import annotations

import shutil
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, empty

from engine.files.atomic import replacing
from training.checkpoint import tree_of, without_tensors


class StateIndex(BaseModel):
    """What the JSON file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    number: int
    """Of the folder; one more than that of the state before."""
    tree: dict[str, Any]
    """The state, tensors left out."""
    shared: tuple[str, ...]
    """Names of the tensors of which every process held a part."""
    scalars: tuple[str, ...]
    """Names of the tensors without dimensions, which are stored with one."""


def folder_of(index_path: Path, number: int) -> Path:
    """Where the tensors of a state lie."""
    return index_path.with_name(f"{index_path.stem}.{number}")


def read_index(path: Path) -> StateIndex:
    """Read the JSON file.

    Raises:
        ValueError: It is damaged or of another version.
    """
    try:
        return StateIndex.model_validate_json(path.read_bytes())
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"{path} is damaged ({reason}); delete it to start the stage again") from error


def read_shared_values(path: Path) -> dict[Any, Any]:
    """Read a state's JSON values alone; tensors are None.

    Raises:
        ValueError: The file is damaged or of another version.
    """
    return tree_of(read_index(path).tree, defaultdict(lambda: None))


def save_shards(path: Path, tree: dict[Any, Any]) -> None:
    """Write a tree of tensors and JSON values; all processes must call, and see the same folder.

    Raises:
        ValueError: The disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = without_tensors(tree, "", tensors)
    shared = tuple(name for name, tensor in tensors.items() if isinstance(tensor, DTensor))
    scalars = tuple(name for name, tensor in tensors.items() if not tensor.ndim)
    for name in scalars:
        tensors[name] = tensors[name].reshape(1)
    old = read_index(path).number if path.exists() else 0
    folder = folder_of(path, old + 1)
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    if is_first:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    _wait()
    try:
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        state_dict_saver.save(tensors, storage_writer=writer)
    except (OSError, SafetensorError, CheckpointException) as error:
        raise ValueError(f"cannot write {folder}: {error}; free some space or name another place") from error
    if is_first:
        index = StateIndex(number=old + 1, tree=skeleton, shared=shared, scalars=scalars)
        with replacing(path) as temporary:
            temporary.write_text(index.model_dump_json())
        shutil.rmtree(folder_of(path, old), ignore_errors=True)
    _wait()


def load_shards(path: Path, mesh: DeviceMesh | None = None) -> dict[Any, Any]:
    """Read what `save_shards` wrote, whatever number of processes that was.

    Args:
        mesh: Processes that share the tensors which were shared; one process alone holds all of them.

    Raises:
        ValueError: A file is damaged, missing or of another version.
    """
    index = read_index(path)
    folder = folder_of(path, index.number)
    try:
        reader = HuggingFaceStorageReader(str(folder))
        tensors: dict[str, Tensor] = {}
        for name, kind in reader.read_metadata().state_dict_metadata.items():
            assert isinstance(kind, TensorStorageMetadata)
            if mesh is not None and name in index.shared:
                dtype = kind.properties.dtype
                tensors[name] = empty(kind.size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
            else:
                tensors[name] = torch.empty(kind.size, dtype=kind.properties.dtype)
        with warnings.catch_warnings():
            # One process that reads on its own is what is meant.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            state_dict_loader.load(tensors, storage_reader=reader, no_dist=mesh is None)
        for name in index.scalars:
            tensors[name] = tensors[name].reshape(())
        return tree_of(index.tree, tensors)
    except (OSError, SafetensorError, CheckpointException, KeyError) as error:
        raise ValueError(f"{folder} is damaged ({error}); delete {path} to start the stage again") from error


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
