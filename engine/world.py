"""The world file `NAME.world`: where a walk begins and what the model is told about it.

A safetensors file with one JSON entry of metadata. A world may come from a stranger, so the header is read
and bounded here before anything is allocated for what it announces.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import save

from engine.atomic import replacing
from engine.bundle import first_problem
from engine.errors import SpecMismatch

SUFFIX = ".world"
METADATA_KEY = "world"
MAX_HEADER_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20
"""A world of the full model takes about 6 MB."""
DTYPES = {"F32": "<f4", "F64": "<f8", "U8": "|u1"}
LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "first_latent": ("F32", (512, 512, 512)),
    "first_frame": ("U8", (4096, 8192, 3)),
    "text": ("F32", (1024, 16384)),
    "text_mask": ("F32", (1024,)),
    "intrinsics": ("F32", (4,)),
    "c2w": ("F64", (4, 4)),
}
"""Stored type and the largest shape of each tensor."""
RIGID_TOLERANCE = 1e-4
"""Of R R^T against the identity; a rotation that was once stored as float32 stays within 1e-6."""


def _printable(text: str) -> str:
    """Keep escape codes out of terminals and window titles."""
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


Line = Annotated[str, Field(max_length=2000), AfterValidator(_printable)]


class WorldInfo(BaseModel):
    """What a world says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    title: Annotated[Line, Field(min_length=1, max_length=120)]
    licence: Line
    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the weights whose latent space this world is encoded in."""
    speed_scale: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Factor on the walker's speed that makes it feel right here."""
    place: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] | None = None
    """The holodeck place the world was made from."""
    caption: Line = ""


@dataclass(frozen=True, eq=False)
class World:
    """A world in memory."""

    info: WorldInfo
    first_latent: NDArray[np.float32]
    """[C, H, W], clean."""
    first_frame: NDArray[np.uint8]
    """[H, W, 3], RGB."""
    text: NDArray[np.float32]
    """[L, D]."""
    text_mask: NDArray[np.float32]
    """[L], 1 where a token counts."""
    intrinsics: NDArray[np.float32]
    """[4]: fx, fy, cx, cy in pixels of the first frame."""
    c2w: NDArray[np.float64]
    """[4, 4], camera-to-world of the first frame in the world's own frame: y down, upright."""
    path: Path | None = None
    sha256: str = ""
    """Of the file this was read from."""

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def title(self) -> str:
        return self.info.title

    @property
    def place(self) -> str | None:
        return self.info.place

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self.first_frame.shape[:2]
        return width, height


@dataclass(frozen=True)
class WorldEntry:
    """A world file found in a folder; `problem` says why it cannot be played, if so."""

    name: str
    title: str
    path: Path
    problem: str = ""


def read_world(path: str | Path) -> World:
    """Read a world file, or say in one sentence why not."""
    file = Path(path)
    try:
        with _open(file) as stream:
            header, data_start = _read_header(stream, file)
            info = _read_info(header, file)
            spans = _check_layout(header, file, data_start, os.fstat(stream.fileno()).st_size)
            stream.seek(0)
            raw = stream.read()
    except OSError as error:
        raise SpecMismatch(f"cannot read the world {file}: {error.strerror}; check the path") from error
    arrays = {
        name: np.frombuffer(raw, dtype, math.prod(shape), data_start + start).reshape(shape).copy()
        for name, (dtype, shape, start) in spans.items()
    }
    _check_values(arrays, file)
    return World(info, **arrays, path=file, sha256=hashlib.sha256(raw).hexdigest())


def write_world(path: str | Path, world: World) -> None:
    """Write a world file; it appears whole or not at all."""
    file = Path(path)
    if file.suffix != SUFFIX:
        raise ValueError(f"a world file ends in {SUFFIX}, got {file.name}")
    arrays = {
        name: np.ascontiguousarray(getattr(world, name), DTYPES[dtype]) for name, (dtype, _) in LAYOUT.items()
    }
    _check_shapes({name: array.shape for name, array in arrays.items()}, file)
    _check_values(arrays, file)
    raw = save(arrays, {METADATA_KEY: world.info.model_dump_json()})
    with replacing(file) as temporary, temporary.open("wb") as stream:
        stream.write(raw)
        stream.flush()
        os.fsync(stream.fileno())


def list_worlds(folders: Iterable[str | Path]) -> list[WorldEntry]:
    """Return the worlds in `folders` by name, reading headers only; the first of two equal names wins."""
    entries: dict[str, WorldEntry] = {}
    for folder in folders:
        for file in sorted(Path(folder).glob(f"*{SUFFIX}")):
            entries.setdefault(file.stem, _list_entry(file))
    return [entries[name] for name in sorted(entries)]


def find_world(name_or_path: str, folders: Sequence[str | Path]) -> World:
    """Read the world of that name in `folders`, or the world file at that path."""
    candidate = Path(name_or_path)
    if candidate.suffix == SUFFIX or len(candidate.parts) > 1:
        return read_world(candidate)
    for folder in folders:
        file = Path(folder) / f"{name_or_path}{SUFFIX}"
        if file.is_file():
            return read_world(file)
    known = ", ".join(entry.name for entry in list_worlds(folders)) or "none are installed"
    raise ValueError(
        f"there is no world called {name_or_path!r}; the worlds here: {known}; or name a {SUFFIX} file"
    )


