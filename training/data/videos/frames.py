"""Frames of a video at chosen moments, from a video file; what picture files share with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES
from engine.camera.tracks import cover

MAX_PIXELS = 1 << 26
"""Of one picture; a video that claims more is damaged or hostile."""
NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""What players do not show as the film."""


class VideoFrames(Protocol):
    """Where the pictures of a video come from."""

    times_s: NDArray[np.float64] | None
    """When each picture was taken, rising, [P]; None where nothing says so."""
    size: tuple[int, int]
    """Width and height in pixels, turned upright as a player shows it."""

    def fit_shape(self, said: tuple[int, int] | None) -> None:
        """Read the pictures in the shape that poses were made for: turned upright, or as they are stored.

        Args:
            said: Width and height that the poses' file says, at any scale; without them pictures are upright.

        Raises:
            ValueError: The pictures have neither shape.
        """
        ...

    def __len__(self) -> int: ...

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read pictures by number (not falling, repeats allowed), resized to cover `size` and cropped: [N, H, W, 3] RGB.

        Raises:
            ValueError: The video is damaged, in one sentence.
        """
        ...


def fit_picture(
    picture: NDArray[np.uint8], size: tuple[int, int], shown: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Resize a picture [h, w, 3] to cover `size` and crop it about its centre, as `map_intrinsics` maps its lens.

    Args:
        shown: Width and height that it is shown with, where its pixels are not square.
    """
    width, height = shown or picture.shape[1::-1]
    resized, (left, top) = cover((width, height), size)
    how = cv2.INTER_AREA if resized[0] <= picture.shape[1] else cv2.INTER_CUBIC
    fitted = np.asarray(cv2.resize(picture, resized, interpolation=how), np.uint8)
    return fitted[top : top + size[1], left : left + size[0]]


def choose_stored(
    said: tuple[int, int] | None,
    upright: tuple[int, int],
    stored: tuple[int, int],
    prefers_stored: bool,
    source: Path,
) -> bool:
    """Whether poses were made for pictures as they are stored, by the width and height that their file says.

    Raises:
        ValueError: They were made for pictures of another shape.
    """
    if said is None:
        return False
    shapes = [(True, stored), (False, upright)] if prefers_stored else [(False, upright), (True, stored)]
    # Pictures that were scaled down keep their shape, to a pixel, and their lens is scaled with them.
    for allowed_px in (None, 1.0):
        for as_stored, (width, height) in shapes:
            off = abs(said[1] * width / said[0] - height)
            if said == (width, height) or (allowed_px is not None and off <= allowed_px):
                return as_stored
    raise ValueError(
        f"{source} has pictures of {upright[0]}x{upright[1]}, its poses are for {said[0]}x{said[1]}; "
        "give poses of pictures of that shape"
    )


