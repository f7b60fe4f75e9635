"""Whether the generated camera follows the track: poses recovered from frames by PnP, aligned and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.poses.alignment import CameraErrors, camera_errors, fit_similarity
from evaluation.rollouts import Frames, Poses, Progress, Rollout
from holodeck import Place
from holodeck.compiled import render_rgbd

SPACING_S = 1.0
"""Between frames that are located."""
BLUR_PX = 3.0
"""Standard deviation of the blur that true frames are checked with besides as they are: about as soft as a small model."""
MIN_POSES = 8
"""Fewer say nothing about a rollout."""


@dataclass(frozen=True)
class CameraFollowing:
    """How one video follows its track."""

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
    rollout: Rollout, place: Place, videos: dict[str, Frames], progress: Progress | None = None
) -> dict[str, CameraFollowing]:
    """Recover poses from frames of several videos along one track, once every SPACING_S, and compare.

    Args:
        videos: By name, each [F, H, W, 3].
        progress: Told how many frames are located.
    """
    picks = range(round(SPACING_S * rollout.fps), rollout.num_frames, round(SPACING_S * rollout.fps))
    height, width = rollout.truth.shape[1:3]
    found: dict[str, list[Poses | None]] = {name: [] for name in videos}
    for done, n in enumerate(picks, 1):
        views = views_around(place, rollout.c2w[n], rollout.intrinsics, (width, height))
        for name, video in videos.items():
            found[name].append(locate(video[n], views, rollout.intrinsics))
        if progress is not None:
            progress(done)
    wanted = rollout.c2w[list(picks)]
    return {name: compare_poses(poses, wanted) for name, poses in found.items()}


def compare_poses(found: Sequence[Poses | None], wanted: Poses) -> CameraFollowing:
    """Sum up the poses recovered from a video; None where a frame could not be located."""
    located = [n for n, pose in enumerate(found) if pose is not None]
    if len(located) < MIN_POSES:
        return CameraFollowing(len(found), len(located), None, None, None)
    recovered = np.stack([pose for pose in found if pose is not None])
    true = wanted[located]
    fit = fit_similarity(recovered, true)
    return CameraFollowing(
        len(found),
        len(located),
        camera_errors(fit(recovered), true),
        camera_errors(recovered, true),
        fit.scale,
    )


VIEW_OFFSETS = (
    (0.15, 0.0, 0.0, 4.0, 0.0),
    (-0.15, 0.0, 0.0, -4.0, 0.0),
    (0.0, 0.0, 0.15, 0.0, 3.0),
    (0.0, 0.0, -0.15, 0.0, -3.0),
)
"""Of the true views from the wanted pose: right, down, forward in metres, then yaw and pitch in degrees."""
MAX_CORNERS = 150
"""Of one view."""
FARTHEST_M = 80.0
"""Corners beyond it are sky, or as good as."""
MAX_RETURN_PX = 1.5
"""How far from its start a corner may end that is followed into the picture and back."""
MAX_REPROJECTION_PX = 3.0
MIN_INLIERS = 16
MIN_INLIER_SHARE = 0.35
"""More than one view of four can bring together alone."""
FLOW_WINDOW_PX = 31
"""Wide enough for pictures whose edges are soft."""
FLOW_LEVELS = 3


@dataclass(frozen=True)
class View:
    """A true picture and the corners in it whose place in the world is known, N of them."""

    grey: Frames
    """[H, W]."""
    corners: NDArray[np.float32]
    """Column and row, the first pixel's centre at 0, [N, 2]."""
    points: NDArray[np.float64]
    """World positions, metres, [N, 3]."""


