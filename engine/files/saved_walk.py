"""The saved walk `NAME.state`: a rollout between two chunks, with everything needed to go on from there.

A safetensors file. It belongs to one engine, one world and one key map, and is refused by all others; what
it announces is compared with what that engine keeps before anything is allocated. Of the camera's inertia it
knows only numbers, which the client fills and reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.camera.tracks import check_poses
from engine.errors import SpecMismatch
from engine.files.bundle import first_problem
from engine.files.recording import (
    INTENT_COLUMNS,
    MAX_CHUNK_INTENTS,
    MAX_CHUNKS,
    MAX_STEPS,
    OptionalSha256,
    RecordedChunk,
    Word,
)
from engine.files.tensor_file import DTYPES, Span, TensorFile, TensorFileKind, encode_tensors, write_tensors
from engine.memory.keyframes import Grown
from engine.memory.store import LAYOUT as MEMORY_LAYOUT
from engine.memory.store import MAX_KEYFRAMES, decode_keyframes, encode_keyframes
from engine.session.protocol import Session
from engine.session.sampler import MAX_SEED
from engine.types import CameraTrack, RefinedHistory, Snapshot

SUFFIX = ".state"
MAX_LATENT_BYTES = 256 << 20
MAX_RIG_NUMBERS = 256
MAX_FRAME = (4096, 8192, 3)
KIND = TensorFileKind("saved walk", SUFFIX, "state", 32 << 30, "save one first")
_SNAPSHOT = "snapshot."
_WALK_LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "walk.c2w": ("F64", (4, 4)),
    "walk.intrinsics": ("F32", (4,)),
    "walk.latched_s": ("F64", ()),
    "walk.num_steps": ("I32", ()),
    "walk.latents_sha256": ("U8", (32,)),
    "walk.num_intents": ("I32", ()),
}
"""Of each chunk walked: stored type, and the shape behind the chunk's (and frame's) axis."""
_REFINED = "walk.refined"
"""Whether each chunk walked was refined, U8; absent where none was."""
_SINK, _BLOCKS, _NUM_BLOCKS = "refined.sink", "refined.blocks", "refined.num_blocks"
_GROWN_AT = "memory.chunk_index"
_MEMORY_LAYOUT = {**MEMORY_LAYOUT, _GROWN_AT: ("I64", (MAX_KEYFRAMES,))}
"""What the walk added to the world's spatial memory, where it added anything: stored type and largest shape."""


class SavedInfo(BaseModel):
    """What a saved walk says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1, 2] = 2
    """Version 1 knew no `fps`."""
    app_version: Word
    world: Word
    world_sha256: OptionalSha256
    engine: Word
    backend: Word
    identity: Word
    """The session's: of the bundle and of the world."""
    key_map: Word
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    chunk_index: Annotated[int, Field(ge=0, le=MAX_CHUNKS + 1)]
    """Of the next chunk."""
    frame_index: Annotated[int, Field(ge=0)]
    """Of the frame it was saved at, counted from the world's first."""
    flying: bool
    held: Annotated[list[Word], Field(max_length=64)]
    """Directions that the last frame's input asked for, as the integrator names them."""
    fps: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    """Frames a second of the walk; 0 where that was not noted."""
    content: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the tensors."""

    @property
    def duration_s(self) -> float | None:
        """Length of the walk up to where it was saved; None where that was not noted."""
        return self.frame_index / self.fps if self.fps else None


@dataclass(frozen=True)
class SessionSpec:
    """What a saved walk must belong to, as a session was when asked; the session may switch to another world."""

    world_sha256: str
    identity: str
    frame_size: tuple[int, int]
    """(width, height) in pixels."""
    frames_per_chunk: int
    snapshot_bytes: int
    refined_block: tuple[int, int, int, int] | None
    """[C, T, h, w] of a refiner's blocks; None where the session has no refiner."""
    refined_reach: int
    """Most of them that a snapshot holds."""


@dataclass(frozen=True, eq=False)
class SavedWalk:
    """A saved walk in memory."""

    info: SavedInfo
    snapshot: Snapshot
    frame: NDArray[np.uint8]
    """[H, W, 3], the frame it was saved at."""
    c2w: NDArray[np.float64]
    """[4, 4], the pose of that frame."""
    latent: NDArray[np.float32] | None
    """[C, h, w], the latent frame that it was decoded from, where the engine has one."""
    rig: NDArray[np.float64]
    """The camera's inertia, [N]; empty where nobody steers."""
    chunks: tuple[RecordedChunk, ...]
    """The whole walk from its first step, so that a recording can begin there."""


