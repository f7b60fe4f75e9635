"""The metric cameras of a clip in three modes: recovered from the frames, given beside them, or scaled by depth that is given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import map_intrinsics
from evaluation.poses.estimator import CameraEstimate, Frames, PoseEstimator, PosesRefused
from evaluation.poses.structure_from_motion import StructureFromMotion
from training.data.annotation.given import DepthSource, given_cameras
from training.data.annotation.scale import dense_scale, depth_scale, similar_scale, speed_scale
from training.data.annotation.sources import Source
from training.data.videos.frames import VideoFrames


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
