"""What can be shown without a model: the memory's rendering, the first frame, reprojected or as it is, the previous picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.rollouts import Frames, Poses, Rollout

MODEL, REMEMBERED, BLENDED, ORACLE, REPROJECTED, PREVIOUS, REPEATED, CEILING = (
    "model",
    "memory alone",
    "memory alone, true means in its holes",
    "truth where the picture shows it",
    "first frame, reprojected",
    "previous frame repeated",
    "first frame repeated",
    "autoencoder",
)
"""The videos held against the truth."""
TRUTH, BLURRED = "true frames", "true frames, blurred"
"""What the recovery of poses is checked on."""


def first_frame_repeated(truth: Frames) -> Frames:
    """The first frame for ever, [F, H, W, 3]."""
    return np.broadcast_to(truth[:1], truth.shape)


def previous_frame_repeated(truth: Frames, lag: int) -> Frames:
    """The true picture from one chunk before: what a window shows that waits for the next chunk, [F, H, W, 3].

    An oracle, since it is given the truth up to `lag` frames ago and a model is given the first frame alone.
    """
    return truth[np.maximum(np.arange(len(truth)) - lag, 0)]


def first_frame_reprojected(
    first: Frames, c2w: Poses, intrinsics: NDArray[np.float32], ground: bool = True
) -> Frames:
    """Show the first frame as seen from every later camera, [F, H, W, 3].

    Rotation is exact: a homography, whatever the scene holds. Translation needs depth, which one picture does not tell; what is
    known is how high the camera stands. Pixels below the horizon are taken to lie on the ground, all others infinitely far away.

    Args:
        first: [H, W, 3].
        c2w: Camera-to-world, metres, [F, 4, 4], of a world whose ground is y = 0; `first` was seen from the first.
        ground: Without it all pixels are infinitely far away, and translation changes nothing.
    """
    return np.stack([_seen_from(first, c2w[0], pose, intrinsics, ground) for pose in c2w])


def _seen_from(
    first: Frames, source: Poses, target: Poses, intrinsics: NDArray[np.float32], ground: bool
) -> Frames:
    height, width = first.shape[:2]
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    across, down = np.meshgrid(np.arange(width) + 0.5 - cx, np.arange(height) + 0.5 - cy)
    rays = np.stack([across / fx, down / fy, np.ones_like(across)], -1) @ target[:3, :3].T
    if ground:
        rays = _bent_to_ground(rays, source[:3, 3], target[:3, 3])
    seen = rays @ source[:3, :3]
    depth = seen[..., 2]
    ahead = depth > 1e-6
    safe = np.where(ahead, depth, 1.0)
    columns = seen[..., 0] / safe * fx + cx - 0.5
    rows = seen[..., 1] / safe * fy + cy - 0.5
    # Beside the first frame its nearest edge stands; what lay behind the first camera has the picture's mean colour.
    picture = cv2.remap(
        first,
        np.clip(columns, 0, width - 1).astype(np.float32),
        np.clip(rows, 0, height - 1).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    picture[~ahead] = first.reshape(-1, 3).mean(0).round()
    return np.asarray(picture, np.uint8)


def _bent_to_ground(rays: NDArray[np.float64], source: Poses, target: Poses) -> NDArray[np.float64]:
    """Replace rays [H, W, 3] that meet the ground y = 0 by those from the source's position to where they meet it."""
    down = rays[..., 1]
    meets = (down > 1e-6) & (target[1] < 0)
    distance = np.where(meets, -target[1] / np.where(meets, down, 1.0), 0.0)
    points = target + rays * distance[..., None] - source
    return np.where(meets[..., None], points, rays)


def with_true_means(shown: Frames, truth: Frames, covered: NDArray[np.bool_]) -> Frames:
    """Put the true mean colour of what each row hides where nothing is known, and leave the rest of `shown`, [F, H, W, 3].

    Of the truth itself that makes an oracle: it remembers without a fault, and knows how bright what it never saw is, but not
    what stands there.
    """
    hidden = ~covered[..., None]
    count = np.maximum(hidden.sum(2, keepdims=True), 1)
    mean = (truth * hidden).sum(2, keepdims=True, dtype=np.float64) / count
    return np.where(hidden, np.round(mean), shown).astype(np.uint8)


def videos_of(rollout: Rollout) -> dict[str, Frames]:
    """The model's video and those it is held beside, each [F, H, W, 3]."""
    truth = rollout.truth
    videos = {
        MODEL: rollout.generated,
        REPROJECTED: first_frame_reprojected(truth[0], rollout.c2w, rollout.intrinsics),
        PREVIOUS: previous_frame_repeated(truth, rollout.frames_per_chunk),
        REPEATED: first_frame_repeated(truth),
    }
    if rollout.remembered is not None:
        videos[REMEMBERED] = rollout.remembered
    if rollout.covered is not None:
        videos[ORACLE] = with_true_means(truth, truth, rollout.covered)
        if rollout.remembered is not None:
            videos[BLENDED] = with_true_means(rollout.remembered, truth, rollout.covered)
    if rollout.reconstructed is not None:
        videos[CEILING] = rollout.reconstructed
    return videos
