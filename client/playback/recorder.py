"""Keeps the whole walk since its first frame, and writes recordings and clips of it.

A walk can only be generated again from its beginning, so a recording that is started late begins there too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from client.playback.history import WalkFrame
from client.setup.folders import make_folder
from client.ui.picture import Style, enlarge
from engine.files.recording import SUFFIX as RECORDING_SUFFIX
from engine.files.recording import RecordedChunk, RecordingHeader
from engine.files.recording_writer import RecordingWriter
from engine.files.video import open_video

CLIP_WIDTH = 640
"""Small frames of a clip are enlarged about to this, by a whole factor, as they were on the screen."""


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

    def start(self, path: Path, header: RecordingHeader, overwrite: bool = False) -> None:
        """Begin a recording with everything walked so far.

        Raises:
            ValueError: The file cannot be made.
            RecordingStopped: The disk is full.
        """
        self._writer = RecordingWriter(path, header, overwrite=overwrite)
        self._write_all(self._walked)

    def resume_at(self, chunks: Sequence[RecordedChunk], header: RecordingHeader) -> Path | None:
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


@dataclass(frozen=True, eq=False)
class Clip:
    """What is to be kept, gathered on the client thread and written on another."""

    path: Path
    """Of the video; the recording beside it has the same stem."""
    frames: Sequence[WalkFrame]
    """What was on, oldest first; before the last run there may be frames of walks that were left."""
    fps: float
    style: Style
    header: RecordingHeader
    """Of the recording, which is replayed over the last run."""
    chunks: Sequence[RecordedChunk]
    """The walk from its first step to the last frame: only from there can it be walked again."""

    @property
    def recording_path(self) -> Path:
        return self.path.with_suffix(RECORDING_SUFFIX)

    @property
    def duration_s(self) -> float:
        return len(self.frames) / self.fps

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the video, pixels, both even."""
        height, width = self.frames[0].pixels.shape[:2]
        factor = max(1, CLIP_WIDTH // width)
        factor += factor % 2 if width % 2 or height % 2 else 0
        return width * factor, height * factor

    def description(self) -> dict[str, Any]:
        """Return what the video says of itself; its poses are those of the last run's first and last frame."""
        header, bundle_sha256 = self.header, self.header.identity.partition(":")[0]
        first, last = self._run()
        return {
            **header.model_dump(
                include={
                    *("app_version", "seed", "backend", "engine", "device", "weights_sha256"),
                    *("world", "world_sha256", "key_map", "fps"),
                }
            ),
            "bundle_sha256": bundle_sha256,
            "frame_size": list(self.size),
            "num_frames": len(self.frames),
            "first_frame": first.index,
            "last_frame": last.index,
            "start_c2w": first.c2w.tolist(),
            "c2w": last.c2w.tolist(),
            "poses": self.recording_path.name,
            "poses_sha256": hashlib.sha256(
                b"".join(frame.c2w.tobytes() for frame in self.frames)
            ).hexdigest(),
        }

    def _run(self) -> tuple[WalkFrame, WalkFrame]:
        """Return the first and the last frame of the last run."""
        last = self.frames[-1]
        first = self.frames[max(-len(self.frames), self.header.first_frame - last.index - 1)]
        return first, last


def write_clip(clip: Clip, report: Callable[[float], None]) -> None:
    """Write the recording and the video; a video that cannot be written leaves the recording, which is whole.

    Args:
        report: Told how much of it is written, 0 to 1.

    Raises:
        ValueError, RecordingStopped: In one sentence.
    """
    make_folder(clip.path.parent)
    with RecordingWriter(clip.recording_path, clip.header) as recording:
        for chunk in clip.chunks:
            recording.append(chunk.track, chunk.latents_sha256, chunk.intents, chunk.latents)
    with open_video(clip.path, clip.size, clip.fps, clip.description()) as video:
        for number, frame in enumerate(clip.frames):
            video.write(enlarge(frame.pixels, *clip.size, clip.style)[None])
            report((number + 1) / len(clip.frames))
