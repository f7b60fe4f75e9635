"""Safetensors files that may be untrusted: what they announce is bounded and judged before it is allocated.

Knows what a file says of itself and of its tensors, not what they mean.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engine.errors import SpecMismatch
from engine.files.atomic import replacing
from engine.files.git_lfs import check_fetched

MAX_HEADER_BYTES = 1 << 20
MAX_AXES = 8
DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "|u1"}


@dataclass(frozen=True)
class TensorFileKind:
    """One kind of file, as its errors call it."""

    noun: str
    """As in "world"."""
    suffix: str
    metadata_key: str
    """Entry of the metadata that holds the description, JSON."""
    max_file_bytes: int
    where_from: str
    """What to do when there is no such file, as in "`flaneur world list` names the worlds there are"."""


@dataclass(frozen=True)
class Span:
    """Type and shape of one tensor."""

    dtype: str
    """As safetensors calls it, one of DTYPES."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize


class TensorFile:
    """A file whose header was read and found sound; nothing else is in memory yet."""

    def __init__(self, path: Path, kind: TensorFileKind) -> None:
        """Open the file and read its header.

        Raises:
            SpecMismatch: It is not there, not of this kind, or damaged, in one sentence.
            OSError: It cannot be read.
        """
        self.path = path
        self._kind = kind
        _check_size(path, kind)
        try:
            self._file = safe_open(path, framework="numpy")
        except SafetensorError as error:
            raise SpecMismatch(
                f"the {kind.noun} {path} is damaged, cut short or has a foreign tail; fetch or make it again"
            ) from error

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)

    def description(self) -> str:
        """Return the JSON text that says what the file is."""
        text = (self._file.metadata() or {}).get(self._kind.metadata_key)
        if text is None:
            raise SpecMismatch(
                f"{self.path} holds tensors but no {self._kind.noun}; "
                f"name one ending in {self._kind.suffix} that `flaneur` made"
            )
        return text

    def spans(self) -> dict[str, Span]:
        """Return type and shape of each tensor; together they fill the file, and none overlaps another."""
        spans: dict[str, Span] = {}
        for name in self._file.keys():  # noqa: SIM118 (no mapping)
            view = self._file.get_slice(name)
            spans[name] = Span(view.get_dtype(), tuple(view.get_shape()))
        if not spans or any(s.dtype not in DTYPES or len(s.shape) > MAX_AXES for s in spans.values()):
            raise self.not_laid_out()
        return spans

    def not_laid_out(self) -> SpecMismatch:
        """Return the error for tensors of other names, types or places than ours."""
        return SpecMismatch(
            f"the tensors of the {self._kind.noun} {self.path} are not laid out as ours are; make it again"
        )

    def arrays(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Read tensors, once their spans were judged."""
        return {name: self._file.get_tensor(name) for name in names}

    def sha256(self) -> str:
        """Return the hash of the whole file."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def encode_tensors(arrays: Mapping[str, NDArray[Any]], kind: TensorFileKind, description: str) -> bytes:
    """Return a file's content; equal arrays and descriptions give equal bytes."""
    return save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        {kind.metadata_key: description},
    )


def write_tensors(path: Path, content: bytes, kind: TensorFileKind) -> None:
    """Write a file's content; it appears whole or not at all."""
    if path.suffix != kind.suffix:
        raise ValueError(f"a {kind.noun} file ends in {kind.suffix}, got {path.name}")
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _check_size(path: Path, kind: TensorFileKind) -> None:
    """Refuse a pipe or device, which would block or never end, and a file or header of unbearable size."""
    if not path.is_file():
        raise SpecMismatch(f"there is no {kind.noun} file {path}; {kind.where_from}")
    if path.stat().st_size > kind.max_file_bytes:
        raise SpecMismatch(
            f"{path} is over {kind.max_file_bytes >> 20} MB, so it is no {kind.noun}; check the path"
        )
    check_fetched(path)
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise SpecMismatch(
            f"{path} is not a {kind.noun} file; name one ending in {kind.suffix} that `flaneur` made"
        )
