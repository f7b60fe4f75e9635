"""Distortion of pinhole lenses, and pictures without it.

Coefficients are OpenCV's: radial k1, k2, tangential p1, p2, radial k3, and k4, k5, k6 of the denominator.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

NUM_COEFFICIENTS = 8
MOST_CHANGE = 2.0
"""Focal lengths change by less than this factor where a distortion can be undone."""
NUM_RADII = 256
CENTRE = 0.5
"""Where a pixel's centre is: OpenCV counts from that of the first, we and COLMAP from its corner."""


def coefficients(*given: float) -> tuple[float, ...]:
    """Return coefficients in OpenCV's order, the others 0; nothing where all are 0."""
    padded = (*given, *(0.0,) * (NUM_COEFFICIENTS - len(given)))
    return padded if any(padded) else ()


def undistorted_intrinsics(
    intrinsics: NDArray[np.float64], distortion: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the pinhole cameras [F, 4] of undistorted pictures: the largest whose every pixel is in the picture.

    Args:
        intrinsics: [F, 4], fx, fy, cx, cy in pixels of the pictures.
        distortion: [F, 8].
        size: Width and height of the pictures.

    Raises:
        ValueError: A distortion cannot be undone.
    """
    cameras, which = np.unique(np.concatenate([intrinsics, distortion], 1), axis=0, return_inverse=True)
    return np.stack([_undistorted(camera[:4], camera[4:], size) for camera in cameras])[which.ravel()]


def _undistorted(
    intrinsics: NDArray[np.float64], distortion: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64]:
    if not distortion.any():
        return intrinsics
    found, _ = cv2.getOptimalNewCameraMatrix(_matrix(intrinsics), distortion, size, 0.0)
    new = np.array([found[0, 0], found[1, 1], found[0, 2] + CENTRE, found[1, 2] + CENTRE])
    with np.errstate(all="ignore"):
        change = new[:2] / intrinsics[:2]
    sound = np.isfinite(new).all() and ((change > 1 / MOST_CHANGE) & (change < MOST_CHANGE)).all()
    if not (sound and _rises(new, distortion, size)):
        shown = ", ".join(f"{value:g}" for value in distortion)
        raise ValueError(
            f"the lens distortion {shown} cannot be undone; undistort the pictures to PINHOLE first"
        )
    return new


def _rises(new: NDArray[np.float64], distortion: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Whether what is farther from the middle of a pinhole camera's picture is so in the distorted one too."""
    fx, fy, cx, cy = new
    width, height = size
    farthest = float(np.hypot(max(cx, width - cx) / fx, max(cy, height - cy) / fy))
    radius = np.linspace(0.0, farthest, NUM_RADII)
    k1, k2, _, _, k3, k4, k5, k6 = distortion
    squared = radius**2
    above = 1 + squared * (k1 + squared * (k2 + squared * k3))
    below = 1 + squared * (k4 + squared * (k5 + squared * k6))
    return bool((below > 0).all() and (np.diff(radius * above / below) > 0).all())


def undistort(
    picture: NDArray[Any],
    intrinsics: NDArray[np.float64],
    distortion: NDArray[np.float64],
    new: NDArray[np.float64],
    nearest: bool = False,
) -> NDArray[Any]:
    """Return a picture [H, W, ...] as a pinhole camera would have taken it.

    Args:
        intrinsics: [4], of the picture.
        distortion: [8], of its lens.
        new: [4], the pinhole camera, as `undistorted_intrinsics` gives it.
        nearest: Whether values stay as they are, as depths must, instead of being mixed.
    """
    if not distortion.any():
        return picture
    height, width = picture.shape[:2]
    maps = cv2.initUndistortRectifyMap(
        _matrix(intrinsics), distortion, np.eye(3), _matrix(new), (width, height), cv2.CV_32FC1
    )
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.remap(picture, maps[0], maps[1], how, borderMode=cv2.BORDER_REPLICATE)


def _matrix(intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    return np.array([[fx, 0.0, cx - CENTRE], [0.0, fy, cy - CENTRE], [0.0, 0.0, 1.0]])
