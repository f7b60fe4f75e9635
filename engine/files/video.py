"""MP4 files that appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from engine.files.atomic import replacing

SUFFIX = ".mp4"
DESCRIPTION_KEY = "comment"
"""Metadata entry that holds a video's description, JSON; every player shows it."""
MAX_DESCRIPTION_CHARS = 1 << 20
CRF = 15
"""x264's constant quality: no loss the eye can see at these sizes."""
MPEG4_QUANTISER = 3
"""Quality of the older codec, used where FFmpeg was built without H.264."""


class VideoWriter:
    """Encodes frames one chunk after another; for one thread."""

    def __init__(self, container: OutputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self.num_frames = 0

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Encode frames [F, H, W, 3], RGB."""
        size = (self._stream.height, self._stream.width, 3)
        if frames.ndim != 4 or frames.shape[1:] != size or frames.dtype != np.uint8:
            raise ValueError(
                f"the video takes uint8 frames of shape [F, *{size}], got {frames.dtype} {frames.shape}"
            )
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format="yuv420p"
            )
            frame.pts = self.num_frames
            self._container.mux(self._stream.encode(frame))
            self.num_frames += 1

    def finish(self) -> None:
        """Write out what the encoder still holds."""
        self._container.mux(self._stream.encode(None))


@contextmanager
def open_video(
    path: str | Path,
    frame_size: tuple[int, int],
    fps: float,
    description: Mapping[str, Any] | None = None,
    repeatable: bool = False,
) -> Iterator[VideoWriter]:
    """Yield a writer to the MP4 file `path`, which appears when the block ends well and not otherwise.

    Args:
        path: A name ending in .mp4.
        frame_size: Width and height in pixels, both even.
        fps: Frames per second.
        description: What the video says of itself, kept as JSON in its metadata.
        repeatable: Encode so that equal frames make equal files: in one thread, and without x264's propagation of quality from
            block to block, whose sums depend on where its memory lies.
    """
    path = Path(path)
    width, height = frame_size
    if path.suffix.lower() != SUFFIX:
        raise ValueError(f"a video's name ends in {SUFFIX}, got {path.name!r}")
    if width % 2 or height % 2:
        raise ValueError(f"a video needs an even width and height, got {width}x{height}")
    with replacing(path) as temporary:
        try:
            with av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as container:
                if description is not None:
                    container.metadata[DESCRIPTION_KEY] = json.dumps(dict(description))
                writer = VideoWriter(container, _add_stream(container, width, height, fps, repeatable))
                yield writer
                writer.finish()
        except av.error.FFmpegError as error:
            raise ValueError(
                f"cannot write the video {path}: {error.strerror or error}; free some space"
            ) from error


def read_video_description(path: str | Path) -> dict[str, Any]:
    """Return the description `open_video` was given; empty if the video has none of ours.

    Raises:
        ValueError: It is no video, in one sentence.
    """
    try:
        with av.open(str(path)) as container:
            text = container.metadata.get(DESCRIPTION_KEY, "")
    except (OSError, av.error.FFmpegError) as error:
        raise ValueError(
            f"cannot read the video {path}: {error.strerror or error}; check the path"
        ) from error
    if len(text) > MAX_DESCRIPTION_CHARS:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _add_stream(
    container: OutputContainer, width: int, height: int, fps: float, repeatable: bool
) -> VideoStream:
    rate = Fraction(fps).limit_denominator(1001)
    equal = {"x264-params": "mbtree=0"} if repeatable else {}
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate, options={"crf": str(CRF), "preset": "medium", **equal})
    else:
        stream = container.add_stream("mpeg4", rate)
        stream.bit_rate = None
        stream.options = {"qscale": str(MPEG4_QUANTISER)}
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv420p"
    if repeatable:
        stream.codec_context.thread_count = 1
    return stream