class DecodedFrames:
    """The frames of a video file as a player shows them; they are decoded when they are read, and only those near."""

    def __init__(self, path: Path) -> None:
        """Find out when each frame is shown. Only decoding tells: edit lists, hidden frames and lost times decide.

        Raises:
            ValueError: It is no video, or damaged.
        """
        self.path, self._as_stored = path, False
        shown: list[int | None] = []
        self._index = _film_index(path)
        with _opened(path) as container:
            stream = self._stream(container)
            for frame in _decoded(container, stream):
                if not shown:
                    self._read_shape(frame, stream)
                shown.append(frame.pts)
                if len(shown) > MAX_FRAMES:
                    raise ValueError(f"the video {path} has over {MAX_FRAMES} frames; cut it")
            if not shown:
                raise ValueError(f"the video {path} has no frames; check it")
            base, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        pts = np.array([-1 if time is None else time for time in shown], np.int64)
        self._is_timed = base is not None and None not in shown and bool((np.diff(pts) > 0).all())
        self._numbers = {int(time): number for number, time in enumerate(pts)} if self._is_timed else {}
        self._pts = pts
        self.times_s: NDArray[np.float64] | None = None
        if self._is_timed and base is not None:
            self.times_s = (pts - pts[0]) * float(base)
        elif rate:
            self.times_s = np.arange(len(pts)) / float(rate)

    def _stream(self, container: InputContainer) -> VideoStream:
        stream = container.streams[self._index]
        assert isinstance(stream, VideoStream), "the index is of pictures"
        stream.thread_type = "AUTO"
        return stream

    def _read_shape(self, frame: av.VideoFrame, stream: VideoStream) -> None:
        self._matrix = _display_matrix(frame)
        self.stored_size = frame.width, frame.height
        if not 0 < frame.width * frame.height <= MAX_PIXELS:
            raise ValueError(f"the video {self.path} claims frames of {frame.width}x{frame.height}; check it")
        aspect = float(stream.sample_aspect_ratio or 1.0)
        width, height = max(1, round(frame.width * aspect)), frame.height
        self.size = (height, width) if self._matrix[0, 0] == 0 else (width, height)

    def __len__(self) -> int:
        return len(self._pts)

    def fit_shape(self, said: tuple[int, int] | None) -> None:
        """Read frames upright, unless poses were made for frames as they are stored."""
        self._as_stored = choose_stored(said, self.size, self.stored_size, False, self.path)
        if self._as_stored:
            self.size, self._matrix = self.stored_size, np.eye(2, dtype=np.int64)

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Decode from the key frame before the first wanted frame to the last; where that fails, from the beginning."""
        pictures = np.empty((len(numbers), size[1], size[0], 3), np.uint8)
        found = np.zeros(len(numbers), bool)
        for seeks in (True, False) if self._is_timed else (False,):
            for number, frame in self._frames(int(numbers[0]) if seeks else None):
                wanted = (numbers == number) & ~found
                if wanted.any():
                    picture = turn(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), self._matrix)
                    pictures[wanted] = fit_picture(picture, size, self.size)
                    found |= wanted
                if number >= numbers[-1]:
                    break
            if found.all():
                return pictures
        missing = int(numbers[~found][0])
        raise ValueError(
            f"the video {self.path} is damaged: frame {missing} cannot be decoded; fetch it again"
        )

    def _frames(self, first: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield frames and their numbers, from the key frame before one on or from the beginning."""
        with _opened(self.path) as container:
            stream = self._stream(container)
            if first is None:
                yield from enumerate(_decoded(container, stream))
                return
            container.seek(int(self._pts[first]), stream=stream, backward=True)
            for frame in _decoded(container, stream):
                if frame.pts is not None and (number := self._numbers.get(frame.pts)) is not None:
                    yield number, frame


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Decode a stream; like players, go on after a packet that cannot be decoded."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                yield frame


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int64]:
    """How a player turns or mirrors a frame: signs [2, 2], (x, y) of the frame times it is (x, y) on the screen."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2, dtype=np.int64)
    values = np.frombuffer(bytes(data), np.int32)
    matrix = np.round(values[[0, 1, 3, 4]].reshape(2, 2) / (1 << 16)).astype(np.int64)
    # Players turn by right angles; whatever else a file asks for is left upright.
    is_turn = np.array_equal(np.abs(matrix), np.eye(2)) or np.array_equal(np.abs(matrix), np.eye(2)[::-1])
    return matrix if is_turn else np.eye(2, dtype=np.int64)


def turn(picture: NDArray[np.uint8], matrix: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Turn and mirror a picture [h, w, 3] by right angles, as `_display_matrix` says."""
    if matrix[0, 0] == 0:
        picture = picture.transpose(1, 0, 2)
    right, down = matrix.sum(axis=0)
    return np.ascontiguousarray(picture[::down, ::right])


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Open a video; damage becomes one sentence."""
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(
            f"cannot read the video {path}: {error.strerror or error}; fetch it again"
        ) from error


def _film_index(path: Path) -> int:
    """Choose the film among a file's streams, as players do: covers and thumbnails, marked or of one frame, are none."""
    with _opened(path) as container:
        films = [stream.index for stream in container.streams.video if not stream.disposition & NO_FILM]
        if not films:
            raise ValueError(f"{path} has no film, only sound or a cover; check the path")
        if len(films) == 1:
            return films[0]
        best = container.streams.best("video")
        packets = Counter(
            packet.stream.index for packet in container.demux(*container.streams.video) if packet.size
        )
    moving = [index for index in films if packets[index] > 1] or films
    return best.index if best is not None and best.index in moving else moving[0]
