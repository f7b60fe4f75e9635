"""A photo as the first frame of a world: fitted to the model's frame, with the camera that goes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.camera.formats.text_lines import read_lens
from engine.files.array_files import read_npy

MIN_FOV_DEG, MAX_FOV_DEG = 25.0, 120.0
"""Horizontal fields of view that the model was trained on."""
MAX_ENLARGEMENT = 16
"""Area of the resized photo over that of the frame beyond which a photo is a strip."""
DEFAULT_FOV_DEG = 60.0
"""A phone's main camera, roughly."""


@dataclass(frozen=True)
class Fit:
    """How a photo was resized and cropped; sizes are (width, height) in pixels."""

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    """Left and top of the crop in the resized photo."""


def fit_photo(photo: Image.Image, width: int, height: int) -> tuple[NDArray[np.uint8], Fit]:
    """Resize a photo to cover a frame, keeping its proportions, and cut out the middle.

    Returns:
        RGB, [height, width, 3], and how it was made.

    Raises:
        ValueError: The photo is a strip of which next to nothing would be left.
    """
    scale = max(height / photo.height, width / photo.width)
    resized = (max(width, round(photo.width * scale)), max(height, round(photo.height * scale)))
    if resized[0] * resized[1] > MAX_ENLARGEMENT * width * height:
        raise ValueError(f"a photo of {photo.width}x{photo.height} is too narrow a strip; crop it first")
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
    cropped = photo.resize(resized, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))
    return np.asarray(cropped), Fit(photo.size, resized, (left, top))


def intrinsics_of_fov(fov_deg: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """The pinhole camera with this horizontal field of view, (fx, fy, cx, cy) in pixels of a (width, height) photo.

    Raises:
        ValueError: No such lens is known to the model.
    """
    _check_fov(fov_deg)
    focal = size[0] / 2 / math.tan(math.radians(fov_deg) / 2)
    return np.array([focal, focal, size[0] / 2, size[1] / 2])


def fov_deg(intrinsics: NDArray[np.float64], width: int) -> float:
    """Horizontal field of view across a picture of that width."""
    return math.degrees(2 * math.atan(width / 2 / float(intrinsics[0])))


def _check_fov(angle_deg: float, of: str = "") -> None:
    if not MIN_FOV_DEG <= angle_deg <= MAX_FOV_DEG:
        raise ValueError(
            f"a field of view of {angle_deg:.4g} degrees{of} is outside {MIN_FOV_DEG:g} to {MAX_FOV_DEG:g}; crop the photo "
            "or correct the camera"
        )


def check_camera(intrinsics: NDArray[np.float64], width: int, height: int) -> None:
    """Refuse a camera of the fitted frame, [4], that the model has never seen.

    Raises:
        ValueError: Its field of view is too narrow or wide, or its centre lies outside the frame.
    """
    _check_fov(fov_deg(intrinsics, width), " in the fitted frame")
    cx, cy = float(intrinsics[2]), float(intrinsics[3])
    if not (0 <= cx <= width and 0 <= cy <= height):
        raise ValueError(
            f"the camera's centre, {cx:.0f}, {cy:.0f} in the fitted frame, lies outside of it; correct the intrinsics"
        )


def read_intrinsics(path: Path) -> NDArray[np.float64]:
    """Read (fx, fy, cx, cy), or a 3x3 camera matrix, in pixels of the photo, from a .npy file or a text file.

    Raises:
        ValueError: The file is unreadable or describes no camera.
    """
    values = np.asarray(read_npy(path, 9), np.float64) if path.suffix == ".npy" else read_lens(path)
    if values.shape == (3, 3) or values.shape == (9,):
        matrix = values.reshape(3, 3)
        values = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
    if values.shape != (4,) or not np.isfinite(values).all() or (values[:2] <= 0).any():
        raise ValueError(f"{path} holds no camera; write four numbers fx fy cx cy in pixels of the photo")
    return values


def intrinsics_for_crop(intrinsics: NDArray[np.float64], fit: Fit) -> NDArray[np.float64]:
    """Carry (fx, fy, cx, cy) from the photo, [..., 4], to the fitted frame."""
    scale = np.array(fit.resized, np.float64) / np.array(fit.source)
    offset = np.array([0.0, 0.0, *fit.offset])
    return intrinsics * np.concatenate([scale, scale]) - offset
