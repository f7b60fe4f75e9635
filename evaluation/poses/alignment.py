"""Recovered poses against wanted ones: the similarity transform of SANA-WM-Bench, and errors by its definitions.

The rotation of the transform is fitted to rotations and not to positions: a camera that hardly moves, or goes straight, has
positions that fix no rotation, and fitting them would turn every pose by what is only their noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Poses = NDArray[np.float64]

LEAST_PATH_M = 1e-6
"""Root mean square distance of positions from their mean; below it they fix no scale."""


@dataclass(frozen=True)
class Similarity:
    """Maps poses of one world frame into another."""

    rotation: NDArray[np.float64]
    """[3, 3]."""
    scale: float
    translation: NDArray[np.float64]
    """[3]."""

    def __call__(self, poses: Poses) -> Poses:
        """Map camera-to-world poses [..., 4, 4]."""
        mapped = poses.copy()
        mapped[..., :3, :3] = self.rotation @ poses[..., :3, :3]
        mapped[..., :3, 3] = self.scale * poses[..., :3, 3] @ self.rotation.T + self.translation
        return mapped


@dataclass(frozen=True)
class CameraErrors:
    """Means over poses."""

    rotation_deg: float
    """RotErr: geodesic angle."""
    translation_m: float
    """TransErr."""
    matrix: float
    """CamMC: Frobenius norm of the difference of the 3x4 pose matrices, metres."""


def fit_similarity(poses: Poses, wanted: Poses) -> Similarity:
    """Fit poses [N, 4, 4] to wanted ones: the mean rotation between them, then scale and translation by least squares."""
    relative = wanted[:, :3, :3] @ np.swapaxes(poses[:, :3, :3], -1, -2)
    rotation = mean_rotation(relative)
    turned, goal = poses[:, :3, 3] @ rotation.T, wanted[:, :3, 3]
    centred, goal_centred = turned - turned.mean(0), goal - goal.mean(0)
    spread = float(np.square(centred).sum())
    scale = 1.0
    if spread > len(poses) * LEAST_PATH_M**2:
        fitted = float((centred * goal_centred).sum()) / spread
        # A negative scale would mirror the path; such poses have nothing to do with the wanted ones.
        scale = max(fitted, 0.0)
    return Similarity(rotation, scale, goal.mean(0) - scale * turned.mean(0))


def mean_rotation(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average rotations [N, 3, 3]: the rotation that is nearest to all by the Frobenius norm."""
    left, _, right = np.linalg.svd(rotations.mean(0))
    sign = np.sign(np.linalg.det(left @ right))
    return np.asarray(left @ np.diag([1.0, 1.0, sign]) @ right)


def camera_errors(ours: Poses, wanted: Poses) -> CameraErrors:
    """Compare poses [N, 4, 4] one by one."""
    return CameraErrors(
        rotation_deg=float(rotation_angles_deg(ours, wanted).mean()),
        translation_m=float(np.linalg.norm(ours[:, :3, 3] - wanted[:, :3, 3], axis=1).mean()),
        matrix=float(np.linalg.norm(ours[:, :3] - wanted[:, :3], axis=(1, 2)).mean()),
    )


def rotation_angles_deg(first: Poses, second: Poses) -> NDArray[np.float64]:
    """Geodesic angles between the rotations of poses [..., 4, 4], degrees."""
    relative = np.swapaxes(first[..., :3, :3], -1, -2) @ second[..., :3, :3]
    cosine = (np.trace(relative, axis1=-2, axis2=-1) - 1.0) / 2.0
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def path_length(poses: Poses) -> float:
    """Way that the camera goes, in the poses' unit; poses are [N, 4, 4]."""
    return float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum())
