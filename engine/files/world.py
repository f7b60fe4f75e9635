"""The world file `NAME.world`: where a walk begins and what the model is conditioned on.

A safetensors file with one JSON entry of metadata. A world may be untrusted, so the header is read
and bounded before anything is allocated for what it announces.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from engine.errors import SpecMismatch
from engine.files.bundle import first_problem, hash_file
from engine.files.natural_order import natural_key
from engine.files.tensor_file import DTYPES, TensorFile, TensorFileKind, encode_tensors, write_tensors
from engine.memory.keyframes import Keyframe
from engine.memory.store import LAYOUT as MEMORY_LAYOUT
from engine.memory.store import are_cameras, decode_keyframes, encode_keyframes

SUFFIX = ".world"
MAX_FILE_BYTES = 256 << 20
"""A world of the full model takes about 6 MB, and 8 more with the refiner's text."""
KIND = TensorFileKind(
    "world", SUFFIX, "world", MAX_FILE_BYTES, "`flaneur world list` names the worlds there are"
)
LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "first_latent": ("F32", (512, 512, 512)),
    "first_frame": ("U8", (4096, 8192, 3)),
    "text": ("F32", (4096, 16384)),
    "text_mask": ("F32", (4096,)),
    "intrinsics": ("F32", (4,)),
    "c2w": ("F64", (4, 4)),
    "origin": ("F64", (4, 4)),
    "refiner_text": ("F32", (4096, 16384)),
    **MEMORY_LAYOUT,
}
"""Stored type and the largest shape of each tensor."""
HALVED = ("text", "refiner_text")
"""Stored as F16 where that holds every number, which halves most of the file."""
OPTIONAL = {"origin", "refiner_text", *MEMORY_LAYOUT}
"""Tensors that a world may lack; those of the memory all or none."""
MAX_NAME_CHARS, MAX_TITLE_CHARS = 64, 120
RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE)
"""Of devices on Windows, where no file can be called so whatever its ending."""
RIGID_TOLERANCE = 1e-4
"""Of R R^T against the identity; a rotation that was once stored as float32 stays within 1e-6."""


def _printable(text: str) -> str:
    """Keep escape codes out of terminals and window titles."""
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def world_name(text: str) -> str:
    """Derive a world's name from any text, such as a file's name: ASCII letters, digits, - and _, at most 64."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-_")[:MAX_NAME_CHARS].rstrip("-_") or "world"
    return f"{name}-world" if RESERVED_NAMES.fullmatch(name) else name


def title_of(text: str) -> str:
    """Derive a world's title from any text: what can be printed of it, without dots and dashes around it, at most 120 long."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[:MAX_TITLE_CHARS].strip(" .-_") or "World"


Line = Annotated[str, Field(max_length=2000), AfterValidator(_printable)]


class WorldInfo(BaseModel):
    """What a world says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1, 2] = 2
    """2 has a spatial memory, or might."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    title: Annotated[Line, Field(min_length=1, max_length=MAX_TITLE_CHARS)]
    licence: Line
    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the weights whose latent space this world is encoded in."""
    speed_scale: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Factor on the walker's speed that makes it feel right here."""
    place: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] | None = None
    """The holodeck place the world was made from."""
    caption: Line = ""
    animated: bool = False
    """Whether things in it move by themselves; where nothing does, generation pauses while the walker stands still."""


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
    """Of the file this was read from, or would be written to."""
    keyframes: tuple[Keyframe, ...] = ()
    """The spatial memory: posed RGB-D pictures of the place, in the world's own frame."""
    origin: NDArray[np.float64] | None = None
    """[4, 4], the pose that the model counts all poses from, where that is not the first frame's. A world begun
    in the middle of a walk keeps the origin of the world it came from, so that poses stay coordinates there."""

    refiner_text: NDArray[np.float32] | None = None
    """[L, D], what the second stage reads, every token of which counts; None where the world was made without it."""

    @property
    def origin_c2w(self) -> NDArray[np.float64]:
        """The pose that the model counts all poses from, [4, 4], in the world's own frame."""
        return self.c2w if self.origin is None else self.origin

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def title(self) -> str:
        """What it is called; a file that was renamed is called as it is named now."""
        return self.info.title if self.path is None else title_shown(self.info, self.path)

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
    num_keyframes: int = 0
    """Of its spatial memory."""
    made_as: str = ""
    """Its name when it was made, which recordings and saved walks know it by; empty where it cannot be read."""
    model: str = ""
    """SHA-256 of the weights that it was made for; empty where it cannot be read."""


