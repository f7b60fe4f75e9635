"""NumPy files from strangers: sizes are checked before anything is allocated, and nothing is unpickled."""

from __future__ import annotations

import math
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

_HEADER_ERRORS = (
    *(ValueError, EOFError, SyntaxError, TypeError, Warning),
    *(TokenError, RecursionError, MemoryError),
)
"""What NumPy raises over a bad header; it is a Python literal, and a hostile one can exhaust the parser."""


def read_npy(path: Path, max_items: int) -> NDArray[np.generic]:
    """Read a .npy file of at most max_items numbers."""
    try:
        with path.open("rb") as file:
            return _read_array(file, max_items, str(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def read_npz(
    path: Path, required: Sequence[str], optional: Sequence[str], max_items: int
) -> dict[str, NDArray[np.generic]]:
    """Read the named arrays of a .npz file, each of at most max_items numbers; others are not touched."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
            if missing := [name for name in required if name not in members]:
                raise ValueError(
                    f"{path} has no array {missing[0]!r}; it has {', '.join(sorted(members)[:8])}"
                )
            arrays = {}
            for name in (*required, *optional):
                if name in members:
                    with archive.open(f"{name}.npy") as member:
                        arrays[name] = _read_array(member, max_items, f"{path} ({name})")
            return arrays
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, KeyError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npz file ({error}); save it again") from error


def _read_array(file: IO[bytes], max_items: int, source: str) -> NDArray[np.generic]:
    try:
        major, minor = npy_format.read_magic(file)
        if major not in (1, 2):
            raise ValueError(f"format version {major}.{minor} is unknown")
        read_header = npy_format.read_array_header_1_0 if major == 1 else npy_format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shape, fortran_order, dtype = read_header(_Bounded(file, 65536))
    except _HEADER_ERRORS as error:
        raise ValueError(
            f"{source} is not a NumPy array file; save it with numpy.save or numpy.savez"
        ) from error
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"{source} holds {dtype} data, not numbers; pickled objects are never loaded")
    num_items = math.prod(shape)
    if num_items > max_items or any(length < 1 for length in shape):
        raise ValueError(f"{source} holds an array of shape {shape}; 1 to {max_items} numbers are accepted")
    num_bytes = num_items * dtype.itemsize
    data = file.read(num_bytes)
    if len(data) != num_bytes:
        raise ValueError(f"{source} is cut short: {len(data)} of {num_bytes} bytes are there")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")


class _Bounded:
    """A file of which no more than so many bytes can be read, so that a header cannot claim gigabytes."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._left_bytes = max_bytes

    def read(self, num_bytes: int = -1, /) -> bytes:
        if not 0 <= num_bytes <= self._left_bytes:
            raise ValueError("the header is too long")
        self._left_bytes -= num_bytes
        return self._file.read(num_bytes)
