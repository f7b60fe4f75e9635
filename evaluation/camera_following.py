"""Whether the camera went where it was told: poses recovered from frames against those asked for.

RotErr, TransErr and CamMC are those of SANA-WM's benchmark: recovered poses are first aligned as a whole by the similarity
transform that fits their positions best (Umeyama), then compared one by one. Recovered poses are metric here, so the figures
before that alignment are given too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.localise import locate, views_around
from evaluation.rollouts import Frames, Poses, Progress, Rollout
from holodeck import Place

SPACING_S = 1.0
"""Between frames that are located."""
BLUR_PX = 3.0
"""Standard deviation of the blur that true frames are checked with besides as they are: about as soft as a small model."""
MIN_POSES = 8
"""Fewer say nothing about a rollout."""
LEAST_SPREAD_M = 0.05
"""Of positions along their second axis; on a line or a spot they fix no rotation, and poses are compared unaligned."""


@dataclass(frozen=True)
class CameraErrors:
    """Means over the frames that could be located."""

    rotation_deg: float
    """RotErr: geodesic angle."""
    translation_m: float
    """TransErr."""
    matrix: float
    """CamMC: Frobenius norm of the difference of the 3x4 pose matrices, metres."""


@dataclass(frozen=True)
class CameraFollowing:
    """How one film follows its track."""

    num_frames: int
    """Frames that were tried."""
    num_located: int
    aligned: CameraErrors | None
    """After the best similarity transform; None where too few frames were located."""
    as_is: CameraErrors | None
    """In the place's own frame, metres."""
    scale: float | None
    """Of that similarity transform: 1 where steps are as long as they should be."""


def follow_camera(
    rollout: Rollout, place: Place, films: dict[str, Frames], progress: Progress | None = None
) -> dict[str, CameraFollowing]:
    """Recover poses from frames of several films along one track, once every SPACING_S, and compare.

    Args:
        films: By name, each [F, H, W, 3].
        progress: Told how many frames are located.
    """
    picks = range(round(SPACING_S * rollout.fps), rollout.num_frames, round(SPACING_S * rollout.fps))
    height, width = rollout.truth.shape[1:3]
    found: dict[str, list[Poses | None]] = {name: [] for name in films}
    for done, n in enumerate(picks, 1):
        views = views_around(place, rollout.c2w[n], rollout.intrinsics, (width, height))
        for name, film in films.items():
            found[name].append(locate(film[n], views, rollout.intrinsics))
        if progress is not None:
            progress(done)
    wanted = rollout.c2w[list(picks)]
    return {name: compare_poses(poses, wanted) for name, poses in found.items()}


def compare_poses(found: Sequence[Poses | None], wanted: Poses) -> CameraFollowing:
    """Sum up the poses recovered from a film; None where a frame could not be located."""
    located = [n for n, pose in enumerate(found) if pose is not None]
    if len(located) < MIN_POSES:
        return CameraFollowing(len(found), len(located), None, None, None)
    recovered = np.stack([pose for pose in found if pose is not None])
    true = wanted[located]
    aligned, scale = align(recovered, true)
    return CameraFollowing(
        len(found), len(located), camera_errors(aligned, true), camera_errors(recovered, true), scale
    )


def align(recovered: Poses, wanted: Poses) -> tuple[Poses, float]:
    """Move, turn and scale recovered poses [N, 4, 4] as a whole so that their positions fit the wanted ones best.

    Returns:
        The aligned poses and the scale that they took.
    """
    from skimage.transform import SimilarityTransform

    centres = recovered[:, :3, 3]
    spread = np.linalg.svd(centres - centres.mean(0), compute_uv=False)[1] / np.sqrt(len(centres))
    if spread < LEAST_SPREAD_M:
        return recovered, 1.0
    transform = SimilarityTransform.from_estimate(centres, wanted[:, :3, 3])
    if not transform:
        return recovered, 1.0
    matrix, scale = transform.params, float(transform.scale)
    aligned = recovered.copy()
    aligned[:, :3, :3] = matrix[:3, :3] / scale @ recovered[:, :3, :3]
    aligned[:, :3, 3] = centres @ matrix[:3, :3].T + matrix[:3, 3]
    return aligned, scale


def camera_errors(ours: Poses, wanted: Poses) -> CameraErrors:
    """Compare poses [N, 4, 4] one by one."""
    return CameraErrors(
        rotation_deg=float(rotation_angles_deg(ours, wanted).mean()),
        translation_m=float(np.linalg.norm(ours[:, :3, 3] - wanted[:, :3, 3], axis=1).mean()),
        matrix=float(np.linalg.norm(ours[:, :3] - wanted[:, :3], axis=(1, 2)).mean()),
    )


def rotation_angles_deg(first: Poses, second: Poses) -> Poses:
    """Geodesic angles between the rotations of poses [..., 4, 4], degrees."""
    relative = np.swapaxes(first[..., :3, :3], -1, -2) @ second[..., :3, :3]
    cosine = (np.trace(relative, axis1=-2, axis2=-1) - 1.0) / 2.0
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
