"""Small frames enlarged to a window: which rectangle they fill, and with what edges."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from client.camera.late_reprojection import homography, warp

Style = Literal["crisp", "smooth", "pixels"]

LARGEST_TURNED = 4
"""Enlargement at which a frame is turned; the rest is plain. Turning costs most of a display frame at the size of a
window, and a frame has no more detail than this shows."""
_OVERSIZE = 4
"""Enlargement at which edges are redrawn; more costs time and shows nothing new."""


def _smoothstep(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return t * t * (3.0 - 2.0 * t)


_STEEPER = np.rint(255.0 * _smoothstep(_smoothstep(np.linspace(0.0, 1.0, 256)))).astype(np.uint8)
"""An edge's ramp made 2.25 times as steep; twice as much again begins to show the frame's pixels as steps."""
_NEIGHBOURHOOD = np.ones((7, 7), np.uint8)
"""Just under two source pixels wide at `_OVERSIZE`: an edge's ramp and both of its sides."""


def fit_rect(width: int, height: int, room_width: int, room_height: int) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of the largest centred rectangle of the same shape."""
    scale = min(room_width / width, room_height / height)
    fitted_width = max(1, round(width * scale))
    fitted_height = max(1, round(height * scale))
    return (room_width - fitted_width) // 2, (room_height - fitted_height) // 2, fitted_width, fitted_height


def enlarge(frame: NDArray[np.uint8], width: int, height: int, style: Style = "crisp") -> NDArray[np.uint8]:
    """Resize a frame, [H, W, 3] uint8, to [height, width, 3].

    `crisp` steepens every edge between the colours on its two sides, so that large flat shapes look drawn
    at the window's size and no halo appears; `smooth` is plain cubic; `pixels` keeps the frame's own pixels.
    """
    if width < frame.shape[1] or height < frame.shape[0]:
        return _resized(frame, width, height, cv2.INTER_AREA)
    if style == "pixels":
        return _resized(frame, width, height, cv2.INTER_NEAREST)
    if style == "smooth" or width < 2 * frame.shape[1]:
        return _resized(frame, width, height, cv2.INTER_CUBIC)
    return _resized(_redraw_edges(frame), width, height, cv2.INTER_LINEAR)


def stay_on_one_thread() -> None:
    """Make OpenCV work on the thread that calls it, here and in the whole process.

    Handing a small picture's parts to other threads takes longer than doing them, and far longer beside a model
    that keeps every core busy: 10 ms instead of 1.6 for the edges of one frame.
    """
    cv2.setNumThreads(1)


def _redraw_edges(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge by `_OVERSIZE`, pushing each value toward the nearer of its neighbourhood's extremes."""
    height, width = frame.shape[:2]
    large = _resized(frame, width * _OVERSIZE, height * _OVERSIZE, cv2.INTER_LINEAR)
    low = cv2.erode(large, _NEIGHBOURHOOD)
    span = cv2.subtract(cv2.dilate(large, _NEIGHBOURHOOD), low)
    place = cv2.divide(cv2.subtract(large, low), span, scale=255)
    steep = cv2.LUT(place, _STEEPER)
    return np.asarray(cv2.add(low, cv2.multiply(steep, span, scale=1 / 255)), np.uint8)


def _resized(frame: NDArray[np.uint8], width: int, height: int, filter_: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(frame, (width, height), interpolation=filter_), np.uint8)


def crop_to(frame: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """Cut a frame, [H, W, 3], to a shape (width / height) around its middle."""
    height, width = frame.shape[:2]
    if width / height > aspect:
        keep = max(1, round(height * aspect))
        return frame[:, (width - keep) // 2 : (width - keep) // 2 + keep]
    keep = max(1, round(width / aspect))
    return frame[(height - keep) // 2 : (height - keep) // 2 + keep]


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
