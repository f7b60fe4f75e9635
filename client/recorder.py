"""Keeps the whole walk since its first frame, and writes it to a file while a recording is on.

A walk can only be generated again from its beginning, so a recording that is started late begins there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.recording import RecordingWriter
from engine.recording_format import RecordingHeader
from engine.types import CameraTrack


@dataclass(frozen=True, eq=False)
class WalkedChunk:
    """One chunk of the walk, as a recording keeps it."""

    track: CameraTrack
    latents_sha256: str
    intents: NDArray[np.float64] | None
    latents: NDArray[np.float32] | None


class WalkRecorder:
    """The walk so far, and the file it goes to."""

    def __init__(self) -> None:
        self._walked: list[WalkedChunk] = []
        self._writer: RecordingWriter | None = None

    @property
    def path(self) -> Path | None:
        """File being written; None while no recording is on."""
        return self._writer.path if self._writer is not None else None

    @property
    def num_chunks(self) -> int:
        """Chunks of the walk so far."""
        return len(self._walked)

    def add(self, chunk: WalkedChunk) -> None:
        """Note the next chunk, and write it if a recording is on.

        Raises:
            RecordingStopped: The disk is full; the walk can go on, the recording is over.
        """
        self._walked.append(chunk)
        if self._writer is not None:
            self._write(chunk)

    def start(self, path: Path, header: RecordingHeader) -> None:
        """Begin a recording with everything walked so far.

        Raises:
            ValueError: The file cannot be made.
            RecordingStopped: The disk is full.
        """
        self._writer = RecordingWriter(path, header)
        for chunk in self._walked:
            if self._writer is not None:
                self._write(chunk)

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

    def _write(self, chunk: WalkedChunk) -> None:
        assert self._writer is not None
        try:
            self._writer.append(chunk.track, chunk.latents_sha256, chunk.intents, chunk.latents)
        except Exception:
            self._writer = None
            raise
