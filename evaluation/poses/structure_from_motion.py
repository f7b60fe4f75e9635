"""Cameras of a shot from structure from motion, trusted only where independent solutions agree.

A solution alone proves nothing: repeated columns give a full reconstruction with a small reprojection error that is metres off.
So frames are mapped globally, incrementally, and incrementally without the matches that close loops, and only what these agree
on is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.poses.alignment import fit_similarity, path_length, rotation_angles_deg
from evaluation.poses.estimator import CameraEstimate, Frames, Poses, PosesRefused
from evaluation.poses.interpolation import interpolate_poses
from evaluation.poses.reconstruction import Model, matched

MIN_KEYFRAMES = 8


@dataclass(frozen=True)
class Trust:
    """When an estimate is trusted. Bounds are ours, set on rendered clips with known cameras, half of what may be off at most."""

    least_share: float = 0.9
    """Of the keyframes that two solutions agree on."""
    most_turned_deg: float = 2.5
    """Between two solutions after alignment: the mean over frames; no frame may be off by thrice as much."""
    most_moved: float = 0.05
    """The same for positions, over the length of the path."""
    least_parallax_deg: float = 1.0
    """Median angle that points are seen under: below it, the camera stands still as far as a picture tells."""
    most_epipolar_px: float = 1.5
    """Median distance of corners from their epipolar lines between frames that were no keyframes."""


@dataclass(frozen=True, eq=False)
class _Agreement:
    """What two models agree on."""

    model: Model
    """The one that is taken, restricted to those frames."""
    share: float
    """Of the keyframes."""
    turned_deg: float
    moved: float


@dataclass(frozen=True)
class StructureFromMotion:
    """pycolmap, embedded; see this module's first lines."""

    keyframes_per_s: float = 8.0
    trust: Trust = Trust()
    name: str = "pycolmap"

    def estimate(self, frames: Frames, fps: float, lens: NDArray[np.float64] | None = None) -> CameraEstimate:
        """Recover cameras; frames before the first or after the last trusted keyframe keep its pose and count as a problem."""
        step = max(1, round(fps / self.keyframes_per_s))
        numbers = sorted({*range(0, len(frames), step), len(frames) - 1})
        if len(numbers) < MIN_KEYFRAMES:
            raise PosesRefused(f"{len(frames)} frames are too few to recover cameras from")
        with matched(frames, numbers, lens) as found:
            whole = found.all_at_once()
            stepwise = found.incremental(whole)
            near = found.incremental(whole or stepwise, neighbours_only=True)
        models = {"incremental": stepwise, "global": whole, "neighbours": near}
        if whole is None and stepwise is None:
            raise PosesRefused("no two frames fit one another")
        method, agreed = _best(models, len(numbers), self.trust)
        c2w = interpolate_poses(agreed.model.frames, agreed.model.c2w, len(frames))
        measures = {
            "registered_share": agreed.share,
            "agreement_deg": agreed.turned_deg,
            "agreement_path": agreed.moved,
            "loop_path": _loop(agreed.model, near),
            "reprojection_px": agreed.model.reprojection_px,
            "parallax_deg": agreed.model.parallax_deg,
            "epipolar_px": epipolar_error_px(frames, c2w, agreed.model.lens, step),
            "first_frame": float(agreed.model.frames[0]),
            "last_frame": float(agreed.model.frames[-1]),
        }
        return CameraEstimate(
            c2w=c2w,
            intrinsics=np.tile(agreed.model.lens, (len(frames), 1)),
            method=method,
            measures=measures,
            problem=_problem(measures, self.trust, step),
            points=agreed.model.points,
        )


def _best(models: dict[str, Model | None], count: int, trust: Trust) -> tuple[str, _Agreement]:
    """Compare every two models; the pair that agrees on most frames wins, and of it the model of the first name."""
    best: tuple[str, _Agreement] | None = None
    there = [(name, model) for name, model in models.items() if model is not None]
    for n, (first_name, first) in enumerate(there):
        for second_name, second in there[n + 1 :]:
            agreed = _agreement(first, second, count, trust)
            if agreed is not None and (best is None or agreed.share > best[1].share):
                best = f"{first_name}, as {second_name}", agreed
    if best is not None:
        return best
    name, model = max(there, key=lambda item: len(item[1].frames))
    return name, _Agreement(model, 0.0, 180.0, 1.0)


