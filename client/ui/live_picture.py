"""The picture of the walk at its size on the screen: enlarged once a frame, turned to the live view at display rate.

Pictures are in the order of a display's memory, BGRA: four bytes a pixel are turned in two thirds of the time that three
take, and drawn in two thirds of it too.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from client.camera.late_reprojection import homography, warp
from client.ui.picture import Style, enlarge

LARGEST_TURNED = 4
"""Enlargement at which a frame is turned; the rest is plain. Turning costs most of a display frame at the size of a
window, and a frame has no more detail than this shows."""


class LivePicture:
    """Keeps the last enlarged frame and the last picture made of it, so that nothing is done twice."""

    def __init__(self, intrinsics: NDArray[np.float32]) -> None:
        """Show frames of a camera with these fx, fy, cx, cy, [4], in frame pixels."""
        self._intrinsics = intrinsics
        self._frame: NDArray[np.uint8] | None = None
        self._enlarged: dict[tuple[tuple[int, int], Style], NDArray[np.uint8]] = {}
        self._turned: tuple[object, NDArray[np.uint8]] | None = None

    def show(
        self,
        frame: NDArray[np.uint8],
        rotations: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
        size: tuple[int, int],
        style: Style,
    ) -> NDArray[np.uint8]:
        """Return the picture, BGRA [height, width, 4], opaque; the same array as before where nothing changed.

        Args:
            frame: [H, W, 3], RGB.
            rotations: Camera-to-world rotations [3, 3], that the frame was made for and of the live view; None
                shows the frame as it is.
            size: Width and height on the screen.
            style: How edges are drawn.
        """
        if self._frame is not frame:
            self._frame = frame
            self._enlarged.clear()
            self._turned = None
        if rotations is None:
            return self._at(size, style)
        mapping = homography(*rotations, self._intrinsics)
        key = size, style, mapping.tobytes()
        if self._turned is None or self._turned[0] != key:
            self._turned = key, self._turn(frame, mapping, size, style)
        return self._turned[1]

    def _turn(
        self, frame: NDArray[np.uint8], mapping: NDArray[np.float64], size: tuple[int, int], style: Style
    ) -> NDArray[np.uint8]:
        height, width = frame.shape[:2]
        turned_size = min(size[0], LARGEST_TURNED * width), min(size[1], LARGEST_TURNED * height)
        turned = warp(self._at(turned_size, style), mapping, (width, height))
        if turned_size == size:
            return turned
        return np.asarray(cv2.resize(turned, size, interpolation=cv2.INTER_LINEAR), np.uint8)

    def _at(self, size: tuple[int, int], style: Style) -> NDArray[np.uint8]:
        """Return the present frame enlarged to a size, BGRA [height, width, 4]."""
        if (size, style) not in self._enlarged:
            assert self._frame is not None
            # A window that is being resized must not fill the memory with sizes nobody looks at any more.
            if len(self._enlarged) >= 4:
                self._enlarged.clear()
            picture = cv2.cvtColor(enlarge(self._frame, *size, style), cv2.COLOR_RGB2BGRA)
            self._enlarged[size, style] = np.asarray(picture, np.uint8)
        return self._enlarged[size, style]