@dataclass(frozen=True, eq=False)
class WorldPreview:
    """What a list of worlds shows of one."""

    info: WorldInfo
    title: str
    first_frame: NDArray[np.uint8]
    """[H, W, 3], RGB."""


def title_shown(info: WorldInfo, file: Path) -> str:
    """Return the title of a world in a file: the file's name where that is another than the world was made with."""
    return info.title if world_name(file.stem) == info.name else title_of(file.stem)


def read_preview(path: Path) -> WorldPreview:
    """Read what a list shows of a world, and nothing of its memory, or say in one sentence why not."""
    try:
        with TensorFile(path, KIND) as source:
            info = _parse_info(source.description(), path)
            _check_layout(source)
            frame = source.arrays(["first_frame"])["first_frame"]
    except OSError as error:
        raise _unreadable(path, error) from error
    return WorldPreview(info, title_shown(info, path), frame)


def _unreadable(file: Path, error: OSError) -> SpecMismatch:
    return SpecMismatch(f"cannot read the world {file}: {error.strerror}; check the path")


def read_world(path: str | Path, checked: bool = True) -> World:
    """Read a world file, or say in one sentence why not.

    Args:
        checked: Decode all pictures of its spatial memory once, which takes most of the time; else damaged ones are found when
            a walk comes near them.
    """
    file = Path(path)
    try:
        with TensorFile(file, KIND) as source:
            info = _parse_info(source.description(), file)
            _check_layout(source)
            arrays, sha256 = source.arrays(source.spans()), source.sha256()
    except OSError as error:
        raise _unreadable(file, error) from error
    _check_values(arrays, file)
    arrays |= {name: arrays[name].astype(np.float32) for name in HALVED if name in arrays}
    memory = {name: arrays.pop(name) for name in MEMORY_LAYOUT if name in arrays}
    keyframes = tuple(decode_keyframes(memory, f"the world {file}", checked)) if memory else ()
    return World(info, **arrays, path=file, sha256=sha256, keyframes=keyframes)


def write_world(path: str | Path, world: World) -> None:
    """Write a world file; it appears whole or not at all."""
    file = Path(path)
    write_tensors(file, _encode(world, file), KIND)


def sealed(world: World) -> World:
    """Return a world made in memory with the hash its file would have."""
    return replace(world, sha256=hashlib.sha256(_encode(world, Path(world.name + SUFFIX))).hexdigest())


def _encode(world: World, file: Path) -> bytes:
    given: dict[str, NDArray[Any] | None] = {
        name: getattr(world, name) for name in LAYOUT.keys() - MEMORY_LAYOUT.keys()
    }
    if world.keyframes:
        given |= encode_keyframes(world.keyframes)
    arrays = {
        name: np.ascontiguousarray(array, DTYPES[LAYOUT[name][0]])
        for name, array in given.items()
        if array is not None
    }
    _check_shapes({name: array.shape for name, array in arrays.items()}, file)
    _check_values(arrays, file)
    for name in HALVED:
        if name in arrays:
            with np.errstate(over="ignore"):
                half = arrays[name].astype(DTYPES["F16"])
            if np.array_equal(half.astype(np.float32), arrays[name]):
                arrays[name] = half
    return encode_tensors(arrays, KIND, world.info.model_dump_json())


def memory_bytes(path: Path) -> int:
    """Return how much of a world file its spatial memory takes."""
    with TensorFile(path, KIND) as source:
        return sum(span.num_bytes for name, span in source.spans().items() if name in MEMORY_LAYOUT)


def described(**fields: Any) -> WorldInfo:
    """Describe a new world in words that a person chose.

    Raises:
        ValueError: They cannot be used.
    """
    try:
        return WorldInfo(**fields)
    except ValidationError as error:
        raise ValueError(
            f"the world cannot be described so: {first_problem(error)}; choose other words, its name with -o"
        ) from None


def list_worlds(folders: Iterable[str | Path]) -> list[WorldEntry]:
    """Return the worlds in `folders` by name, reading headers only; the first of two equal names wins."""
    entries: dict[str, WorldEntry] = {}
    for folder in folders:
        for file in _world_files(Path(folder)):
            entries.setdefault(file.stem, _list_entry(file))
    return [entries[name] for name in sorted(entries, key=natural_key)]


