"""The recording `NAME.flaneur`: everything needed to walk a walk again, appended chunk by chunk.

A replay uses the poses; the intents are kept to study the walk by. An 8-byte magic, then records of

    u32 length | u32 CRC-32 of the length | msgpack payload | 16-byte BLAKE2b

each digest covering the digest before it, the length and the payload, so that records can be neither altered
nor exchanged. The first record is the header, the last (absent after a crash) the end. The length has its own
checksum, so that a damaged length is told from a cut file: a cut file gives back the chunks before the cut, a
damaged one is refused.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.camera.tracks import Track, check_intrinsics, check_poses
from engine.errors import SpecMismatch
from engine.files.bundle import first_problem
from engine.files.git_lfs import check_fetched
from engine.types import CameraTrack

SUFFIX = ".flaneur"
MAGIC = b"\x89FLANEUR"
INTENT_COLUMNS = (
    *("time_s", "forward", "strafe", "rise", "yaw", "pitch", "roll"),
    *("look_yaw_rad", "look_pitch_rad", "run", "level"),
)
"""One intent: when (clock of the walk), the six axes in [-1, 1], the mouse's turn, keys held as 0 or 1."""
LATENT_AXES = 4
"""Of kept latents, [C, T, H, W]."""
MAX_RECORD_BYTES = 64 << 20
MAX_CHUNKS = 1 << 20
MAX_CHUNK_FRAMES = 4096
MAX_CHUNK_INTENTS = 65536
MAX_STEPS = 256
LENGTH = struct.Struct("<II")
DIGEST_BYTES = 16

_Model = TypeVar("_Model", bound=BaseModel)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OptionalSha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Word = Annotated[str, Field(max_length=256)]
Bytes = Annotated[bytes, Field(max_length=MAX_RECORD_BYTES)]


class RecordingHeader(BaseModel):
    """What a walk was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["header"] = "header"
    format_version: Literal[1, 2, 3, 4] = 4
    """Version 1 knew no `num_steps`; its chunks were all made with the whole schedule. Before 3 nothing was refined, and
    before 4 every replay went over the whole walk."""
    app_version: Word
    seed: Annotated[int, Field(ge=0, lt=1 << 64)]
    backend: Word
    engine: Word
    """Name of the bundle, or `holodeck`."""
    identity: Word
    """The session's: equal identities, seeds and tracks give equal rollouts."""
    device: Word
    refiner_sha256: OptionalSha256 = ""
    """Of the refiner, which may have refined any of the chunks; empty where there was none."""
    weights_sha256: OptionalSha256
    world: Word
    world_sha256: OptionalSha256
    key_map: Word
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    start_c2w: Annotated[tuple[float, ...], Field(min_length=16, max_length=16)]
    """Row-major pose of the world's first frame, in the world's own frame."""
    start_intrinsics: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)]
    """fx, fy, cx, cy of the first frame, in pixels of the output frame."""
    first_frame: Annotated[int, Field(ge=0)] = 0
    """Where a replay begins, counted from the world's first frame: a clip's recording holds the walk that leads to it."""
    last_frame: Annotated[int, Field(ge=0)] | None = None
    """Where a replay ends; None for the walk's end."""

    @model_validator(mode="after")
    def _check_span(self) -> Self:
        if self.last_frame is not None and self.last_frame < self.first_frame:
            raise ValueError("last_frame is before first_frame")
        return self

    @property
    def refiner_mode(self) -> Literal["on", "off"]:
        """How a session that replays it is opened."""
        return "on" if self.refiner_sha256 else "off"


class ChunkRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["chunk"] = "chunk"
    index: Annotated[int, Field(ge=0, lt=MAX_CHUNKS)]
    latched_s: float
    intents: Bytes
    c2w: Bytes
    intrinsics: Bytes
    latents_sha256: Sha256
    latents: Bytes | None
    latents_shape: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=LATENT_AXES)]
    num_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Denoising steps the chunk was made with; None for the whole schedule."""
    refined: bool = False


class EndRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["end"] = "end"
    num_chunks: int


def length_field(length: int) -> bytes:
    """Return a length with its checksum, 8 bytes."""
    return LENGTH.pack(length, zlib.crc32(length.to_bytes(4, "little")))


def chain(data: bytes) -> bytes:
    """Return the digest of the digest before and the bytes it covers."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, eq=False)
class RecordedChunk:
    """One chunk of a walk."""

    index: int
    track: CameraTrack
    """Exactly the cameras that were given to the session."""
    latents_sha256: str
    intents: NDArray[np.float64]
    """[N, 11], columns INTENT_COLUMNS: what was asked for, and when (clock of the walk)."""
    latents: NDArray[np.float32] | None = None
    """[C, T, H, W], where they were kept and asked for."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording in memory; every byte it came from was checked."""

    header: RecordingHeader
    chunks: tuple[RecordedChunk, ...]
    complete: bool
    """Whether the end record is there; without it the walk was cut and these chunks were recovered."""

    def track(self) -> Track:
        """Return the whole walk, the first frame's pose first."""
        start = np.array(self.header.start_c2w).reshape(1, 4, 4)
        intrinsics = np.array(self.header.start_intrinsics)[None]
        tracks = [chunk.track for chunk in self.chunks]
        return Track(
            np.concatenate([start, *(track.c2w for track in tracks)]),
            np.concatenate([intrinsics, *(track.intrinsics.astype(np.float64) for track in tracks)]),
            self.header.fps,
        )


