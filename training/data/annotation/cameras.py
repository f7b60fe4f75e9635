"""The metric cameras of a clip in three modes: recovered from the frames, given beside them, or scaled by depth that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import map_intrinsics
from evaluation.poses.alignment import fit_similarity, path_length
from evaluation.poses.estimator import CameraEstimate, Frames, PoseEstimator, PosesRefused
from evaluation.poses.structure_from_motion import StructureFromMotion
from training.data.annotation.given import DepthSource, given_cameras
from training.data.annotation.sources import Source
from training.data.videos.frames import VideoFrames

Depths = NDArray[np.float32]
FIT_SIDE = 64
"""Depths are compared on so many rows and columns, by nearest neighbours."""
LEAST_POINTS = 200
"""Of a frame; with fewer it has no scale."""
WINDOW, OVERLAP = 64, 16
"""Frames whose scales a median is taken of, and by how many such windows overlap."""
MOMENTUM = 0.99
"""Of the moving average over windows."""
LEAST_SCALE, GREATEST_SCALE = 0.1, 10.0
LEAST_SPARSE = 20
"""Points of a reconstruction in a frame; with fewer it has no scale."""
MOST_DEPTHS = 64
"""Frames of a clip whose depth is asked for."""
INLIER_PERCENTILE = 80.0


@dataclass(frozen=True)
class CameraSettings:
    """How cameras are found."""

    given: bool = False
    """Whether poses lie beside each video; otherwise they are recovered."""
    lens: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy in pixels of the source, where it is known."""
    estimator: PoseEstimator = field(default_factory=StructureFromMotion)
    depth: DepthSource | None = None
    """What says how long the poses' unit is; without it, the next two do."""
    metres_per_s: float = 1.0
    """Mean speed of recovered cameras."""
    metres_per_unit: float = 1.0
    """Of given poses."""

    @property
    def needs_gpu(self) -> bool:
        """Whether any step runs on a GPU."""
        return any(getattr(part, "needs_gpu", False) for part in (self.estimator, self.depth))


@dataclass(frozen=True, eq=False)
class FilmedClip:
    """A clip's frames and where they are from."""

    source: Source
    video: VideoFrames
    moments_s: NDArray[np.float64]
    """When the frames are shown, [F]."""
    frames: Frames
    """[F, H, W, 3]."""
    fps: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.frames.shape[2], self.frames.shape[1]


def find_cameras(clip: FilmedClip, settings: CameraSettings) -> tuple[CameraEstimate, str]:
    """Find the cameras of a clip, positions in metres, and say where their scale is from.

    Raises:
        PosesRefused: There are none.
        ValueError: What is given beside the video is damaged.
    """
    lens = None
    if settings.lens is not None:
        lens = map_intrinsics(np.array([settings.lens]), clip.video.size, clip.size)[0]
    if not settings.given:
        found = settings.estimator.estimate(clip.frames, clip.fps, lens)
        if settings.depth is None and found.is_metric:
            return found, settings.estimator.name
        if settings.depth is None:
            return _scaled(found, speed_scale(found.c2w, clip.fps, settings.metres_per_s)), "speed"
        return _by_depth(found, clip, settings.depth)
    given = given_cameras(clip.source, clip.video, clip.moments_s, clip.size, lens, clip.fps)
    if settings.depth is None:
        return _scaled(given, settings.metres_per_unit), "given"
    # As in the paper: a track that depth makes metric says how long the unit of the given one is.
    metric, name = _by_depth(
        settings.estimator.estimate(clip.frames, clip.fps, given.intrinsics[0]), clip, settings.depth
    )
    if metric.problem:
        raise PosesRefused(f"the scale of given poses cannot be found: {metric.problem}")
    scaled = _scaled(given, similar_scale(given.c2w, metric.c2w))
    return replace(scaled, measures=metric.measures), name


def _by_depth(found: CameraEstimate, clip: FilmedClip, depth: DepthSource) -> tuple[CameraEstimate, str]:
    if found.depths is None and (found.points is None or not len(found.points)):
        raise PosesRefused("no points were recovered whose depth could be compared")

    def depths(numbers: list[int]) -> NDArray[np.float32]:
        return depth.depths(clip.source, clip.video, clip.moments_s, clip.frames, numbers)

    if found.depths is not None:
        scale, variation = dense_scale(found.depths, depths)
    else:
        assert found.points is not None, "one of both is there"
        scale, variation = depth_scale(found.points, depths, clip.size)
    return replace(
        _scaled(found, scale), measures={**found.measures, "scale_variation": variation}
    ), depth.name


def _scaled(found: CameraEstimate, factor: float) -> CameraEstimate:
    c2w = found.c2w.copy()
    c2w[:, :3, 3] *= factor
    return replace(found, c2w=c2w)


def speed_scale(c2w: NDArray[np.float64], fps: float, metres_per_s: float) -> float:
    """Metres per unit of poses [F, 4, 4] of a camera that goes at a known mean speed, such as a walker's."""
    return metres_per_s * (len(c2w) - 1) / fps / max(path_length(c2w), 1e-9)


def fit_scale(depth: NDArray[np.float64], metric: NDArray[np.float64]) -> float:
    """The factor that makes depths metric: least squares of s d - m over points [N], weighted by 1 / m (the paper's)."""
    weights = 1.0 / metric
    return float((weights * depth * metric).sum() / (weights * depth**2).sum())