def _list_entry(file: Path) -> WorldEntry:
    try:
        with _open(file) as stream:
            info = _read_info(_read_header(stream, file)[0], file)
    except SpecMismatch as error:
        return WorldEntry(file.stem, file.stem, file, str(error))
    except OSError as error:
        return WorldEntry(file.stem, file.stem, file, f"cannot read {file}: {error.strerror}")
    return WorldEntry(file.stem, info.title, file)


def _open(file: Path) -> BinaryIO:
    """Open a file of bearable size; a pipe or device would block or never end."""
    if not file.is_file():
        raise SpecMismatch(f"there is no world file {file}; `flaneur world list` names the worlds there are")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise SpecMismatch(f"{file} is over {MAX_FILE_BYTES >> 20} MB, so it is no world; check the path")
    return file.open("rb")


def _read_header(stream: BinaryIO, file: Path) -> tuple[dict[str, Any], int]:
    """Return the safetensors header and the offset of the data behind it."""
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise SpecMismatch(f"{file} is not a world file; name one ending in {SUFFIX} that `flaneur` made")
    raw = stream.read(length)
    if len(raw) < length:
        raise SpecMismatch(f"the world {file} is cut short; fetch or make it again")
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SpecMismatch(f"the header of {file} is damaged; fetch or make the world again") from error
    if not isinstance(header, dict):
        raise SpecMismatch(f"the header of {file} is damaged; fetch or make the world again")
    return header, 8 + length


def _read_info(header: dict[str, Any], file: Path) -> WorldInfo:
    metadata = header.get("__metadata__")
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise SpecMismatch(
            f"{file} holds tensors but no world; name one ending in {SUFFIX} that `flaneur` made"
        )
    try:
        return WorldInfo.model_validate_json(text)
    except ValidationError as error:
        raise SpecMismatch(
            f"the world {file} cannot be used ({first_problem(error)}); make it again with this version"
        ) from error


def _check_layout(
    header: dict[str, Any], file: Path, data_start: int, file_bytes: int
) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Return (numpy type, shape, offset in the data) of each tensor; together they must fill the file."""
    damaged = SpecMismatch(f"the tensors of the world {file} are not laid out as ours are; make it again")
    if header.keys() - {"__metadata__"} != LAYOUT.keys():
        raise damaged
    spans: dict[str, tuple[str, tuple[int, ...], int]] = {}
    ranges: list[tuple[int, int]] = []
    for name, (dtype, _) in LAYOUT.items():
        entry = header[name]
        if not isinstance(entry, dict) or entry.get("dtype") != dtype:
            raise damaged
        shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
        if shape is None or offsets is None or len(offsets) != 2:
            raise damaged
        spans[name] = DTYPES[dtype], shape, offsets[0]
        _check_shapes({name: shape}, file)
        if offsets[1] - offsets[0] != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise damaged
        ranges.append((offsets[0], offsets[1]))
    ranges.sort()
    if ranges[0][0] != 0 or any(a[1] != b[0] for a, b in pairwise(ranges)):
        raise damaged
    if data_start + ranges[-1][1] != file_bytes:
        raise SpecMismatch(f"the world {file} is cut short or has a foreign tail; fetch or make it again")
    return spans


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return a short list of sizes as a tuple, None if it is anything else."""
    if not isinstance(value, list) or len(value) > 8:
        return None
    if any(type(size) is not int or not 0 <= size < 1 << 40 for size in value):
        return None
    return tuple(value)


def _check_shapes(shapes: dict[str, tuple[int, ...]], file: Path) -> None:
    for name, shape in shapes.items():
        largest = LAYOUT[name][1]
        exact = name in ("intrinsics", "c2w")
        fits = len(shape) == len(largest) and all(1 <= a <= b for a, b in zip(shape, largest, strict=True))
        if not fits or (exact and shape != largest) or (name == "first_frame" and shape[-1] != 3):
            raise SpecMismatch(f"the {name} of the world {file} has the shape {list(shape)}; make it again")


def _check_values(arrays: dict[str, NDArray[Any]], file: Path) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise SpecMismatch(f"the {name} of the world {file} holds NaN or infinity; make it again")
    if arrays["text"].shape[0] != arrays["text_mask"].shape[0]:
        raise SpecMismatch(f"the text and text_mask of the world {file} differ in length; make it again")
    fx, fy, cx, cy = (float(value) for value in arrays["intrinsics"])
    height, width = arrays["first_frame"].shape[:2]
    if not (fx > 0 and fy > 0 and 0 <= cx <= width and 0 <= cy <= height):
        raise SpecMismatch(f"the intrinsics of the world {file} describe no camera; make it again")
    if not _is_rigid(arrays["c2w"]):
        raise SpecMismatch(f"the start pose of the world {file} is not a rigid motion; make it again")


def _is_rigid(c2w: NDArray[np.float64]) -> bool:
    rotation = c2w[:3, :3]
    return (
        bool(np.allclose(rotation @ rotation.T, np.eye(3), rtol=0, atol=RIGID_TOLERANCE))
        and np.linalg.det(rotation) > 0
        and bool(np.allclose(c2w[3], (0, 0, 0, 1), rtol=0, atol=1e-9))
    )
