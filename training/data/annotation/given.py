"""What lies beside a video already: poses in any format that is read, and depth in metres."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.camera.formats.track_files import read_posed
from engine.camera.tracks import at_times, map_intrinsics
from evaluation.poses.estimator import CameraEstimate, Frames
from training.data.annotation.sources import Source, frame_times_s
from training.data.archives.sidecars import score_of
from training.data.videos.finder import poses_beside
from training.data.videos.frames import VideoFrames

SCORES_SUFFIX = ".scores.json"
"""Beside a video: scores that other programs gave it, by name, such as {"dover": 0.61}; they hold for all its clips."""
MAX_SCORES_BYTES = 1 << 16
DEPTH_SUFFIX = ".depth.npy"
"""Beside a video: metres along the optical axis of every frame, [F, h, w], float."""


def given_scores(source: Source) -> dict[str, float]:
    """Read the scores beside a video; none where there is no such file.

    Raises:
        ValueError: It is damaged.
    """
    path = source.beside(SCORES_SUFFIX)
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_SCORES_BYTES))
        scores = {str(name): score_of(value) for name, value in found.items()}
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise ValueError(f"{path} is no JSON object of numbers by name; write it again") from error
    return {name: score for name, score in scores.items() if score is not None}


def given_cameras(
    source: Source,
    frames: VideoFrames,
    moments_s: NDArray[np.float64],
    size: tuple[int, int],
    lens: NDArray[np.float64] | None,
    fps: float,
) -> CameraEstimate:
    """Read the poses beside a video at moments; their unit is not known to be a metre.

    Args:
        moments_s: By the clock of the frames, [N].
        size: Width and height that intrinsics are wanted for.
        lens: fx, fy, cx, cy in pixels of `size`, for poses that say nothing of the lens.

    Raises:
        ValueError: There are none, or they do not fit the frames.
    """
    path = poses_beside(source.path)
    if path is None:
        raise ValueError(f"{source.path} has no poses beside it; leave out --poses given, or put them there")
    posed = read_posed(path)
    track, shown = posed.track, frame_times_s(frames, fps)
    if posed.times_s is not None:
        times = posed.times_s - (posed.times_s[0] if posed.times_s[0] > shown[-1] else 0.0)
    elif track.num_frames == len(frames):
        times = shown
    elif track.fps is not None:
        times = np.arange(track.num_frames) / track.fps
    else:
        raise ValueError(f"{path} has {track.num_frames} poses for {len(frames)} frames; give one for each")
    at = at_times(track, times, moments_s)
    if at.intrinsics is not None:
        intrinsics = map_intrinsics(at.intrinsics, track.image_size or frames.size, size)
    elif lens is not None:
        intrinsics = np.tile(lens, (len(moments_s), 1))
    else:
        raise ValueError(f"{path} says nothing of the lens; give it with --lens")
    return CameraEstimate(at.c2w, intrinsics, f"given by {path.name}")


class DepthSource(Protocol):
    """Gives metric depth of frames."""

    @property
    def name(self) -> str: ...

    def depths(
        self,
        source: Source,
        video: VideoFrames,
        moments_s: NDArray[np.float64],
        frames: Frames,
        numbers: Sequence[int],
    ) -> NDArray[np.float32]:
        """Return metres along the optical axis, [N, h, w], of any size.

        Args:
            moments_s: When the clip's frames are shown, [F].
            frames: Of the clip, [F, H, W, 3].
            numbers: Of the frames whose depth is wanted.
        """
        ...


@dataclass(frozen=True)
class GivenDepth:
    """`NAME.depth.npy` beside a video."""

    name: str = "given depth"

    def depths(
        self,
        source: Source,
        video: VideoFrames,
        moments_s: NDArray[np.float64],
        frames: Frames,
        numbers: Sequence[int],
    ) -> NDArray[np.float32]:
        path = source.beside(DEPTH_SUFFIX)
        try:
            maps = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} holds no depth ({error}); write metres [F, h, w] there") from error
        if maps.ndim != 3 or len(maps) != len(video) or maps.dtype.kind != "f":
            raise ValueError(
                f"{path} is {maps.dtype} {maps.shape} for {len(video)} frames; write floats [F, h, w]"
            )
        times = frame_times_s(video, 16.0)
        picks = [int(np.abs(times - moments_s[n]).argmin()) for n in numbers]
        return np.stack([np.asarray(maps[n], np.float32) for n in picks])