def similar_scale(given: NDArray[np.float64], metric: NDArray[np.float64]) -> float:
    """Metres per unit of given poses, from metric ones of the same frames, [F, 4, 4] each.

    The fit is made again with the frames whose residual is under the 80th percentile, as in the paper.
    """
    fit = fit_similarity(given, metric)
    residual = np.linalg.norm(fit(given)[:, :3, 3] - metric[:, :3, 3], axis=1)
    inliers = residual <= np.percentile(residual, INLIER_PERCENTILE)
    return fit_similarity(given[inliers], metric[inliers]).scale


def depth_scale(
    points: NDArray[np.float64], depths: Callable[[list[int]], Depths], size: tuple[int, int]
) -> tuple[float, float]:
    """Metres per unit of recovered poses, from metric depth at the points that frames see.

    Args:
        points: Number of the frame, column, row, depth in the poses' unit, [N, 4].
        depths: Gives the metric depth of frames by number, [K, h, w].
        size: Width and height that pixels belong to.

    Returns:
        The scale, and how much it varies from frame to frame: standard deviation over mean.

    Raises:
        ValueError: No frame has enough points.
    """
    numbers = np.unique(points[:, 0]).astype(int)
    numbers = numbers[np.linspace(0, len(numbers) - 1, min(MOST_DEPTHS, len(numbers))).round().astype(int)]
    scales: list[float | None] = []
    for number, metric_map in zip(numbers, depths(numbers.tolist()), strict=True):
        seen = points[points[:, 0] == number]
        metric = sample(metric_map, seen[:, 1:3], size)
        good = np.isfinite(metric) & (metric > 0) & (seen[:, 3] > 0)
        enough = good.sum() >= LEAST_SPARSE
        scales.append(fit_scale(seen[good, 3], metric[good]) if enough else None)
    known = [scale for scale in scales if scale is not None]
    # The unit of structure from motion is any length; the clamp is for scales about 1.
    unit = float(np.median(known)) if known else 1.0
    smoothed = smooth_scales([None if scale is None else scale / unit for scale in scales])
    return unit * float(np.median(smoothed)), scale_variation(scales)


def dense_scale(maps: Mapping[int, Depths], depths: Callable[[list[int]], Depths]) -> tuple[float, float]:
    """Metres per unit of recovered poses, from metric depth and the depth of keyframes in the poses' unit.

    Args:
        maps: By number of the frame, [h, w], not numbers where they are not believed.
        depths: Gives the metric depth of frames by number, [K, H, W].

    Returns:
        The scale, and how much it varies from frame to frame: standard deviation over mean.

    Raises:
        ValueError: No frame has enough points.
    """
    numbers = sorted(maps)
    pairs = zip(numbers, depths(numbers), strict=True)
    scales = [frame_scale(maps[number], metric) for number, metric in pairs]
    return float(np.median(smooth_scales(scales))), scale_variation(scales)


def frame_scale(depth: Depths, metric: Depths, mask: NDArray[np.bool_] | None = None) -> float | None:
    """The factor that makes a depth map metric: least squares of s d - m, weighted by 1 / m.

    Args:
        depth: In any unit, [H, W].
        metric: Metres, [H, W].
        mask: Where both are to be believed, [H, W]; everywhere without one.

    Returns:
        None where fewer than LEAST_POINTS can be compared.
    """
    size = FIT_SIDE, FIT_SIDE
    ours, metres = (cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in (depth, metric))
    good = np.isfinite(ours) & np.isfinite(metres) & (ours > 0) & (metres > 0)
    if mask is not None:
        good &= cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if good.sum() < LEAST_POINTS:
        return None
    return fit_scale(ours[good].astype(np.float64), metres[good].astype(np.float64))


def smooth_scales(scales: Sequence[float | None]) -> NDArray[np.float64]:
    """One scale per frame from those of frames: medians of windows, a moving average over windows, clamped, [F].

    Raises:
        ValueError: No frame has a scale.
    """
    values = np.array([np.nan if scale is None else scale for scale in scales])
    if not np.isfinite(values).any():
        raise ValueError("no frame has enough points whose metric depth is known; give the speed instead")
    smoothed = np.zeros(len(values))
    running: float | None = None
    for start, stop in _windows(len(values)):
        inside = values[start:stop]
        if np.isfinite(inside).any():
            median = float(np.nanmedian(inside))
            running = median if running is None else MOMENTUM * running + (1.0 - MOMENTUM) * median
        smoothed[start:stop] = np.nan if running is None else running
    first = int(np.flatnonzero(np.isfinite(smoothed))[0])
    smoothed[:first] = smoothed[first]
    return np.clip(smoothed, LEAST_SCALE, GREATEST_SCALE)


def sample(depth: Depths, pixels: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Depth [h, w] at pixels [N, 2] of a frame of `size`; bilinear would invent surfaces at edges, so the nearest counts."""
    height, width = depth.shape
    columns = np.clip((pixels[:, 0] * width / size[0]).astype(int), 0, width - 1)
    rows = np.clip((pixels[:, 1] * height / size[1]).astype(int), 0, height - 1)
    return depth[rows, columns].astype(np.float64)


def scale_variation(scales: Sequence[float | None]) -> float:
    """Standard deviation of the frames' scales over their mean."""
    values = np.array([scale for scale in scales if scale is not None])
    return float(values.std() / (values.mean() + 1e-6)) if len(values) else float("inf")


def _windows(count: int) -> Iterator[tuple[int, int]]:
    start = 0
    while True:
        stop = min(start + WINDOW, count)
        yield start, stop
        if stop == count:
            return
        start += WINDOW - OVERLAP