def true_view(place: Place, c2w: Poses, intrinsics: NDArray[np.float32], size: tuple[int, int]) -> View:
    """Draw a place, find corners, and lift them into the world.

    Args:
        size: Width and height in pixels.
    """
    width, height = size
    picture, depth_map = render_rgbd(place, c2w, intrinsics, width, height)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, MAX_CORNERS, 0.01, 3)
    corners = np.asarray([] if found is None else found, np.float32).reshape(-1, 2)
    # A corner in front of something farther belongs to the nearer surface.
    nearest = cv2.erode(depth_map, np.ones((3, 3), np.uint8))
    columns, rows = np.round(corners).astype(int).T
    depth = nearest[rows, columns].astype(np.float64)
    kept = depth < FARTHEST_M
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    corners, depth = corners[kept], depth[kept]
    rays = np.stack(
        [(corners[:, 0] + 0.5 - cx) / fx, (corners[:, 1] + 0.5 - cy) / fy, np.ones(len(depth))], 1
    )
    points = (rays * depth[:, None]) @ c2w[:3, :3].T + c2w[:3, 3]
    return View(np.asarray(grey, np.uint8), corners, points)


def views_around(
    place: Place, c2w: Poses, intrinsics: NDArray[np.float32], size: tuple[int, int]
) -> list[View]:
    """Draw the views that pictures from about a pose are compared with."""
    views = []
    for *shift, yaw, pitch in VIEW_OFFSETS:
        moved = c2w.copy()
        turn, _ = cv2.Rodrigues(np.radians([pitch, yaw, 0.0]))
        moved[:3, :3] = c2w[:3, :3] @ turn
        moved[:3, 3] += c2w[:3, :3] @ np.array(shift)
        views.append(true_view(place, moved, intrinsics, size))
    return views


def locate(picture: Frames, views: Sequence[View], intrinsics: NDArray[np.float32]) -> Poses | None:
    """Recover the camera of a picture, camera-to-world [4, 4]; None where its features agree on none.

    Args:
        picture: [H, W, 3].
    """
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    matches = [_follow(view, grey) for view in views]
    pixels = np.concatenate([pixels for pixels, _ in matches]).astype(np.float64)
    points = np.concatenate([points for _, points in matches])
    if len(points) < MIN_INLIERS:
        return None
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    camera = np.array([[fx, 0.0, cx - 0.5], [0.0, fy, cy - 0.5], [0.0, 0.0, 1.0]])
    cv2.setRNGSeed(0)
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points,
        pixels,
        camera,
        None,
        iterationsCount=300,
        reprojectionError=MAX_REPROJECTION_PX,
        confidence=0.999,
        flags=cv2.SOLVEPNP_EPNP,
    )
    if not found or inliers is None or len(inliers) < max(MIN_INLIERS, MIN_INLIER_SHARE * len(points)):
        return None
    chosen = np.asarray(inliers, np.int64).ravel()
    rotation, translation = cv2.solvePnPRefineLM(
        points[chosen], pixels[chosen], camera, None, rotation, translation
    )
    turn, _ = cv2.Rodrigues(rotation)
    c2w = np.eye(4)
    c2w[:3, :3] = turn.T
    c2w[:3, 3] = -turn.T @ np.ravel(translation)
    return c2w


def _follow(view: View, grey: Frames) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Follow a view's corners into a picture and back; returns where those that return have been, and their points."""
    if not len(view.corners):
        return view.corners, view.points
    there, seen = _flow(view.grey, grey, view.corners)
    back, again = _flow(grey, view.grey, there)
    returned = np.linalg.norm(back - view.corners, axis=1) < MAX_RETURN_PX
    height, width = grey.shape
    inside = ((there >= 0) & (there <= (width - 1, height - 1))).all(1)
    kept = returned & inside & seen & again
    return there[kept], view.points[kept]


def _flow(
    source: Frames, target: Frames, corners: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Follow corners [N, 2] from one grey picture into another; returns where they went and which were found."""
    window = (FLOW_WINDOW_PX, FLOW_WINDOW_PX)
    went, found, _ = cv2.calcOpticalFlowPyrLK(
        source, target, corners, corners.copy(), winSize=window, maxLevel=FLOW_LEVELS
    )
    return np.asarray(went, np.float32), np.ravel(found) == 1
