"""Frames of a video at chosen moments, from a video file or from a list of picture files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES
from engine.camera.tracks import cover

MAX_PIXELS = 1 << 26
"""Of one picture; a video that claims more is damaged or hostile."""
MAX_PICTURE_BYTES = 1 << 28


class VideoFrames(Protocol):
    """Where the pictures of a video come from."""

    times_s: NDArray[np.float64] | None
    """When each picture was taken, rising, [P]; None where nothing says so."""
    size: tuple[int, int]
    """Width and height in pixels."""

    def __len__(self) -> int: ...

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read pictures by number (not falling, repeats allowed), resized to cover `size` and cropped: [N, H, W, 3] RGB.

        Raises:
            ValueError: The video is damaged, in one sentence.
        """
        ...


def fit_picture(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a picture [h, w, 3] to cover `size` and crop it about its centre, as `map_intrinsics` maps its lens."""
    height, width = picture.shape[:2]
    resized, (left, top) = cover((width, height), size)
    how = cv2.INTER_AREA if resized[0] <= width else cv2.INTER_CUBIC
    fitted = np.asarray(cv2.resize(picture, resized, interpolation=how), np.uint8)
    return fitted[top : top + size[1], left : left + size[0]]


class DecodedFrames:
    """The frames of a video file; they are decoded when they are read, and only those near."""

    def __init__(self, path: Path) -> None:
        """Find out when each frame is shown, without decoding any.

        Raises:
            ValueError: It is no video, or damaged.
        """
        self.path = path
        with _opened(path) as (container, stream):
            self.size = stream.codec_context.width, stream.codec_context.height
            if not 0 < self.size[0] * self.size[1] <= MAX_PIXELS:
                raise ValueError(f"the video {path} claims frames of {self.size[0]}x{self.size[1]}; check it")
            shown = []
            for packet in container.demux(stream):
                if packet.pts is not None:
                    shown.append(packet.pts)
                if len(shown) > MAX_FRAMES:
                    raise ValueError(f"the video {path} has over {MAX_FRAMES} frames; cut it")
            if not shown or stream.time_base is None:
                raise ValueError(f"the video {path} has no frames; check it")
            self._base = float(stream.time_base)
        self._shown = np.unique(np.array(shown, np.int64))
        self.times_s: NDArray[np.float64] | None = (self._shown - self._shown[0]) * self._base

    def __len__(self) -> int:
        return len(self._shown)

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Decode from the key frame before the first wanted frame to the last."""
        pictures = np.empty((len(numbers), size[1], size[0], 3), np.uint8)
        found = np.zeros(len(numbers), bool)
        with _opened(self.path) as (container, stream):
            container.seek(int(self._shown[numbers[0]]), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                wanted = numbers == np.searchsorted(self._shown, frame.pts)
                if wanted.any():
                    pictures[wanted] = fit_picture(
                        np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), size
                    )
                    found |= wanted
                if frame.pts >= self._shown[numbers[-1]]:
                    break
        if not found.all():
            missing = int(numbers[~found][0])
            raise ValueError(
                f"the video {self.path} is damaged: frame {missing} cannot be decoded; fetch it again"
            )
        return pictures


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video; damage becomes one sentence."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no pictures, only sound; check the path")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(
            f"cannot read the video {path}: {error.strerror or error}; fetch it again"
        ) from error


class ImageFrames:
    """Picture files in the order of the video."""

    def __init__(self, paths: Sequence[Path], times_s: NDArray[np.float64] | None = None) -> None:
        """Look at the first picture for the size of all.

        Raises:
            ValueError: A picture is missing, or the first cannot be read.
        """
        if missing := [path for path in paths if not path.is_file()]:
            raise ValueError(f"there is no picture {missing[0]}; {len(missing)} of {len(paths)} are missing")
        self.paths, self.times_s = list(paths), times_s
        height, width = read_picture(paths[0]).shape[:2]
        self.size = width, height

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read the wanted files."""
        pictures = []
        for number in numbers:
            picture = read_picture(self.paths[number])
            if picture.shape[1::-1] != self.size:
                raise ValueError(
                    f"the picture {self.paths[number]} is {picture.shape[1]}x{picture.shape[0]}, others are "
                    f"{self.size[0]}x{self.size[1]}; keep those of one size"
                )
            pictures.append(fit_picture(picture, size))
        return np.stack(pictures)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture file, [H, W, 3] RGB.

    Raises:
        ValueError: It is no picture, or unreasonably large.
    """
    if path.stat().st_size > MAX_PICTURE_BYTES:
        raise ValueError(f"the picture {path} is over {MAX_PICTURE_BYTES >> 20} MB; scale it down")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:
        # Sizes beyond OpenCV's own limit.
        picture = None
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read; save it as JPEG or PNG")
    return np.asarray(picture[..., ::-1], np.uint8)
