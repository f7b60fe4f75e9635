"""Poses and what their file says of the frames they belong to; what the readers of every format share.

Lens distortion is not undone: the pinhole part of a camera is what is read. Lengths are in the file's own unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import Track, check_intrinsics

Array = NDArray[np.float64]
MAX_TEXT_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class PosedFrames:
    """Poses, and what their file says of the images they belong to."""

    track: Track
    names: tuple[str, ...] | None = None
    """File name of each image, as the file writes it; None where poses belong to the frames of a video."""
    times_s: Array | None = None
    """When each pose was taken, rising, [F]."""


@dataclass(frozen=True)
class PinholeCamera:
    """A pinhole camera."""

    size: tuple[int, int]
    """Width and height of its image in pixels."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""


def read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ValueError(f"{path} is over {MAX_TEXT_BYTES >> 20} MB; poses never are, check the path")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error.reason}); check the path") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def join_cameras(c2w: Array, cameras: Sequence[PinholeCamera | None], source: str) -> Track:
    """Join poses and cameras; cameras are left out unless every frame has one."""
    known = [camera for camera in cameras if camera is not None]
    if len(known) < len(c2w):
        return Track(c2w)
    sizes = {camera.size for camera in known}
    if len(sizes) > 1:
        raise ValueError(f"{source} has images of different sizes {sorted(sizes)[:3]}; keep those of one")
    (size,) = sizes
    if min(size) < 1:
        raise ValueError(f"{source} has images of {size[0]}x{size[1]} pixels; sizes are positive")
    intrinsics = check_intrinsics(np.array([camera.intrinsics for camera in known]), len(c2w), source)
    return Track(c2w, intrinsics, image_size=size)


def rotations(quaternions: Array, source: str) -> Array:
    """Turn quaternions w, x, y, z [F, 4] into rotations [F, 3, 3]."""
    length = np.linalg.norm(quaternions, axis=1)
    if not (np.isfinite(length) & (np.abs(length - 1.0) < 0.1)).all():
        raise ValueError(f"{source} has a quaternion that is not of length 1; write the poses again")
    w, x, y, z = (quaternions / length[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
