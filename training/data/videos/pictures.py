"""Frames of a video that is a list of picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.videos.frames import choose_stored, fit_picture

MAX_PICTURE_BYTES = 1 << 28


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
        self._as_stored = False
        height, width = read_picture(paths[0]).shape[:2]
        self.size = width, height

    def fit_shape(self, said: tuple[int, int] | None) -> None:
        """Read pictures upright, unless poses were made for them as they are stored, whatever their EXIF says."""
        height, width = read_picture(self.paths[0], as_stored=True).shape[:2]
        self._as_stored = choose_stored(said, self.size, (width, height), True, self.paths[0].parent)
        if self._as_stored:
            self.size = width, height

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read the wanted files."""
        pictures = []
        for number in numbers:
            picture = read_picture(self.paths[number], self._as_stored)
            if picture.shape[1::-1] != self.size:
                raise ValueError(
                    f"the picture {self.paths[number]} is {picture.shape[1]}x{picture.shape[0]}, others are "
                    f"{self.size[0]}x{self.size[1]}; keep those of one size"
                )
            pictures.append(fit_picture(picture, size))
        return np.stack(pictures)


def read_picture(path: Path, as_stored: bool = False) -> NDArray[np.uint8]:
    """Read a picture file, [H, W, 3] RGB; what is transparent is laid over white.

    Args:
        as_stored: Leave the picture as its pixels lie, instead of turning it upright by its EXIF entry.

    Raises:
        ValueError: It is no picture, or unreasonably large.
    """
    if path.stat().st_size > MAX_PICTURE_BYTES:
        raise ValueError(f"the picture {path} is over {MAX_PICTURE_BYTES >> 20} MB; scale it down")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
    try:
        picture = cv2.imdecode(data, flags) if len(data) else None
        layers = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if _has_alpha(data[:32].tobytes()) else None
    except cv2.error:
        # Sizes beyond OpenCV's own limit.
        picture = layers = None
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read; save it as JPEG or PNG")
    if (
        layers is not None
        and layers.ndim == 3
        and layers.shape[2] == 4
        and layers.shape[:2] == picture.shape[:2]
    ):
        opacity = layers[..., 3:].astype(np.float32) / np.iinfo(layers.dtype.name).max
        picture = np.round(picture * opacity + 255.0 * (1.0 - opacity))
    return np.asarray(picture[..., ::-1], np.uint8)


def _has_alpha(head: bytes) -> bool:
    """Whether the first bytes of a PNG or WebP file announce transparency."""
    if head.startswith(b"\x89PNG"):
        return len(head) > 25 and head[25] in (4, 6)
    return head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 0x10)