def write_saved_walk(path: str | Path, saved: SavedWalk) -> None:
    """Write a saved walk; it appears whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {
        _SNAPSHOT + name: array for name, array in saved.snapshot.arrays.items()
    }
    arrays |= {
        "frame": saved.frame,
        "c2w": saved.c2w,
        "first_c2w": saved.snapshot.first_c2w,
        "rig": saved.rig,
    }
    if saved.latent is not None:
        arrays["latent"] = saved.latent
    if grown := saved.snapshot.grown:
        arrays |= encode_keyframes([entry.keyframe for entry in grown])
        arrays[_GROWN_AT] = np.array([entry.chunk_index for entry in grown], np.int64)
    arrays |= _pack_refined(saved.snapshot.refined)
    arrays |= _pack_walk(saved.chunks)
    arrays = {name: array for name, array in arrays.items() if array.size}
    info = saved.info.model_copy(update={"content": _hash(arrays)})
    write_tensors(Path(path), encode_tensors(arrays, KIND, info.model_dump_json()), KIND)


def read_saved_info(path: str | Path) -> tuple[SavedInfo, NDArray[np.float64]]:
    """Read what a saved walk says of itself and the pose it was saved at, c2w [4, 4], whatever it belongs to."""
    file = Path(path)
    try:
        with TensorFile(file, KIND) as source:
            info = _parse(source.description(), file)
            if source.spans().get("c2w") != Span("F64", (4, 4)):
                raise source.not_laid_out()
            pose = source.arrays(["c2w"])["c2w"]
    except OSError as error:
        raise _unreadable(file, error) from error
    return info, check_poses(pose[None], f"the saved walk {file}")[0]


def read_saved_preview(path: str | Path) -> tuple[SavedInfo, NDArray[np.uint8]]:
    """Read what a list shows of a saved walk: what it says of itself, and the frame it was saved at, [H, W, 3]."""
    file = Path(path)
    try:
        with TensorFile(file, KIND) as source:
            info = _parse(source.description(), file)
            span = source.spans().get("frame")
            if span is None or not _fits(span, "U8", MAX_FRAME) or span.shape[-1] != 3:
                raise source.not_laid_out()
            return info, source.arrays(["frame"])["frame"]
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> SpecMismatch:
    return SpecMismatch(f"cannot read the saved walk {file}: {error.strerror}; check the path")


def session_spec(session: Session) -> SessionSpec:
    """Return what walks saved in a session now must belong to."""
    return SessionSpec(
        session.world.sha256,
        session.identity,
        session.frame_size,
        session.frames_per_chunk,
        session.snapshot_bytes,
        session.refined_block,
        session.refined_reach,
    )


def read_saved_walk(path: str | Path, spec: SessionSpec, key_map: str) -> SavedWalk:
    """Read a walk that was saved in this world with this engine, or say in one sentence why not."""
    file = Path(path)
    try:
        with TensorFile(file, KIND) as source:
            info = _parse(source.description(), file)
            _check_belongs(info, spec, key_map, file)
            spans = source.spans()
            _check_sizes(spans, spec, source)
            arrays = source.arrays(spans)
    except OSError as error:
        raise _unreadable(file, error) from error
    if _hash(arrays) != info.content:
        raise SpecMismatch(f"the saved walk {file} is damaged; save it again")
    return _unpack(info, arrays, spec.refined_reach, file)


def _parse(text: str, file: Path) -> SavedInfo:
    try:
        return SavedInfo.model_validate_json(text)
    except ValidationError as error:
        raise SpecMismatch(
            f"the saved walk {file} cannot be used ({first_problem(error)}); save it again with this version"
        ) from error


def _check_belongs(info: SavedInfo, spec: SessionSpec, key_map: str, file: Path) -> None:
    if info.world_sha256 != spec.world_sha256:
        raise SpecMismatch(f"the walk {file} was saved in another world, {info.world}; load it there")
    if info.identity != spec.identity:
        raise SpecMismatch(
            f"the walk {file} was saved with the engine {info.engine} on {info.backend}, another than this; "
            "load it there"
        )
    if info.key_map != key_map:
        raise SpecMismatch(
            f"the walk {file} was saved with version {info.key_map} of the keys, this is {key_map}; "
            "load it with the version that saved it"
        )


def _check_sizes(spans: Mapping[str, Span], spec: SessionSpec, source: TensorFile) -> None:
    """Refuse tensors of other sizes than such a session keeps, so that reading them allocates nothing unexpected."""
    width, height = spec.frame_size
    fixed = {
        "frame": ("U8", (height, width, 3)),
        "c2w": ("F64", (4, 4)),
        "first_c2w": ("F64", (4, 4)),
    }
    first = spans.get("walk.c2w")
    num_chunks = first.shape[0] if first is not None and first.shape else 0
    for name, (dtype, rest) in _WALK_LAYOUT.items():
        per_frame = (spec.frames_per_chunk,) if name in ("walk.c2w", "walk.intrinsics") else ()
        fixed[name] = dtype, (num_chunks, *per_frame, *rest)
    bounded = {"walk.intents", "rig", "latent", _REFINED}
    refined = {name: span for name, span in spans.items() if name in (_SINK, _BLOCKS, _NUM_BLOCKS)}
    snapshot = {name: span for name, span in spans.items() if name.startswith(_SNAPSHOT)}
    memory = {name: span for name, span in spans.items() if name in _MEMORY_LAYOUT}
    sound = (
        not spans.keys() - fixed.keys() - bounded - snapshot.keys() - memory.keys() - refined.keys()
        and _refined_fits(refined, spec)
        and len(memory) in (0, len(_MEMORY_LAYOUT))
        and all(_fits(span, *_MEMORY_LAYOUT[name]) for name, span in memory.items())
        and not fixed.keys() - spans.keys()
        and 1 <= num_chunks <= MAX_CHUNKS
        and all((spans[name].dtype, spans[name].shape) == wanted for name, wanted in fixed.items())
        and sum(span.num_bytes for span in snapshot.values()) == spec.snapshot_bytes
        and all(_is_bounded(name, spans[name], num_chunks) for name in bounded if name in spans)
    )
    if not sound:
        raise source.not_laid_out()


def _fits(span: Span, dtype: str, largest: tuple[int, ...]) -> bool:
    sides = zip(span.shape, largest, strict=False)
    return span.dtype == dtype and len(span.shape) == len(largest) and all(a <= b for a, b in sides)


def _refined_fits(spans: Mapping[str, Span], spec: SessionSpec) -> bool:
    if spec.refined_block is None:
        return not spans
    channels, _, height, width = block = spec.refined_block
    fixed = {_SINK: Span("F32", (channels, height, width)), _NUM_BLOCKS: Span("I64", (1,))}
    blocks = spans.get(_BLOCKS, Span("F32", (0, *block)))
    sound = blocks.dtype == "F32" and blocks.shape[1:] == block and blocks.shape[0] <= spec.refined_reach
    return sound and {name: span for name, span in spans.items() if name != _BLOCKS} == fixed


def _is_bounded(name: str, span: Span, num_chunks: int) -> bool:
    if name == "rig":
        return span.dtype == "F64" and len(span.shape) == 1 and span.shape[0] <= MAX_RIG_NUMBERS
    if name == _REFINED:
        return span == Span("U8", (num_chunks,))
    if name == "latent":
        return span.dtype == "F32" and len(span.shape) == 3 and span.num_bytes <= MAX_LATENT_BYTES
    wide = len(span.shape) == 2 and span.shape[1] == len(INTENT_COLUMNS)
    return span.dtype == "F64" and wide and span.shape[0] <= num_chunks * MAX_CHUNK_INTENTS


def _hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _pack_walk(chunks: Sequence[RecordedChunk]) -> dict[str, NDArray[Any]]:
    hashes = b"".join(bytes.fromhex(chunk.latents_sha256) for chunk in chunks)
    packed = {
        "walk.c2w": np.stack([chunk.track.c2w for chunk in chunks]),
        "walk.intrinsics": np.stack([chunk.track.intrinsics for chunk in chunks]),
        "walk.latched_s": np.array([chunk.track.latched_s for chunk in chunks]),
        "walk.num_steps": np.array([chunk.track.num_steps or 0 for chunk in chunks]),
        "walk.latents_sha256": np.frombuffer(hashes, np.uint8).reshape(-1, 32),
        "walk.num_intents": np.array([len(chunk.intents) for chunk in chunks]),
    }
    layout = {name: np.dtype(DTYPES[dtype]) for name, (dtype, _) in _WALK_LAYOUT.items()}
    packed = {name: array.astype(layout[name]) for name, array in packed.items()}
    refined = np.array([chunk.track.refine for chunk in chunks], np.uint8)
    if refined.any():
        packed[_REFINED] = refined
    return packed | {"walk.intents": np.concatenate([chunk.intents for chunk in chunks])}


def _pack_refined(refined: RefinedHistory | None) -> dict[str, NDArray[Any]]:
    if refined is None:
        return {}
    packed: dict[str, NDArray[Any]] = {
        _SINK: refined.sink,
        _NUM_BLOCKS: np.array([refined.num_blocks], np.int64),
    }
    return packed | ({_BLOCKS: np.stack(refined.blocks)} if refined.blocks else {})


def _unpack_refined(arrays: dict[str, NDArray[Any]], reach: int, file: Path) -> RefinedHistory | None:
    if _SINK not in arrays:
        return None
    blocks, num_blocks = tuple(arrays.get(_BLOCKS, ())), int(arrays[_NUM_BLOCKS][0])
    finite = all(np.isfinite(part).all() for part in (arrays[_SINK], *blocks))
    if not finite or num_blocks > MAX_CHUNKS or len(blocks) != min(num_blocks, reach):
        raise _does_not_add_up(file)
    return RefinedHistory(arrays[_SINK], num_blocks, blocks)


def _unpack(info: SavedInfo, arrays: dict[str, NDArray[Any]], reach: int, file: Path) -> SavedWalk:
    snapshot = Snapshot(
        info.identity,
        info.seed,
        info.chunk_index,
        arrays["first_c2w"],
        {name[len(_SNAPSHOT) :]: array for name, array in arrays.items() if name.startswith(_SNAPSHOT)},
        _unpack_grown(arrays, file),
        _unpack_refined(arrays, reach, file),
    )
    rig = arrays.get("rig", np.empty(0))
    if not np.isfinite(rig).all():
        raise SpecMismatch(f"the saved walk {file} holds NaN or infinity; save it again")
    num_chunks, frames_per_chunk = arrays["walk.c2w"].shape[:2]
    if info.frame_index != num_chunks * frames_per_chunk:
        raise _does_not_add_up(file)
    c2w = check_poses(arrays["c2w"][None], f"the saved walk {file}")[0]
    chunks = tuple(_unpack_walk(arrays, file))
    return SavedWalk(info, snapshot, arrays["frame"], c2w, arrays.get("latent"), rig, chunks)


def _unpack_grown(arrays: dict[str, NDArray[Any]], file: Path) -> tuple[Grown, ...]:
    if _GROWN_AT not in arrays:
        return ()
    keyframes = decode_keyframes(arrays, f"the saved walk {file}")
    check_poses(arrays["memory.c2w"], f"the saved walk {file}")
    if len(arrays[_GROWN_AT]) != len(keyframes):
        raise _does_not_add_up(file)
    return tuple(Grown(int(n), keyframe) for n, keyframe in zip(arrays[_GROWN_AT], keyframes, strict=True))


def _does_not_add_up(file: Path) -> SpecMismatch:
    return SpecMismatch(f"the walk in {file} does not add up; save it again")


def _unpack_walk(arrays: dict[str, NDArray[Any]], file: Path) -> list[RecordedChunk]:
    num_chunks = len(arrays["walk.c2w"])
    check_poses(arrays["walk.c2w"].reshape(-1, 4, 4), f"the saved walk {file}")
    intents = arrays.get("walk.intents", np.empty((0, len(INTENT_COLUMNS))))
    counts, steps = arrays["walk.num_intents"], arrays["walk.num_steps"]
    sound = counts.min() >= 0 and counts.sum(dtype=np.int64) == len(intents)
    if not (sound and steps.min() >= 0 and steps.max() <= MAX_STEPS):
        raise _does_not_add_up(file)
    refined = arrays.get(_REFINED, np.zeros(num_chunks, np.uint8))
    ends = np.cumsum(counts, dtype=np.int64)
    return [
        RecordedChunk(
            i,
            CameraTrack(
                arrays["walk.c2w"][i],
                arrays["walk.intrinsics"][i],
                float(arrays["walk.latched_s"][i]),
                int(steps[i]) or None,
                bool(refined[i]),
            ),
            arrays["walk.latents_sha256"][i].tobytes().hex(),
            intents[ends[i] - counts[i] : ends[i]],
        )
        for i in range(num_chunks)
    ]
