"""The recording `NAME.flaneur`: everything needed to walk a walk again, appended chunk by chunk.

Layout: an 8-byte magic, then records of

    u32 length | u32 CRC-32 of the length | msgpack payload | 16-byte BLAKE2b

each digest covering the digest before it, the length and the payload, so that records can be neither altered
nor exchanged. The first record is the header, the last (absent after a crash) the end. The length has its own
checksum, so that a damaged length is told from a cut file: a cut file gives back the chunks before the cut, a
damaged one is refused.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Literal, Self, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.bundle import first_problem
from engine.errors import EngineError, SpecMismatch
from engine.tracks import Track, check_intrinsics, check_poses
from engine.types import CameraTrack

SUFFIX = ".flaneur"
MAGIC = b"\x89FLANEUR"
INTENT_COLUMNS = (
    *("time_s", "forward", "strafe", "rise", "yaw", "pitch", "roll"),
    *("look_yaw_rad", "look_pitch_rad"),
)
MAX_RECORD_BYTES = 64 << 20
MAX_CHUNKS = 1 << 20
MAX_CHUNK_FRAMES = 4096
MAX_CHUNK_INTENTS = 65536
_LENGTH = struct.Struct("<II")
_DIGEST_BYTES = 16

_Model = TypeVar("_Model", bound=BaseModel)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OptionalSha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Word = Annotated[str, Field(max_length=256)]
Bytes = Annotated[bytes, Field(max_length=MAX_RECORD_BYTES)]


class RecordingStopped(EngineError):
    """A recording could not be continued (a full disk, mostly); what was written before is whole."""


class RecordingHeader(BaseModel):
    """What a walk was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["header"] = "header"
    format_version: Literal[1] = 1
    app_version: Word
    seed: Annotated[int, Field(ge=0, lt=1 << 64)]
    backend: Word
    engine: Word
    """Name of the bundle."""
    bundle_sha256: OptionalSha256
    """Of bundle.json; empty where the backend has no bundle."""
    weights_sha256: OptionalSha256
    world: Word
    world_sha256: OptionalSha256
    key_map: Word
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    start_c2w: Annotated[tuple[float, ...], Field(min_length=16, max_length=16)]
    """Row-major pose of the world's first frame, in the world's own frame."""
    start_intrinsics: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)]
    """fx, fy, cx, cy of the first frame, in pixels of the output frame."""


class _ChunkRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["chunk"] = "chunk"
    index: Annotated[int, Field(ge=0, lt=MAX_CHUNKS)]
    latched_s: float
    intents: Bytes
    c2w: Bytes
    intrinsics: Bytes
    latents_sha256: Sha256
    latents: Bytes | None
    latents_shape: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=4)]


class _EndRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["end"] = "end"
    num_chunks: int


@dataclass(frozen=True, eq=False)
class RecordedChunk:
    """One chunk of a walk."""

    index: int
    track: CameraTrack
    """Exactly the cameras that were given to the session."""
    latents_sha256: str
    intents: NDArray[np.float64]
    """[N, 9], columns INTENT_COLUMNS: what was asked for, and when (clock of the walk)."""
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


