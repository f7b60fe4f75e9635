"""NumPy files: untrusted ones are read within bounds and never unpickled, frames are written chunk by chunk."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from engine.files.atomic import replacing
from engine.files.git_lfs import check_fetched

Order = Literal["C", "F"]
MAX_WORD_BYTES = 4096
"""Longest word in an array of words."""
_HEADER_ERRORS = (
    *(ValueError, EOFError, SyntaxError, TypeError, Warning),
    *(TokenError, RecursionError, MemoryError),
)
"""What NumPy raises over a bad header; it is a Python literal, and an untrusted one can exhaust the parser."""


def read_npy(path: Path, max_items: int) -> NDArray[np.generic]:
    """Read a .npy file of at most max_items numbers."""
    check_fetched(path, ValueError)
    try:
        with path.open("rb") as file:
            return _read_array(file, max_items, str(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def read_npz(
    source: Path | bytes,
    required: Sequence[str],
    optional: Sequence[str],
    max_items: int,
    text: Sequence[str] = (),
    name: str = "",
) -> dict[str, NDArray[np.generic]]:
    """Read the named arrays of a .npz file, each of at most max_items numbers; others are not touched.

    Args:
        source: The file, or its content.
        text: Those of the named arrays that hold words instead of numbers.
        name: What errors call the content of a file.
    """
    with _open_npz(source, name) as (archive, name):
        members = {member.removesuffix(".npy") for member in archive.namelist()}
        if missing := [array for array in required if array not in members]:
            raise ValueError(f"{name} has no array {missing[0]!r}; it has {', '.join(sorted(members)[:8])}")
        arrays = {}
        for array in (*required, *optional):
            if array in members:
                with archive.open(f"{array}.npy") as member:
                    words = array in text
                    arrays[array] = _read_array(member, max_items, f"{name} ({array})", words)
        return arrays


def read_npz_rows(path: Path, array: str, start: int, count: int) -> NDArray[np.generic]:
    """Read rows [start, start + count) of one array of a .npz file, without the rest of it in memory."""
    with _open_npz(path, "") as (archive, name), archive.open(f"{array}.npy") as member:
        shape, fortran_order, dtype = _read_header(member, f"{name} ({array})")
        if fortran_order or not 0 <= start < start + count <= (shape[0] if shape else 0):
            raise ValueError(f"{name} ({array}) of shape {shape} has no rows {start} to {start + count}")
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        member.seek(start * row_bytes, io.SEEK_CUR)
        return _read_data(member, (count, *shape[1:]), dtype, f"{name} ({array})")


@contextmanager
def _open_npz(source: Path | bytes, name: str) -> Iterator[tuple[zipfile.ZipFile, str]]:
    """Open a .npz file or its content, together with what to call it; damage becomes one sentence."""
    name = name or str(source)
    if isinstance(source, Path):
        check_fetched(source, ValueError)
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            yield archive, name
    except OSError as error:
        raise ValueError(f"cannot read {name}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, KeyError, EOFError) as error:
        raise ValueError(f"{name} is not a readable .npz file ({error}); save it again") from error


def _read_array(file: IO[bytes], max_items: int, source: str, words: bool = False) -> NDArray[np.generic]:
    shape, fortran_order, dtype = _read_header(file, source, words)
    num_items = math.prod(shape)
    if num_items > max_items or any(length < 1 for length in shape):
        raise ValueError(f"{source} holds an array of shape {shape}; 1 to {max_items} numbers are accepted")
    return _read_data(file, shape, dtype, source, "F" if fortran_order else "C")


def _read_header(
    file: IO[bytes], source: str, words: bool = False
) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, whether the order is Fortran's, and type; the data lies behind."""
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
    if words and (dtype.kind not in "US" or not 1 <= dtype.itemsize <= MAX_WORD_BYTES):
        raise ValueError(f"{source} holds {dtype} data, not words of at most {MAX_WORD_BYTES} bytes")
    if not words and (dtype.hasobject or dtype.kind not in "fiu"):
        raise ValueError(f"{source} holds {dtype} data, not numbers; pickled objects are never loaded")
    return shape, fortran_order, dtype


def _read_data(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic], source: str, order: Order = "C"
) -> NDArray[np.generic]:
    num_bytes = math.prod(shape) * dtype.itemsize
    data = file.read(num_bytes)
    if len(data) != num_bytes:
        raise ValueError(f"{source} is cut short: {len(data)} of {num_bytes} bytes are there")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


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


class FramesWriter:
    """Writes frames and poses to an .npz chunk by chunk; for a number of frames known beforehand."""

    def __init__(self, archive: zipfile.ZipFile, shape: tuple[int, int, int, int]) -> None:
        self._archive = archive
        self._shape = shape
        self._c2w: list[NDArray[np.float64]] = []
        self._member = archive.open("frames.npy", "w", force_zip64=True)
        _write_npy_header(self._member, shape, "|u1")
        self._num_frames = 0

    def write(self, frames: NDArray[np.uint8], c2w: NDArray[np.float64]) -> None:
        """Append frames [F, H, W, 3] and their poses [F, 4, 4]."""
        if frames.shape[1:] != self._shape[1:] or len(frames) != len(c2w):
            raise ValueError(f"frames must be [F, {self._shape[1:]}], one pose each, got {frames.shape}")
        self._member.write(np.ascontiguousarray(frames).tobytes())
        self._c2w.append(c2w)
        self._num_frames += len(frames)

    def finish(self) -> None:
        """Write the poses; every frame must be there."""
        self._member.close()
        if self._num_frames != self._shape[0]:
            raise ValueError(f"{self._shape[0]} frames were announced, {self._num_frames} were written")
        poses = np.concatenate(self._c2w).astype("<f8")
        with self._archive.open("c2w.npy", "w") as member:
            _write_npy_header(member, poses.shape, "<f8")
            member.write(poses.tobytes())

    def abandon(self) -> None:
        """Close the file as it is."""
        self._member.close()


@contextmanager
def open_frames(path: str | Path, num_frames: int, frame_size: tuple[int, int]) -> Iterator[FramesWriter]:
    """Yield a writer to the .npz file `path`, which appears when the block ends well and not otherwise.

    The file holds `frames` uint8 [F, H, W, 3] and `c2w` float64 [F, 4, 4].
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"frames are written to an .npz file, got {Path(path).name}")
    width, height = frame_size
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        writer = FramesWriter(archive, (num_frames, height, width, 3))
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.finish()


def _write_npy_header(stream: Any, shape: tuple[int, ...], dtype: str) -> None:
    npy_format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": tuple(shape)})
