"""Keeps the whole walk since its first frame, and writes it to a file while a recording is on.

A walk can only be generated again from its beginning, so a recording that is started late begins there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.files.recording import RecordedChunk, RecordingHeader
from engine.files.recording_writer import RecordingWriter


class WalkRecorder:
    """The walk so far, and the file it goes to."""

    def __init__(self, record_latents: bool = False) -> None:
        """Keep a walk; with `record_latents` a recording holds the latents of the chunks made while it is on."""
        self._record_latents = record_latents
        self._walked: list[RecordedChunk] = []
        self._writer: RecordingWriter | None = None

    @property
    def path(self) -> Path | None:
        """File being written; None while no recording is on."""
        return self._writer.path if self._writer is not None else None

    @property
    def num_chunks(self) -> int:
        """Chunks of the walk so far."""
        return len(self._walked)

    def walked(self, num_chunks: int) -> tuple[RecordedChunk, ...]:
        """Return the first chunks of the walk; none holds its latents."""
        return tuple(self._walked[:num_chunks])

    def add(self, chunk: RecordedChunk) -> None:
        """Note the next chunk, and write it if a recording is on.

        Raises:
            RecordingStopped: The disk is full; the walk can go on, the recording is over.
        """
        self._walked.append(replace(chunk, latents=None))
        if self._writer is not None:
            self._write(chunk if self._record_latents else self._walked[-1])

    def start(self, path: Path, header: RecordingHeader) -> None:
        """Begin a recording with everything walked so far.

        Raises:
            ValueError: The file cannot be made.
            RecordingStopped: The disk is full.
        """
        self._writer = RecordingWriter(path, header)
        self._write_all(self._walked)

    def go_on_from(self, chunks: Sequence[RecordedChunk], header: RecordingHeader) -> Path | None:
        """Take another walk's chunks for the walk so far: of an earlier moment, of a branch, of a saved walk.

        A recording that is on ends whole, and another begins with these chunks, so that each holds one walk
        from its first step and verifies; what both share is copied, latents and all.

        Returns:
            The file that ended, None where no recording was on.

        Raises:
            ValueError: The new file cannot be made; the recording is over.
            RecordingStopped: The disk is full; the recording is over.
        """
        shared = num_shared(self._walked, chunks)
        self._walked = list(chunks)
        writer, self._writer = self._writer, None
        if writer is None or writer.stopped:
            return None
        try:
            path = next_take(writer.path)
            if writer.header == header:
                self._writer = writer.fork(path, shared)
            else:
                self._writer, shared = RecordingWriter(path, header), 0
        finally:
            writer.close()
        self._write_all(self._walked[shared:])
        return writer.path if writer.num_chunks else None

    def stop(self) -> Path | None:
        """End the recording; return its file, or None where there was nothing to keep.

        Raises:
            RecordingStopped: The disk is full; what was written before is whole.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return None
        writer.close()
        return writer.path if writer.num_chunks else None

    def forget(self) -> None:
        """Begin a new walk; a recording must be stopped before."""
        assert self._writer is None, "a recording holds one walk"
        self._walked.clear()

    def _write_all(self, chunks: Sequence[RecordedChunk]) -> None:
        for chunk in chunks:
            if self._writer is not None:
                self._write(chunk)

    def _write(self, chunk: RecordedChunk) -> None:
        assert self._writer is not None
        try:
            self._writer.append(chunk.track, chunk.latents_sha256, chunk.intents, chunk.latents)
        except Exception:
            self._writer = None
            raise


def num_shared(walked: Sequence[RecordedChunk], others: Sequence[RecordedChunk]) -> int:
    """Return how many chunks two walks share from their first step on."""
    count = 0
    for one, other in zip(walked, others, strict=False):
        if one is not other and not _is_same(one, other):
            break
        count += 1
    return count


def _is_same(one: RecordedChunk, other: RecordedChunk) -> bool:
    same_latents = one.latents_sha256 == other.latents_sha256
    return same_latents and np.array_equal(one.track.c2w, other.track.c2w)


def next_take(path: Path) -> Path:
    """Return the next free name behind a recording's: walk, walk-2, walk-3."""
    stem, _, number = path.stem.rpartition("-")
    take = int(number) + 1 if stem and number.isdigit() and len(number) < 4 else 2
    base = stem if take > 2 else path.stem
    while (candidate := path.with_name(f"{base}-{take}{path.suffix}")).exists():
        take += 1
    return candidate