class RecordingWriter:
    """Appends chunks to a new file; for one thread.

    Each chunk is handed to the operating system before `append` returns, so a crash of the program loses at
    most the chunk being written. When the disk is full `append` raises RecordingStopped once, with the file
    ended after its last whole chunk; later calls do nothing, so that the walk goes on.
    """

    def __init__(self, path: str | Path, header: RecordingHeader, fsync: bool = False) -> None:
        """Create the file, which must not exist yet.

        Args:
            path: Where to write.
            header: What the walk is made with.
            fsync: Also wait for the disk at each chunk: then a power cut, too, loses one chunk at most.
        """
        self.path = Path(path)
        self.num_chunks = 0
        self._fsync = fsync
        self._digest = self._next_digest = _blake2(MAGIC)
        self._file: BinaryIO | None = None
        if self.path.suffix != SUFFIX:
            raise ValueError(f"a recording's name ends in {SUFFIX}, got {self.path.name!r}")
        try:
            self._file = self.path.open("xb")
        except FileExistsError as error:
            raise ValueError(f"{self.path} exists already; choose another name for the recording") from error
        except OSError as error:
            raise ValueError(
                f"cannot record to {self.path}: {error.strerror}; choose another place"
            ) from error
        self._whole_bytes = 0
        self._write(MAGIC + self._sealed(header.model_dump()))

    @property
    def stopped(self) -> bool:
        return self._file is None

    def append(
        self,
        track: CameraTrack,
        latents_sha256: str,
        intents: NDArray[np.float64] | None = None,
        latents: NDArray[np.float32] | None = None,
    ) -> None:
        """Write the next chunk.

        Args:
            track: The cameras as given to the session.
            latents_sha256: Of the latents it answered with.
            intents: [N, 9], columns INTENT_COLUMNS; none by default.
            latents: [C, T, H, W], to be decoded again without the generator.
        """
        if self._file is None:
            return
        record = _ChunkRecord(
            index=self.num_chunks,
            latched_s=float(track.latched_s),
            intents=b"" if intents is None else np.ascontiguousarray(intents, "<f8").tobytes(),
            c2w=np.ascontiguousarray(track.c2w, "<f8").tobytes(),
            intrinsics=np.ascontiguousarray(track.intrinsics, "<f4").tobytes(),
            latents_sha256=latents_sha256,
            latents=None if latents is None else np.ascontiguousarray(latents, "<f4").tobytes(),
            latents_shape=[] if latents is None else list(latents.shape),
        )
        self._write(self._sealed(record.model_dump()))
        self.num_chunks += 1

    def close(self) -> None:
        """End the recording; one without a chunk is removed."""
        if self._file is None:
            return
        if self.num_chunks:
            self._write(self._sealed(_EndRecord(num_chunks=self.num_chunks).model_dump()))
        self._end_file(keep=self.num_chunks > 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sealed(self, record: dict[str, Any]) -> bytes:
        payload = msgpack.packb(record)
        self._next_digest = _blake2(self._digest + _length_field(len(payload)) + payload)
        return _length_field(len(payload)) + payload + self._next_digest

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
            self._file.flush()
            if self._fsync:
                os.fsync(self._file.fileno())
        except BaseException as error:
            self._end_file(keep=self.num_chunks > 0)
            if not isinstance(error, OSError):
                raise
            raise RecordingStopped(
                f"recording to {self.path} stopped after {self.num_chunks} chunks: {error.strerror}; "
                "free some space or record elsewhere"
            ) from error
        self._whole_bytes += len(data)
        self._digest = self._next_digest

    def _end_file(self, keep: bool) -> None:
        file, self._file = self._file, None
        assert file is not None
        # Closing flushes what a failed write left in the buffer and fails again; the descriptor closes.
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            os.truncate(self.path, self._whole_bytes) if keep else self.path.unlink()


def read_recording(path: str | Path, with_latents: bool = False) -> Recording:
    """Read a recording, or say in one sentence why not.

    Args:
        path: A .flaneur file.
        with_latents: Keep the latents in memory, where the recording has them.
    """
    file = Path(path)
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
            end = _parse(_EndRecord, record, file, len(chunks))
            if end.num_chunks != len(chunks) or stream.read(1):
                raise _damaged(file, len(chunks))
            return Recording(header, tuple(chunks), complete=True)
        chunks.append(
            _chunk(_parse(_ChunkRecord, record, file, len(chunks)), len(chunks), file, with_latents)
        )
    if not chunks:
        raise SpecMismatch(f"the recording {file} was cut before its first chunk; nothing can be recovered")
    return Recording(header, tuple(chunks), complete=False)


def _records(stream: BinaryIO, file: Path) -> Iterator[dict[str, Any]]:
    """Yield each whole record until the end of the file or a cut; raise on damage."""
    digest = _blake2(MAGIC)
    for index in range(MAX_CHUNKS + 2):
        field = stream.read(_LENGTH.size)
        if len(field) < _LENGTH.size:
            return
        length, _ = _LENGTH.unpack(field)
        if field != _length_field(length) or length > MAX_RECORD_BYTES:
            # A power cut can leave a tail of zeros where the data never reached the disk: that too is a cut.
            if not any(field) and not any(stream.read(MAX_RECORD_BYTES)):
                return
            raise _damaged(file, index - 1)
        body = stream.read(length + _DIGEST_BYTES)
        if len(body) < length + _DIGEST_BYTES:
            return
        digest = _blake2(digest + field + body[:length])
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


def _chunk(record: _ChunkRecord, index: int, file: Path, with_latents: bool) -> RecordedChunk:
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
        if len(record.latents) != 4 * math.prod(record.latents_shape) or (
            hashlib.sha256(record.latents).hexdigest() != record.latents_sha256
        ):
            raise _damaged(file, index)
        if with_latents:
            latents = np.frombuffer(record.latents, "<f4").astype(np.float32).reshape(record.latents_shape)
    intents = np.frombuffer(record.intents, "<f8").astype(np.float64).reshape(-1, len(INTENT_COLUMNS))
    track = CameraTrack(c2w, intrinsics, record.latched_s)
    return RecordedChunk(index, track, record.latents_sha256, intents, latents)


def _damaged(file: Path, index: int) -> SpecMismatch:
    where = "in its header" if index < 0 else f"at chunk {index}"
    return SpecMismatch(f"the recording {file} is damaged {where}; fetch or make it again")


def _length_field(length: int) -> bytes:
    return _LENGTH.pack(length, zlib.crc32(length.to_bytes(4, "little")))


def _blake2(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
