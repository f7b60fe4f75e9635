"""The picture of the walk at its size on the screen: enlarged once a frame, turned to the live view at display rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.picture import Style, enlarge
from client.reproject import homography, turned, warp


class LivePicture:
    """Keeps the last enlarged frame and the last picture made of it, so that nothing is done twice."""

    def __init__(self, intrinsics: NDArray[np.float32]) -> None:
        """Show frames of a camera with these fx, fy, cx, cy, [4], in frame pixels."""
        self._intrinsics = intrinsics
        self._frame: NDArray[np.uint8] | None = None
        self._enlarged: tuple[object, NDArray[np.uint8]] | None = None
        self._shown: tuple[object, NDArray[np.uint8]] | None = None

    def show(
        self,
        frame: NDArray[np.uint8],
        c2w: NDArray[np.float64],
        turn_rad: tuple[float, float],
        size: tuple[int, int],
        style: Style,
    ) -> NDArray[np.uint8]:
        """Return the picture; the same array as before where nothing changed.

        Args:
            frame: [H, W, 3], RGB.
            c2w: Pose the frame was made for, [4, 4].
            turn_rad: How far the live view is to the right of and above it.
            size: Width and height on the screen.
            style: How edges are drawn.
        """
        key = (size, style)
        if self._enlarged is None or self._enlarged[0] != key or self._frame is not frame:
            self._frame = frame
            self._enlarged = key, enlarge(frame, *size, style)
            self._shown = None
        if self._shown is None or self._shown[0] != turn_rad:
            self._shown = turn_rad, self._turn(frame, c2w, turn_rad)
        return self._shown[1]

    def _turn(
        self, frame: NDArray[np.uint8], c2w: NDArray[np.float64], turn_rad: tuple[float, float]
    ) -> NDArray[np.uint8]:
        assert self._enlarged is not None
        if turn_rad == (0.0, 0.0):
            return self._enlarged[1]
        mapping = homography(c2w, turned(c2w, *turn_rad), self._intrinsics)
        return warp(self._enlarged[1], mapping, (frame.shape[1], frame.shape[0]))