def _world_files(folder: Path) -> list[Path]:
    """Return the world files of a folder; one that may not be entered has none."""
    try:
        return sorted(folder.glob(f"[!.]*{SUFFIX}"))
    except PermissionError:
        return []


def find_world(name_or_path: str, folders: Sequence[str | Path], checked: bool = True) -> World:
    """Read the world of that name in `folders`, or the world file at that path, as `read_world` does."""
    candidate = Path(name_or_path)
    if candidate.suffix == SUFFIX or len(candidate.parts) > 1:
        return read_world(candidate, checked)
    for folder in folders:
        file = Path(folder) / f"{name_or_path}{SUFFIX}"
        # Unlike Path.is_file, this skips a folder that may not be entered.
        if os.path.isfile(file):
            return read_world(file, checked)
    known = ", ".join(entry.name for entry in list_worlds(folders)) or "none are installed"
    raise ValueError(
        f"there is no world called {name_or_path!r}; the worlds here: {known}; or name a {SUFFIX} file"
    )


def find_made_in(name: str, sha256: str, folders: Sequence[str | Path]) -> Path | None:
    """Return the file of the world that a recording or saved walk was made in, renamed or not; None if it is not here.

    Args:
        name: What the world was called when it was made.
        sha256: Of its file, which decides between worlds of one name.
    """
    readable = (entry for entry in list_worlds(folders) if not entry.problem)
    entries = [entry for entry in readable if name in (entry.name, entry.made_as)]
    if len(entries) > 1:
        entries = [entry for entry in entries if hash_file(entry.path) == sha256] or entries
    return entries[0].path if entries else None


def _list_entry(file: Path) -> WorldEntry:
    try:
        with TensorFile(file, KIND) as source:
            info = _parse_info(source.description(), file)
            memory = source.spans().get("memory.c2w")
    except SpecMismatch as error:
        return WorldEntry(file.stem, file.stem, file, str(error))
    except OSError as error:
        return WorldEntry(file.stem, file.stem, file, f"cannot read {file}: {error.strerror}")
    num_keyframes = memory.shape[0] if memory is not None and memory.shape else 0
    title = title_shown(info, file)
    return WorldEntry(
        file.stem, title, file, num_keyframes=num_keyframes, made_as=info.name, model=info.model
    )


def _parse_info(text: str, file: Path) -> WorldInfo:
    try:
        return WorldInfo.model_validate_json(text)
    except ValidationError as error:
        raise SpecMismatch(
            f"the world {file} cannot be used ({first_problem(error)}); make it again with this version"
        ) from error


def _check_layout(source: TensorFile) -> None:
    """Refuse a file with other tensors than a world has, or of other types or shapes."""
    spans = source.spans()
    memory = spans.keys() & MEMORY_LAYOUT.keys()
    if spans.keys() - OPTIONAL != LAYOUT.keys() - OPTIONAL or len(memory) not in (0, len(MEMORY_LAYOUT)):
        raise source.not_laid_out()
    if any(span.dtype not in _stored_types(name) for name, span in spans.items()):
        raise source.not_laid_out()
    _check_shapes({name: span.shape for name, span in spans.items()}, source.path)


def _stored_types(name: str) -> tuple[str, ...]:
    return (LAYOUT[name][0], "F16") if name in HALVED else (LAYOUT[name][0],)


def _check_shapes(shapes: dict[str, tuple[int, ...]], file: Path) -> None:
    for name, shape in shapes.items():
        largest = LAYOUT[name][1]
        exact = name in ("intrinsics", "c2w", "origin")
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
    poses = [
        (arrays[name], what) for name, what in (("c2w", "start pose"), ("origin", "origin")) if name in arrays
    ]
    poses += [(c2w, "spatial memory") for c2w in arrays.get("memory.c2w", ())]
    if "memory.c2w" in arrays and not are_cameras(arrays):
        raise SpecMismatch(f"the spatial memory of the world {file} describes no cameras; make it again")
    for c2w, what in poses:
        if c2w.shape != (4, 4) or not _is_rigid(c2w):
            raise SpecMismatch(f"the {what} of the world {file} is not a rigid motion; make it again")


def _is_rigid(c2w: NDArray[np.float64]) -> bool:
    rotation = c2w[:3, :3]
    return (
        bool(np.allclose(rotation @ rotation.T, np.eye(3), rtol=0, atol=RIGID_TOLERANCE))
        and np.linalg.det(rotation) > 0
        and bool(np.allclose(c2w[3], (0, 0, 0, 1), rtol=0, atol=1e-9))
    )
