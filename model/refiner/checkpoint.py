"""Released weights of the refiner and its connectors: diffusers' folders, and the first release's single file."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.refiner.config import (
    ConnectorConfig,
    RefinerConfig,
    released_connectors,
    released_refiner,
)
from model.refiner.connectors import TextConnectors
from model.refiner.streaming import SIGMAS, Refiner
from model.weight_files import bare_name, check_fetched, check_finite, weight_files

AUDIO_MARKS = ("audio", "av_cross_attn", "av_ca", "a2v", "v2a")
"""Parts of the names of tensors that only sound needs."""
CONNECTOR_MARKS = ("video_connector", "text_proj_in")
"""Parts of the names of the connectors' tensors, which the first release keeps in the same file."""
ORIGINAL_NAMES = (
    (r"^(model\.)?diffusion_model\.", ""),
    (r"^patchify_proj\.", "proj_in."),
    (r"^adaln_single\.", "time_embed."),
    (r"\.q_norm\.", ".norm_q."),
    (r"\.k_norm\.", ".norm_k."),
    (r"^video_embeddings_connector\.", "video_connector."),
    (r"\btransformer_1d_blocks\.", "transformer_blocks."),
    (r"^text_embedding_projection\.aggregate_embed\.", "text_proj_in."),
)
"""Names of the first release, and what diffusers calls them."""
CONFIG = "refiner_config"
LEVELS = "refiner_sigmas"
"""Metadata of our own files."""
SHOWN = 8
"""Problems that a message lists."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Loaded(Generic[Module]):
    """A network with released weights."""

    model: Module
    num_audio_tensors: int
    """Tensors that were skipped because only sound needs them."""


def is_audio(name: str) -> bool:
    """Whether only sound needs a tensor."""
    return any(mark in name for mark in AUDIO_MARKS)


def diffusers_name(name: str) -> str:
    """Rename a tensor of the first release; diffusers' own names stay."""
    for pattern, replacement in ORIGINAL_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def from_diffusers(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> Refiner:
    """Build a refiner from the config and state dict of diffusers' `SanaWMLTX2RefinerTransformer3DModel`.

    It has the precision of the weights and shares them with the state dict; audio tensors are left out.

    Raises:
        ValueError: The config asks for what is not built, or the weights do not fit it.
    """
    return _fill("the refiner", _empty_refiner(RefinerConfig.from_dict(config)), state_dict).model


def connectors_from_diffusers(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> TextConnectors:
    """Build text connectors from the config and state dict of diffusers' `LTX2TextConnectors`.

    Raises:
        ValueError: The config asks for what is not built, or the weights do not fit it.
    """
    model = _empty_connectors(ConnectorConfig.from_dict(config))
    return _fill("the text connectors", model, state_dict).model


def load_refiner(path: Path, dtype: torch.dtype | None = None) -> Loaded[Refiner]:
    """Load a refiner from a folder (`config.json` and weights in one file or several), or from one file.

    Args:
        path: The folder, one that holds it as `transformer/`, or a `.safetensors` file: of `save_refiner`, which says its
            config, or the first release's, which has the released sizes.
        dtype: Precision of the weights; None keeps the file's.

    Raises:
        ValueError: A file is missing or unreadable, or does not fit.
    """
    path, is_file = _find(Path(path), "transformer")
    config, sigmas = (
        _said_within(path) if is_file else (RefinerConfig.from_file(path / "config.json"), SIGMAS)
    )
    tensors = _Files(path, lambda name: not any(mark in name for mark in CONNECTOR_MARKS))
    loaded = _fill(f"the refiner of {path}", _empty_refiner(config), tensors, dtype)
    loaded.model.sigmas = sigmas
    return loaded


def save_refiner(path: Path, refiner: Refiner) -> None:
    """Write a refiner into one file that says its config and its noise levels."""
    weights = {name: tensor.detach().contiguous() for name, tensor in refiner.state_dict().items()}
    said = {CONFIG: json.dumps(asdict(refiner.config)), LEVELS: json.dumps(refiner.sigmas)}
    save_file(weights, path, said)


def _said_within(file: Path) -> tuple[RefinerConfig, tuple[float, ...]]:
    """Read what a file says of its config and noise levels; those of the release where it says none."""
    check_fetched(file)
    try:
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read {file}: {error}; fetch the file again") from None
    if CONFIG not in said:
        return released_refiner(), SIGMAS
    try:
        levels = tuple(float(level) for level in json.loads(said.get(LEVELS, json.dumps(SIGMAS))))
        if not 0 < levels[0] < 1 or levels[-1] != 0 or any(b >= a for a, b in pairwise(levels)):
            raise ValueError(f"levels {levels} do not fall from below 1 to 0")
        return RefinerConfig.from_dict(json.loads(said[CONFIG])), levels
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{file} says no config of a refiner ({error}); fetch the file again") from None


def load_connectors(path: Path, dtype: torch.dtype | None = None) -> Loaded[TextConnectors]:
    """Load text connectors from a folder, one that holds it as `connectors/`, or the first release's file.

    Raises:
        ValueError: A file is missing or unreadable, or does not fit.
    """
    path, is_file = _find(Path(path), "connectors")
    config = released_connectors() if is_file else ConnectorConfig.from_file(path / "config.json")

    def belongs(name: str) -> bool:
        return not is_file or any(mark in name for mark in CONNECTOR_MARKS)

    return _fill(f"the connectors of {path}", _empty_connectors(config), _Files(path, belongs), dtype)


def _empty_refiner(config: RefinerConfig) -> Refiner:
    with torch.device("meta"):
        return Refiner(config).eval()


def _empty_connectors(config: ConnectorConfig) -> TextConnectors:
    with torch.device("meta"):
        return TextConnectors(config).eval()


def _find(path: Path, part: str) -> tuple[Path, bool]:
    """Find where a part lies, and whether that is a file."""
    if path.is_file():
        return path, True
    if (path / "config.json").is_file():
        return path, False
    if (path / part / "config.json").is_file():
        return path / part, False
    raise ValueError(
        f"{path} holds no {part}; give a folder with its config.json, or the release's refiner.safetensors"
    )


class _Files(Mapping[str, Tensor]):
    """The tensors of a file or folder under diffusers' names, each read when asked for."""

    def __init__(self, path: Path, belongs: Callable[[str], bool]) -> None:
        self._homes: dict[str, tuple[Path, str]] = {}
        for file in weight_files(path):
            for stored in _names(file):
                name = diffusers_name(bare_name(stored))
                if belongs(name):
                    self._homes[name] = (file, stored)

    def __getitem__(self, name: str) -> Tensor:
        file, stored = self._homes[name]
        try:
            with safe_open(file, framework="pt") as opened:
                return opened.get_tensor(stored)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"cannot read {stored} in {file}: {error}; fetch the file again") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def _names(file: Path) -> list[str]:
    check_fetched(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read {file}: {error}; fetch the file again") from None


def _fill(
    what: str, model: Module, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> Loaded[Module]:
    """Put tensors under diffusers' names into a model on the meta device; audio tensors are counted and left out."""
    wanted = model.state_dict()
    heard = sum(is_audio(name) for name in tensors)
    problems: dict[str, list[str]] = defaultdict(list)
    problems["missing"] = [name for name in wanted if name not in tensors]
    problems["left over"] = [name for name in tensors if name not in wanted and not is_audio(name)]
    ours: dict[str, Tensor] = {}
    for name in wanted.keys() & tensors.keys():
        tensor = tensors[name]
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            problems["of another shape"].append(f"{name} ({shapes})")
        elif not tensor.is_floating_point():
            problems["no floating-point numbers"].append(name)
        else:
            ours[name] = tensor if dtype is None else tensor.to(dtype)
    if found := [_listed(kind, names) for kind, names in problems.items() if names]:
        raise ValueError(f"weights do not fit {what}: {'; '.join(found)}; use the config.json they came with")
    check_finite(ours, what)
    model.load_state_dict(ours, assign=True)
    return Loaded(model, heard)


def _listed(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind}: {', '.join(names[:SHOWN])}{more}"