def read_recording(path: str | Path, with_latents: bool = False) -> Recording:
    """Read a recording, or say in one sentence why not.

    Args:
        path: A .flaneur file.
        with_latents: Keep the latents in memory, where the recording has them.
    """
    file = Path(path)
    check_fetched(file)
    try:
        with file.open("rb") as stream:
            return _read(stream, file, with_latents)
    except OSError as error:
        raise ValueError(f"cannot read the recording {file}: {error.strerror}; check the path") from error


def _read(stream: BinaryIO, file: Path, with_latents: bool) -> Recording:
    if stream.read(len(MAGIC)) != MAGIC:
        raise SpecMismatch(
            f"{file} is not a recording; name a {SUFFIX} file that `flaneur play --record` made"
        )
    records = _records(stream, file)
    first = next(records, None)
    if first is None:
        raise SpecMismatch(f"the recording {file} was cut before its first chunk; nothing can be recovered")
    header = _parse(RecordingHeader, first, file, 0)
    check_poses(np.array(header.start_c2w).reshape(1, 4, 4), f"the header of {file}")
    chunks: list[RecordedChunk] = []
    for record in records:
        if record.get("kind") == "end":
            end = _parse(EndRecord, record, file, len(chunks))
            if end.num_chunks != len(chunks) or stream.read(1):
                raise _damaged(file, len(chunks))
            return Recording(header, tuple(chunks), complete=True)
        chunks.append(_chunk(_parse(ChunkRecord, record, file, len(chunks)), len(chunks), file, with_latents))
    if not chunks:
        raise SpecMismatch(f"the recording {file} was cut before its first chunk; nothing can be recovered")
    return Recording(header, tuple(chunks), complete=False)


def _records(stream: BinaryIO, file: Path) -> Iterator[dict[str, Any]]:
    """Yield each whole record until the end of the file or a cut; raise on damage."""
    digest = chain(MAGIC)
    for index in range(MAX_CHUNKS + 2):
        field = stream.read(LENGTH.size)
        if len(field) < LENGTH.size:
            return
        length, _ = LENGTH.unpack(field)
        if field != length_field(length) or length > MAX_RECORD_BYTES:
            # A power cut can leave a tail of zeros where the data never reached the disk: that too is a cut.
            if not any(field) and not any(stream.read(MAX_RECORD_BYTES)):
                return
            raise _damaged(file, index - 1)
        body = stream.read(length + DIGEST_BYTES)
        if len(body) < length + DIGEST_BYTES:
            return
        digest = chain(digest + field + body[:length])
        if body[length:] != digest:
            raise _damaged(file, index - 1)
        try:
            record = msgpack.unpackb(body[:length])
        except (ValueError, msgpack.UnpackException) as error:
            raise _damaged(file, index - 1) from error
        if not isinstance(record, dict):
            raise _damaged(file, index - 1)
        yield record


def _parse(model: type[_Model], record: dict[str, Any], file: Path, index: int) -> _Model:
    try:
        return model.model_validate(record)
    except ValidationError as error:
        raise SpecMismatch(
            f"the recording {file} cannot be used at chunk {index} ({first_problem(error)}); "
            "it was made by another version"
        ) from error


def _chunk(record: ChunkRecord, index: int, file: Path, with_latents: bool) -> RecordedChunk:
    where = f"chunk {index} of {file}"
    num_frames, rest = divmod(len(record.c2w), 16 * 8)
    num_intents, rest_intents = divmod(len(record.intents), 8 * len(INTENT_COLUMNS))
    too_many = num_frames > MAX_CHUNK_FRAMES or num_intents > MAX_CHUNK_INTENTS
    if record.index != index or rest or rest_intents or too_many or len(record.intrinsics) != 16 * num_frames:
        raise _damaged(file, index)
    c2w = check_poses(np.frombuffer(record.c2w, "<f8").reshape(-1, 4, 4), where)
    intrinsics = np.frombuffer(record.intrinsics, "<f4").reshape(-1, 4).astype(np.float32)
    check_intrinsics(intrinsics, num_frames, where)
    latents = None
    if record.latents is not None:
        if (
            len(record.latents_shape) != LATENT_AXES
            or len(record.latents) != 4 * math.prod(record.latents_shape)
            or hashlib.sha256(record.latents).hexdigest() != record.latents_sha256
        ):
            raise _damaged(file, index)
        if with_latents:
            latents = np.frombuffer(record.latents, "<f4").astype(np.float32).reshape(record.latents_shape)
    intents = np.frombuffer(record.intents, "<f8").astype(np.float64).reshape(-1, len(INTENT_COLUMNS))
    track = CameraTrack(c2w, intrinsics, record.latched_s, record.num_steps, record.refined)
    return RecordedChunk(index, track, record.latents_sha256, intents, latents)


def _damaged(file: Path, index: int) -> SpecMismatch:
    where = "in its header" if index < 0 else f"at chunk {index}"
    return SpecMismatch(f"the recording {file} is damaged {where}; fetch or make it again")
