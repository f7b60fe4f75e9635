"""Safetensors files from strangers: the header is read and bounded before anything is allocated for what it announces.

Knows the layout of the container, not what the tensors mean.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from engine.errors import SpecMismatch
from engine.files.atomic import replacing

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
    """Where one tensor lies."""

    dtype: str
    """As safetensors calls it, one of DTYPES."""
    shape: tuple[int, ...]
    start: int
    """Offset from the beginning of the data."""

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
        self._stream = _open(path, kind)
        try:
            self._header, self._data_start = _read_header(self._stream, path, kind)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()

    def description(self) -> str:
        """Return the JSON text that says what the file is."""
        metadata = self._header.get("__metadata__")
        text = metadata.get(self._kind.metadata_key) if isinstance(metadata, dict) else None
        if not isinstance(text, str):
            raise SpecMismatch(
                f"{self.path} holds tensors but no {self._kind.noun}; "
                f"name one ending in {self._kind.suffix} that `flaneur` made"
            )
        return text

    def spans(self) -> dict[str, Span]:
        """Return where each tensor lies; together they fill the file, and none overlaps another."""
        damaged = self.not_laid_out()
        spans = {
            name: _span(entry, damaged) for name, entry in self._header.items() if name != "__metadata__"
        }
        ranges = sorted((span.start, span.start + span.num_bytes) for span in spans.values())
        if not ranges or ranges[0][0] != 0 or any(a[1] != b[0] for a, b in pairwise(ranges)):
            raise damaged
        if self._data_start + ranges[-1][1] != os.fstat(self._stream.fileno()).st_size:
            raise SpecMismatch(
                f"the {self._kind.noun} {self.path} is cut short or has a foreign tail; fetch or make it again"
            )
        return spans

    def not_laid_out(self) -> SpecMismatch:
        """Return the error for tensors of other names, types or places than ours."""
        return SpecMismatch(
            f"the tensors of the {self._kind.noun} {self.path} are not laid out as ours are; make it again"
        )

    def arrays(self, spans: Mapping[str, Span]) -> tuple[dict[str, NDArray[Any]], str]:
        """Read the tensors that `spans` found, once their shapes were judged; also the file's SHA-256."""
        self._stream.seek(0)
        raw = self._stream.read()
        arrays = {
            name: np.frombuffer(raw, DTYPES[span.dtype], math.prod(span.shape), self._data_start + span.start)
            .reshape(span.shape)
            .copy()
            for name, span in spans.items()
        }
        return arrays, hashlib.sha256(raw).hexdigest()

    def array(self, span: Span) -> NDArray[Any]:
        """Read one tensor that `spans` found, once its shape was judged."""
        self._stream.seek(self._data_start + span.start)
        return np.frombuffer(self._stream.read(span.num_bytes), DTYPES[span.dtype]).reshape(span.shape)


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


def _open(path: Path, kind: TensorFileKind) -> BinaryIO:
    """Open a file of bearable size; a pipe or device would block or never end."""
    if not path.is_file():
        raise SpecMismatch(f"there is no {kind.noun} file {path}; {kind.where_from}")
    if path.stat().st_size > kind.max_file_bytes:
        raise SpecMismatch(
            f"{path} is over {kind.max_file_bytes >> 20} MB, so it is no {kind.noun}; check the path"
        )
    return path.open("rb")


def _read_header(stream: BinaryIO, path: Path, kind: TensorFileKind) -> tuple[dict[str, Any], int]:
    """Return the header and the offset of the data behind it."""
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise SpecMismatch(
            f"{path} is not a {kind.noun} file; name one ending in {kind.suffix} that `flaneur` made"
        )
    raw = stream.read(length)
    if len(raw) < length:
        raise SpecMismatch(f"the {kind.noun} {path} is cut short; fetch or make it again")
    damaged = SpecMismatch(f"the header of {path} is damaged; fetch or make the {kind.noun} again")
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not isinstance(header, dict):
        raise damaged
    return header, 8 + length


def _span(entry: Any, damaged: SpecMismatch) -> Span:
    if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES:
        raise damaged
    shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise damaged
    span = Span(entry["dtype"], shape, offsets[0])
    if offsets[1] - offsets[0] != span.num_bytes:
        raise damaged
    return span


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return a short list of sizes as a tuple, None if it is anything else."""
    if not isinstance(value, list) or len(value) > MAX_AXES:
        return None
    if any(type(size) is not int or not 0 <= size < 1 << 40 for size in value):
        return None
    return tuple(value)
