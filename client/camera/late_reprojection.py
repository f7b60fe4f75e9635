"""Late reprojection: a frame made for one view direction, shown as seen from another.

Under pure rotation the two pictures are related by an exact homography, K R K^-1, whatever the scene holds. Camera-to-world,
OpenCV axes. Pixel coordinates here are continuous: the first pixel covers 0 to 1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_TURN_RAD = math.radians(20.0)
"""Farthest that a frame is turned: beyond it too much of the window would be filled with its edges."""
LEAST_TURN_RAD = math.radians(0.02)
"""A turn below this is a fraction of a pixel of the largest window, and not worth the work."""


def homography(
    source: NDArray[np.float64], target: NDArray[np.float64], intrinsics: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the map of a picture's homogeneous pixels from one view direction to another, [3, 3].

    Args:
        source, target: Camera-to-world rotations [3, 3].
        intrinsics: fx, fy, cx, cy in pixels, [4].
    """
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    camera = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return camera @ target.T @ source @ np.linalg.inv(camera)


def warp(
    picture: NDArray[np.uint8], mapping: NDArray[np.float64], frame_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Show an enlarged frame through a homography; what it does not cover is filled with its nearest edge.

    Args:
        picture: The frame at any size, [h, w, 3] or [h, w, 4].
        mapping: In pixels of the frame, [3, 3].
        frame_size: Width and height of the frame.
    """
    height, width = picture.shape[:2]
    scale = np.diag([width / frame_size[0], height / frame_size[1], 1.0])
    # OpenCV counts from the centre of the first pixel.
    centre = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    inside = np.linalg.inv(centre) @ scale @ mapping @ np.linalg.inv(scale) @ centre
    warped = cv2.warpPerspective(
        picture, inside, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)


def bounded(turn_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shorten a turn (yaw, pitch, roll), [3], to MAX_TURN_RAD, and drop one that cannot be seen."""
    length = float(np.linalg.norm(turn_rad))
    if length <= LEAST_TURN_RAD:
        return np.zeros(3)
    return turn_rad * min(1.0, MAX_TURN_RAD / length)
