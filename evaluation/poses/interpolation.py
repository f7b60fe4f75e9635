"""Poses between keyframes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

Poses = NDArray[np.float64]


def interpolate_poses(numbers: NDArray[np.int64], c2w: Poses, num_frames: int) -> Poses:
    """Fill in the poses between keyframes; before the first and after the last one its pose stays.

    Args:
        numbers: Of the keyframes, rising, [N], N at least 2.
        c2w: Their poses, [N, 4, 4].

    Returns:
        [num_frames, 4, 4].
    """
    at = np.clip(np.arange(num_frames), numbers[0], numbers[-1])
    poses = np.tile(np.eye(4), (num_frames, 1, 1))
    # Monotone between keyframes: it overshoots nothing.
    poses[:, :3, 3] = PchipInterpolator(numbers, c2w[:, :3, 3], axis=0)(at)
    poses[:, :3, :3] = Slerp(numbers, Rotation.from_matrix(c2w[:, :3, :3]))(at).as_matrix()
    return poses
