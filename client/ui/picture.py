"""Small frames enlarged to a window: which rectangle they fill, and with what edges."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from client.camera.depth_warp import DepthFrame, behind
from client.camera.late_reprojection import homography, warp
from engine.memory.rendering import Surroundings
from engine.memory.sources import View

Style = Literal["crisp", "smooth", "pixels"]

_OVERSIZE = 4
"""Enlargement at which edges are redrawn, and at which frames are warped; more costs time and shows nothing new."""
_LARGE_PX = 240
"""Wider frames are redrawn and warped at half of that, in a third of the time: their edges are finer already."""


def _smoothstep(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return t * t * (3.0 - 2.0 * t)


_STEEPER = np.rint(255.0 * _smoothstep(_smoothstep(np.linspace(0.0, 1.0, 256)))).astype(np.uint8)
"""An edge's ramp made 2.25 times as steep; twice as much again begins to show the frame's pixels as steps."""


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


def _oversize(width: int) -> int:
    return _OVERSIZE if width <= _LARGE_PX else _OVERSIZE // 2


def _redraw_edges(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge, pushing each value toward the nearer of its neighbourhood's extremes."""
    height, width = frame.shape[:2]
    oversize = _oversize(width)
    large = _resized(frame, width * oversize, height * oversize, cv2.INTER_LINEAR)
    # Just under two source pixels wide: an edge's ramp and both of its sides.
    neighbourhood = np.ones((2 * oversize - 1, 2 * oversize - 1), np.uint8)
    low = cv2.erode(large, neighbourhood)
    span = cv2.subtract(cv2.dilate(large, neighbourhood), low)
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
        self._inverse_depth: NDArray[np.float32] | None = None
        self._enlarged: dict[tuple[tuple[int, int], Style], NDArray[np.uint8]] = {}
        self._depth_frame: DepthFrame | None = None
        self._warped: tuple[object, NDArray[np.uint8]] | None = None

    def show(
        self,
        frame: NDArray[np.uint8],
        poses: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
        size: tuple[int, int],
        style: Style,
        inverse_depth: NDArray[np.float32] | None = None,
        surroundings: Surroundings | None = None,
    ) -> NDArray[np.uint8]:
        """Return the picture, BGRA [height, width, 4], opaque; the same array as before where nothing changed.

        Args:
            frame: [H, W, 3], RGB.
            poses: Camera-to-world poses [4, 4], that the frame was made for and of the live view; None shows the
                frame as it is.
            size: Width and height on the screen.
            style: How edges are drawn.
            inverse_depth: Of the frame, [H, W], 1/m; without it the frame is turned and not moved.
            surroundings: What the memory shows where the frame does not reach; without it that is filled from around.
        """
        if self._frame is not frame:
            self._frame = frame
            self._enlarged.clear()
            self._depth_frame = self._warped = None
        if self._inverse_depth is not inverse_depth:
            self._inverse_depth, self._depth_frame, self._warped = inverse_depth, None, None
        if poses is None:
            return self._at(size, style)
        key = size, style, poses[0].tobytes(), poses[1].tobytes(), surroundings
        if self._warped is None or self._warped[0] != key:
            height, width = frame.shape[:2]
            warped_size = min(size[0], _oversize(width) * width), min(size[1], _oversize(width) * height)
            large = self._at(warped_size, style)
            if inverse_depth is None and surroundings is None:
                mapping = homography(poses[0][:3, :3], poses[1][:3, :3], self._intrinsics)
                picture = warp(large, mapping, (width, height))
            else:
                picture = self._moved(large, inverse_depth, poses, surroundings)
            self._warped = key, picture if warped_size == size else _resized(picture, *size, cv2.INTER_LINEAR)
        return self._warped[1]

    def _moved(
        self,
        large: NDArray[np.uint8],
        inverse_depth: NDArray[np.float32] | None,
        poses: tuple[NDArray[np.float64], NDArray[np.float64]],
        surroundings: Surroundings | None,
    ) -> NDArray[np.uint8]:
        """Warp the present frame, enlarged, by its depth; the map is made at the frame's size and enlarged too."""
        assert self._frame is not None
        height, width = self._frame.shape[:2]
        if self._depth_frame is None:
            view = View(poses[0], self._intrinsics, width, height)
            # What is infinitely far turns with the camera and does not move.
            sky = np.zeros((height, width), np.float32)
            self._depth_frame = DepthFrame(self._frame, sky if inverse_depth is None else inverse_depth, view)
        view = View(poses[1], self._intrinsics, width, height)
        seen = self._depth_frame.seen_from(view)
        size = large.shape[1], large.shape[0]
        picture = seen.enlarged(*size).colors(large)
        hidden = behind(self._depth_frame, seen, view, surroundings)
        if hidden is not None:
            patch, holes = hidden
            mask = cv2.resize(holes, size, interpolation=cv2.INTER_LINEAR)
            mask = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
            cv2.copyTo(cv2.resize(patch, size, interpolation=cv2.INTER_LINEAR), mask, picture)
        return picture

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