def _agreement(first: Model, second: Model, count: int, trust: Trust) -> _Agreement | None:
    """Find the frames on which two models agree; None where they hardly share any."""
    _, ours, theirs = np.intersect1d(first.frames, second.frames, return_indices=True)
    kept, turned, moved = np.ones(len(ours), bool), np.zeros(len(ours)), np.zeros(len(ours))
    # Frames that only one of both got wrong would spoil the fit, so it is made again without them.
    for _ in range(3):
        if kept.sum() < MIN_KEYFRAMES:
            return None
        a, b = first.c2w[ours], second.c2w[theirs]
        fitted = fit_similarity(b[kept], a[kept])(b)
        length = max(path_length(a[kept]), 1e-9)
        turned = rotation_angles_deg(fitted, a)
        moved = np.linalg.norm(fitted[:, :3, 3] - a[:, :3, 3], axis=1) / length
        within = (turned < 3 * trust.most_turned_deg) & (moved < 3 * trust.most_moved)
        if (within == kept).all():
            break
        kept = within
    if kept.sum() < MIN_KEYFRAMES:
        return None
    return _Agreement(
        first.only(ours[kept]),
        float(kept.sum() / count),
        float(turned[kept].mean()),
        float(moved[kept].mean()),
    )


def _loop(model: Model, near: Model | None) -> float:
    """How far the solution without loop closing is from a model, over the path; 0 where it shares too few frames to say."""
    if near is None:
        return 0.0
    _, ours, theirs = np.intersect1d(model.frames, near.frames, return_indices=True)
    if len(ours) < max(MIN_KEYFRAMES, len(model.frames) // 2):
        return 0.0
    a, b = model.c2w[ours], near.c2w[theirs]
    off = np.linalg.norm(fit_similarity(b, a)(b)[:, :3, 3] - a[:, :3, 3], axis=1)
    return float(np.median(off) / max(path_length(a), 1e-9))


def _problem(measures: dict[str, float], trust: Trust, step: int) -> str:
    """Say why an estimate is not trusted; empty where it is."""
    if measures["registered_share"] < trust.least_share:
        return f"solutions agree on {measures['registered_share']:.0%} of the frames"
    if measures["agreement_deg"] > trust.most_turned_deg:
        return f"solutions differ by {measures['agreement_deg']:.1f} degrees"
    if measures["agreement_path"] > trust.most_moved:
        return f"solutions differ by {measures['agreement_path']:.0%} of the path"
    if measures["loop_path"] > 2 * trust.most_moved:
        return f"loops do not close: {measures['loop_path']:.0%} of the path apart"
    if measures["parallax_deg"] < trust.least_parallax_deg:
        return f"the camera hardly moves: {measures['parallax_deg']:.1f} degrees of parallax"
    if measures["epipolar_px"] > trust.most_epipolar_px:
        return f"frames between are off by {measures['epipolar_px']:.1f} pixels"
    return ""


MAX_CORNERS = 300
MAX_CHECKED = 24
"""Pairs of frames whose corners are followed."""


def epipolar_error_px(frames: Frames, c2w: Poses, lens: NDArray[np.float64], step: int) -> float:
    """Median distance of followed corners from where poses say they may be, in pixels, between frames `step` apart.

    Frames are taken between keyframes where there are any, so that nothing that poses were fitted to is judged.
    """
    fx, fy, cx, cy = lens
    inverse = np.linalg.inv(np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1.0]]))
    starts = np.arange(step // 2, len(frames) - step, step)
    starts = starts[np.linspace(0, len(starts) - 1, min(MAX_CHECKED, len(starts))).round().astype(int)]
    errors = []
    for start in starts:
        first, second = (cv2.cvtColor(frames[n], cv2.COLOR_RGB2GRAY) for n in (start, start + step))
        corners = cv2.goodFeaturesToTrack(first, MAX_CORNERS, 0.01, 5)
        if corners is None:
            continue
        moved, found, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, corners.copy())
        kept = np.ravel(found) == 1
        errors += list(_sampson(corners[kept, 0], moved[kept, 0], c2w[start], c2w[start + step], inverse))
    return float(np.median(errors)) if errors else float("inf")


def _sampson(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    pose: Poses,
    later: Poses,
    inverse: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Distances of matches [N, 2] from their epipolar lines, to first order, pixels."""
    relative = np.linalg.inv(later) @ pose
    x, y, z = relative[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative[:3, :3]
    fundamental = inverse.T @ essential @ inverse
    ones = np.ones((len(first), 1))
    a, b = (
        np.concatenate([first, ones], 1).astype(np.float64),
        np.concatenate([second, ones], 1).astype(np.float64),
    )
    right, left = a @ fundamental.T, b @ fundamental
    scale = np.sqrt(right[:, 0] ** 2 + right[:, 1] ** 2 + left[:, 0] ** 2 + left[:, 1] ** 2)
    return np.abs((b * right).sum(1)) / np.maximum(scale, 1e-12)
