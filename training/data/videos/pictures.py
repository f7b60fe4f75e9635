"""Frames of a video that is a list of picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.files.pictures import read_rgb
from training.data.videos.frames import choose_stored, fit_picture


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
        height, width = read_rgb(paths[0]).shape[:2]
        self.size = width, height

    def fit_shape(self, said: tuple[int, int] | None) -> None:
        """Read pictures upright, unless poses were made for them as they are stored, whatever their EXIF says."""
        height, width = read_rgb(self.paths[0], as_stored=True).shape[:2]
        self._as_stored = choose_stored(said, self.size, (width, height), True, self.paths[0].parent)
        if self._as_stored:
            self.size = width, height

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read the wanted files."""
        pictures = []
        for number in numbers:
            picture = read_rgb(self.paths[number], self._as_stored)
            if picture.shape[1::-1] != self.size:
                raise ValueError(
                    f"the picture {self.paths[number]} is {picture.shape[1]}x{picture.shape[0]}, others are "
                    f"{self.size[0]}x{self.size[1]}; keep those of one size"
                )
            pictures.append(fit_picture(picture, size))
        return np.stack(pictures)
