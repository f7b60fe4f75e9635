"""The picture of the walk at its size on the screen: enlarged once a frame, turned to the live view at display rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.picture import Style, enlarge
from client.reproject import homography, warp


class LivePicture:
    """Keeps the last enlarged frame and the last picture made of it, so that nothing is done twice."""

    def __init__(self, intrinsics: NDArray[np.float32]) -> None:
        """Show frames of a camera with these fx, fy, cx, cy, [4], in frame pixels."""
        self._intrinsics = intrinsics
        self._frame: NDArray[np.uint8] | None = None
        self._enlarged: tuple[object, NDArray[np.uint8]] | None = None
        self._turned: tuple[NDArray[np.float64], NDArray[np.uint8]] | None = None

    def show(
        self,
        frame: NDArray[np.uint8],
        rotations: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
        size: tuple[int, int],
        style: Style,
    ) -> NDArray[np.uint8]:
        """Return the picture; the same array as before where nothing changed.

        Args:
            frame: [H, W, 3], RGB.
            rotations: Camera-to-world rotations [3, 3], that the frame was made for and of the live view; None
                shows the frame as it is.
            size: Width and height on the screen.
            style: How edges are drawn.
        """
        key = (size, style)
        if self._enlarged is None or self._enlarged[0] != key or self._frame is not frame:
            self._frame = frame
            self._enlarged = key, enlarge(frame, *size, style)
            self._turned = None
        if rotations is None:
            return self._enlarged[1]
        mapping = homography(*rotations, self._intrinsics)
        if self._turned is None or not np.array_equal(self._turned[0], mapping):
            turned = warp(self._enlarged[1], mapping, (frame.shape[1], frame.shape[0]))
            self._turned = mapping, turned
        return self._turned[1]
