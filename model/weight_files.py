"""Tensors in files from strangers: safetensors whole or in shards, and PyTorch containers; wrapped names made bare."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
MAX_INDEX_BYTES = 16 << 20
CONTAINER_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
"""Of what torch.save writes."""
CONTAINER_KEYS = ("generator", "state_dict", "model_state_dict", "model", "module")
"""Entries of a training container that may hold the weights, in the order of looking."""
LFS_MARK = b"version https://git-lfs.github.com/spec/"
"""Begins the few lines that stand for a file which Git LFS has not fetched."""
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that torch.compile, FSDP and activation checkpointing add."""
SHARD = re.compile(r"(.*)-\d+-of-(\d+)" + re.escape(SUFFIX))


def weight_files(path: Path) -> list[Path]:
    """List the safetensors files that hold one network's weights.

    Args:
        path: A file, an index, or a folder: there the files that its index names, the only file, or all shards of one.

    Raises:
        ValueError: It is not clear which they are, or one is missing.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed(path)
    if not path.is_dir():
        return [path]
    # Of variants, such as model.fp16, the plain one has the shortest name.
    if indices := sorted(_shown(path.glob(f"*{INDEX_SUFFIX}")), key=lambda file: (len(file.name), file.name)):
        return _indexed(indices[0])
    files = _shown(path.glob(f"*{SUFFIX}"))
    shards = [match for file in files if (match := SHARD.fullmatch(file.name)) is not None]
    sets = {match.groups() for match in shards}
    complete = len(shards) == len(files) and len(sets) == 1 and len(files) == int(next(iter(sets))[1])
    if not complete and (shards or len(files) != 1):
        raise ValueError(
            f"{path} holds {len(files)} {SUFFIX} files; one is needed, or all shards of one: fetch the weights again"
        )
    return files


def _shown(files: Iterable[Path]) -> list[Path]:
    """Sort files; hidden ones, such as the ._ twins that macOS writes, are left out."""
    return sorted(file for file in files if not file.name.startswith("."))


def _indexed(index: Path) -> list[Path]:
    check_fetched(index)
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError("it is too large for an index")
        homes = json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"]
        names = sorted({str(name) for name in homes.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot read {index}: {error}; fetch the index again") from None
    if not names:
        raise ValueError(f"cannot read {index}: it names no files; fetch the index again")
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{index} names {outside[0]!r} outside its folder; fetch the index again")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise ValueError(f"{index.parent} lacks {', '.join(missing)}; fetch the rest of the weights")
    return [index.parent / name for name in names]


def check_fetched(path: Path) -> None:
    """Refuse a file of which only the Git LFS pointer is there.

    Raises:
        ValueError: It is a pointer.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_MARK))
    except OSError:
        # Whoever reads the file says what is wrong with it.
        return
    if head == LFS_MARK:
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or download it"
        )


def bare_name(name: str) -> str:
    """Take off what data parallelism, compilation and sharding put into a tensor's name."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def bare_names(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Make the names of all tensors bare.

    Raises:
        ValueError: Two tensors would have the same name.
    """
    bare = {bare_name(name): tensor for name, tensor in weights.items()}
    if len(bare) != len(weights):
        raise ValueError(f"{source} holds the same weights twice, wrapped and bare; save one of them")
    return bare


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are no numbers; a network with them gives nothing but NaN.

    Raises:
        ValueError: A tensor holds NaN or infinity.
    """
    for name, tensor in weights.items():
        if tensor.is_meta or not tensor.is_floating_point():
            continue
        # Numbers of one byte have no test of their own.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if not torch.isfinite(values).all():
            raise ValueError(
                f"{source} holds NaN or infinity in {name}; take an earlier checkpoint, or fetch the file again"
            )


def read_safetensors(path: Path, shapes_only: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a file, of the shards of an index, or of a folder, and the metadata of the first file.

    Args:
        shapes_only: Read the headers alone, and give tensors on the meta device.

    Raises:
        ValueError: A file is missing or unreadable, or its numbers are not finite.
    """
    weights: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for number, file in enumerate(weight_files(path)):
        check_fetched(file)
        try:
            with safe_open(file, framework="pt") as opened:
                if number == 0:
                    metadata = opened.metadata() or {}
                for name in opened.keys():  # noqa: SIM118 (not a mapping)
                    if shapes_only:
                        weights[name] = torch.empty(opened.get_slice(name).get_shape(), device="meta")
                    else:
                        weights[name] = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"cannot read checkpoint {file}: {error}; give a {SUFFIX} file of a model"
            ) from None
    bare = bare_names(weights, str(path))
    check_finite(bare, str(path))
    return bare, metadata


def read_container(path: Path, shapes_only: bool = False) -> dict[str, Tensor]:
    """Read the weights of a training container (`model.pt`): a dict of tensors, bare or under one of CONTAINER_KEYS.

    Nothing is unpickled but tensors and plain containers.

    Args:
        shapes_only: Read no numbers, and give tensors on the meta device.

    Raises:
        ValueError: The file is unreadable, holds other things, or its numbers are not finite.
    """
    check_fetched(path)
    try:
        # Files from before PyTorch 1.6 are no archives and cannot be mapped.
        where, mapped = "meta" if shapes_only else "cpu", zipfile.is_zipfile(path) and not shapes_only
        content: Any = torch.load(path, map_location=where, weights_only=True, mmap=mapped)
    except Exception as error:
        # A hostile or cut file can make the reader raise nearly anything.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"cannot read checkpoint {path}: {reason}; give a file of tensors only, or convert it to safetensors"
        ) from None
    for key in CONTAINER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(
            f"checkpoint {path} holds no state dict of tensors; give the file with the generator's weights"
        )
    bare = bare_names(content, str(path))
    check_finite(bare, str(path))
    return bare
