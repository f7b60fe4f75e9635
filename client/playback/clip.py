"""The last half minute of a walk, kept for whoever noticed the good moment after it was over."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.playback.past import WalkFrame
from client.setup.folders import make_folder
from client.ui.picture import Style, enlarge
from engine.files.recording import SUFFIX as RECORDING_SUFFIX
from engine.files.recording import RecordedChunk, RecordingHeader
from engine.files.recording_writer import RecordingWriter
from engine.files.video import open_video

CLIP_S = 30.0
CLIP_BYTES = 256 << 20
"""Frames of the pocket take 22 MB for half a minute; of larger worlds there are fewer seconds."""
WISHED_WIDTH = 640
"""Small frames are enlarged about to this, by a whole factor, as they were on the screen."""


class RecentFrames:
    """The newest frames of a walk, within a length and a budget of memory."""

    def __init__(self, fps: float, frame_bytes: int, budget_bytes: int = CLIP_BYTES) -> None:
        count = min(round(CLIP_S * fps), budget_bytes // max(1, frame_bytes))
        self._frames: deque[WalkFrame] = deque(maxlen=max(1, count))

    def add(self, frame: WalkFrame) -> None:
        """Note the next frame."""
        self._frames.append(frame)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def until(self, index: int) -> tuple[WalkFrame, ...]:
        """Return the frames up to an index, oldest first."""
        return tuple(frame for frame in self._frames if frame.index <= index)

    def go_on_from(self, frame: WalkFrame) -> None:
        """Forget the frames after one, from which the walk goes on; all of them if it is not among them."""
        while self._frames and self._frames[-1] is not frame:
            self._frames.pop()
        if not self._frames:
            self._frames.append(frame)


@dataclass(frozen=True, eq=False)
class Clip:
    """What is to be kept, gathered on the client thread and written on another."""

    path: Path
    """Of the video; the recording beside it has the same stem."""
    frames: Sequence[WalkFrame]
    fps: float
    style: Style
    header: RecordingHeader
    chunks: Sequence[RecordedChunk]
    """The walk from its first step to the last frame: only from there can it be walked again."""

    @property
    def recording_path(self) -> Path:
        return self.path.with_suffix(RECORDING_SUFFIX)

    @property
    def duration_s(self) -> float:
        return len(self.frames) / self.fps

    def description(self) -> dict[str, Any]:
        """Return what the video says of itself; its poses are those of its first and its last frame."""
        header, bundle_sha256 = self.header, self.header.identity.partition(":")[0]
        return {
            **header.model_dump(
                include={
                    *("app_version", "seed", "backend", "engine", "device", "weights_sha256"),
                    *("world", "world_sha256", "key_map", "fps"),
                }
            ),
            "bundle_sha256": bundle_sha256,
            "first_frame": self.frames[0].index,
            "last_frame": self.frames[-1].index,
            "start_c2w": self.frames[0].c2w.tolist(),
            "c2w": self.frames[-1].c2w.tolist(),
            "poses": self.recording_path.name,
            "poses_sha256": hashlib.sha256(
                b"".join(frame.c2w.tobytes() for frame in self.frames)
            ).hexdigest(),
        }


def write_clip(clip: Clip) -> None:
    """Write the recording and the video; a video that cannot be written leaves the recording, which is whole.

    Raises:
        ValueError, RecordingStopped: In one sentence.
    """
    make_folder(clip.path.parent)
    with RecordingWriter(clip.recording_path, clip.header) as recording:
        for chunk in clip.chunks:
            recording.append(chunk.track, chunk.latents_sha256, chunk.intents, chunk.latents)
    height, width = clip.frames[0].pixels.shape[:2]
    # A video needs an even width and height.
    factor = max(1, WISHED_WIDTH // width)
    factor += factor % 2 if width % 2 or height % 2 else 0
    size = width * factor, height * factor
    with open_video(clip.path, size, clip.fps, clip.description()) as video:
        for frame in clip.frames:
            video.write(enlarge(frame.pixels, *size, clip.style)[None])
