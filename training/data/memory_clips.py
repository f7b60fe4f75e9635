"""Clips of frames beside what a spatial memory shows of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.files.atomic import replacing

Video = NDArray[np.uint8]
"""Frames, [F, H, W, 3]."""
NAMES = ("color", "inverse_depth", "memory", "memory_depth", "c2w")
"""Of the arrays; the last one's file is written last, so it says that all are whole."""


@dataclass(frozen=True, eq=False)
class MemoryClips:
    """Clips in one array each, N clips of F = 1 + R n frames."""

    color: NDArray[np.uint8]
    """Truth, [N, F, H, W, 3]."""
    inverse_depth: NDArray[np.float16]
    """Truth, [N, F, H, W], 1/m; NaN where nobody knows it."""
    memory: NDArray[np.uint8]
    """Rendering of the memory, colour and coverage in 0 or 255, [N, F, H, W, 4]."""
    memory_depth: NDArray[np.float16]
    """Its inverse depth, [N, F, H, W]."""
    c2w: NDArray[np.float64]
    """[N, F, 4, 4]."""

    @classmethod
    def of_video(cls, frames: Video) -> MemoryClips:
        """Make one clip of a video [F, H, W, 3] whose depth nobody knows, beside a memory that holds nothing."""
        size = (1, *frames.shape[:3])
        return cls(
            frames[None],
            np.broadcast_to(np.float16(np.nan), size),
            np.broadcast_to(np.uint8(0), (*size, 4)),
            np.broadcast_to(np.float16(0), size),
            np.broadcast_to(np.eye(4), (*size[:2], 4, 4)),
        )

    @staticmethod
    def are_at(folder: Path, stem: str) -> bool:
        """Whether clips of that name lie in a folder, whole."""
        return (folder / f"{stem}.{NAMES[-1]}.npy").exists()

    def save(self, folder: Path, stem: str) -> None:
        """Write a file for each array.

        Raises:
            ValueError: The disk is full or the folder cannot be written.
        """
        for name in NAMES:
            with replacing(folder / f"{stem}.{name}.npy") as temporary:
                np.save(temporary, getattr(self, name), allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, stem: str) -> MemoryClips:
        """Map what `save` wrote into memory."""
        arrays = (np.load(folder / f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in NAMES)
        return cls(*arrays)
