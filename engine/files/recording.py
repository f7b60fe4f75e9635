"""The recording `NAME.flaneur`: everything needed to walk a walk again, appended chunk by chunk.

Its layout is `engine.files.recording_format`. A replay uses the poses; the intents are kept to study the walk by.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from engine.camera.tracks import Track, check_intrinsics, check_poses
from engine.errors import EngineError, SpecMismatch
from engine.files.bundle import first_problem
from engine.files.recording_format import (
    DIGEST_BYTES,
    INTENT_COLUMNS,
    LATENT_AXES,
    LENGTH,
    MAGIC,
    MAX_CHUNK_FRAMES,
    MAX_CHUNK_INTENTS,
    MAX_CHUNKS,
    MAX_RECORD_BYTES,
    SUFFIX,
    ChunkRecord,
    EndRecord,
    RecordingHeader,
    chain,
    length_field,
    pack,
)
from engine.types import CameraTrack

_Model = TypeVar("_Model", bound=BaseModel)
COPY_BYTES = 1 << 20


class RecordingStopped(EngineError):
    """A recording could not be continued (a full disk, mostly); what was written before is whole."""


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
        self._digest = chain(MAGIC)
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
        self.header = header
        self._whole_bytes = 0
        self._marks: list[tuple[int, bytes]] = []
        """Length of the file and digest behind the header and behind each chunk."""
        self._write_record(header, MAGIC)

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
            intents: [N, 11], columns INTENT_COLUMNS; none by default.
            latents: [C, T, H, W], to be decoded again without the generator.
        """
        if self._file is None:
            return
        record = ChunkRecord(
            index=self.num_chunks,
            latched_s=float(track.latched_s),
            intents=b"" if intents is None else np.ascontiguousarray(intents, "<f8").tobytes(),
            c2w=np.ascontiguousarray(track.c2w, "<f8").tobytes(),
            intrinsics=np.ascontiguousarray(track.intrinsics, "<f4").tobytes(),
            latents_sha256=latents_sha256,
            latents=None if latents is None else np.ascontiguousarray(latents, "<f4").tobytes(),
            latents_shape=[] if latents is None else list(latents.shape),
            num_steps=track.num_steps,
        )
        self._write_record(record)
        self.num_chunks += 1

    def fork(self, path: str | Path, num_chunks: int) -> RecordingWriter:
        """Begin another recording with the first chunks of this one, latents and all; both go on apart.

        Raises:
            ValueError: The file cannot be made.
            RecordingStopped: The disk is full, or this file is gone; nothing is left of the new one.
        """
        other = RecordingWriter(path, self.header, self._fsync)
        try:
            self._copy_to(other, num_chunks)
        except OSError as error:
            other._end_file(keep=False)
            raise RecordingStopped(
                f"the recording {self.path} cannot be read back: {error.strerror}; record anew"
            ) from error
        other._marks = self._marks[: num_chunks + 1]
        other._whole_bytes, other._digest = other._marks[-1]
        other.num_chunks = num_chunks
        return other

    def _copy_to(self, other: RecordingWriter, num_chunks: int) -> None:
        with self.path.open("rb") as source:
            source.seek(self._marks[0][0])
            left = self._marks[num_chunks][0] - self._marks[0][0]
            while left > 0:
                block = source.read(min(left, COPY_BYTES))
                if not block:
                    raise OSError(0, "it is shorter than it was")
                other._write(block)
                left -= len(block)

    def close(self) -> None:
        """End the recording; one without a chunk is removed."""
        if self._file is None:
            return
        if self.num_chunks:
            self._write_record(EndRecord(num_chunks=self.num_chunks))
        self._end_file(keep=self.num_chunks > 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_record(self, record: BaseModel, prefix: bytes = b"") -> None:
        data, digest = pack(record, self._digest)
        self._write(prefix + data)
        self._whole_bytes += len(prefix + data)
        self._digest = digest
        self._marks.append((self._whole_bytes, digest))

    def _write(self, data: bytes) -> None:
        """Hand bytes to the operating system; where it takes none, the file ends after its last whole chunk."""
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
    track = CameraTrack(c2w, intrinsics, record.latched_s, record.num_steps)
    return RecordedChunk(index, track, record.latents_sha256, intents, latents)


def _damaged(file: Path, index: int) -> SpecMismatch:
    where = "in its header" if index < 0 else f"at chunk {index}"
    return SpecMismatch(f"the recording {file} is damaged {where}; fetch or make it again")
