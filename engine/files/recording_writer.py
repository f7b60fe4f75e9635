"""Writes a recording chunk by chunk, so that a crash or a full disk loses at most the chunk being written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from engine.errors import EngineError
from engine.files.atomic import check_absent
from engine.files.recording import (
    MAGIC,
    SUFFIX,
    ChunkRecord,
    EndRecord,
    RecordingHeader,
    chain,
    length_field,
)
from engine.types import CameraTrack

COPY_BYTES = 1 << 20


class RecordingStopped(EngineError):
    """A recording could not be continued (a full disk, mostly); what was written before is whole."""


class RecordingWriter:
    """Appends chunks to a file; for one thread.

    Each chunk is handed to the operating system before `append` returns, so a crash of the program loses at
    most the chunk being written. When the disk is full `append` raises RecordingStopped once, with the file
    ended after its last whole chunk; later calls do nothing, so that the walk goes on.
    """

    def __init__(
        self, path: str | Path, header: RecordingHeader, fsync: bool = False, overwrite: bool = False
    ) -> None:
        """Create the file.

        Args:
            path: Where to write.
            header: What the walk is made with.
            fsync: Also wait for the disk at each chunk: then a power cut, too, loses one chunk at most.
            overwrite: Whether an older file of that name may be lost; otherwise there must be none.
        """
        self.path = Path(path)
        self.num_chunks = 0
        self._fsync = fsync
        self._digest = chain(MAGIC)
        self._file: BinaryIO | None = None
        if self.path.suffix != SUFFIX:
            raise ValueError(f"a recording's name ends in {SUFFIX}, got {self.path.name!r}")
        try:
            check_absent(self.path, overwrite)
            self._file = self.path.open("wb" if overwrite else "xb")
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
            refined=track.refine,
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


def pack(record: BaseModel, digest: bytes) -> tuple[bytes, bytes]:
    """Return a record's bytes and its digest, which continues that of the record before."""
    payload = msgpack.packb(record.model_dump())
    assert isinstance(payload, bytes)
    field = length_field(len(payload))
    digest = chain(digest + field + payload)
    return field + payload + digest, digest
