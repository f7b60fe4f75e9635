"""One clip from frames to verdict: scores, cameras, metric scale, caption; a function of its plan and settings alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import map_intrinsics
from engine.files.atomic import replacing
from evaluation.poses.estimator import CameraEstimate, PosesRefused
from training.data.annotation.cameras import CameraSettings, FilmedClip, find_cameras
from training.data.annotation.cut_detectors import CutDetector, cut_finder
from training.data.annotation.dover import QualityScorer
from training.data.annotation.filters import Judge, camera_scores, pose_problem
from training.data.annotation.given import given_scores
from training.data.annotation.results import (
    ClipResult,
    StepSeconds,
    camera_path,
    picture_path,
    write_camera,
    write_result,
)
from training.data.annotation.shots import ClipLengths, ClipPlan
from training.data.annotation.sources import frame_times_s, nearest_frames, within_area
from training.data.annotation.vision_language import Describer
from training.data.clip_quality import (
    camera_words,
    flow_magnitude,
    nearly_blank_share,
    saturation,
    vmaf_motion,
)
from training.data.videos.frames import VideoFrames

ANALYSIS_PIXELS = 255_000
"""Of the frames that are judged and whose cameras are recovered (the author's bound for depth)."""
STRIP_FRAMES = 5
STRIP_HEIGHT_PX = 90
STRIP_QUALITY = 80


@dataclass(frozen=True)
class ClipSettings:
    """How clips are judged."""

    lengths: ClipLengths
    judge: Judge
    cameras: CameraSettings = field(default_factory=CameraSettings)
    describer: Describer | None = None
    """Writes captions, counts and judges; without one, captions are given and those scores are missing."""
    quality: QualityScorer | None = None
    """Scores the picture quality; without one it is given or missing."""
    cuts: CutDetector = "adaptive"

    @property
    def needs_gpu(self) -> bool:
        """Whether any step runs on a GPU of this process."""
        parts = (self.cameras, self.describer, self.quality)
        return any(part is not None and part.needs_gpu for part in parts)


class _Clock:
    """Adds up the seconds of steps, by the clock and of this process's processors."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s[step] = self.wall_s.get(step, 0.0) + time.perf_counter() - start_s
            self.cpu_s[step] = self.cpu_s.get(step, 0.0) + time.process_time() - start_cpu_s

    @property
    def seconds(self) -> StepSeconds:
        return StepSeconds(wall_s=self.wall_s, cpu_s=self.cpu_s)


def annotate_clip(
    plan: ClipPlan, settings: ClipSettings, caption: str, identity: str, folder: Path
) -> ClipResult:
    """Judge one clip and write what became of it.

    Cameras are recovered only where the pictures pass: that is what takes the time.

    Args:
        identity: Hash of all that the result depends on; kept with it.
        folder: Of the set.
    """
    clock, fps = _Clock(), settings.lengths.fps
    with clock("decode"):
        source = plan.source.open()
        frames = clip_frames(source, plan, fps, within_area(source.size, ANALYSIS_PIXELS))
    with clock("pictures"):
        scores = given_scores(plan.source) | {
            "vmafmotion": vmaf_motion(frames, fps),
            "flow": flow_magnitude(frames, fps),
            "color": saturation(frames),
            "blank_share": nearly_blank_share(frames),
            "scene_cut": float(len(cut_finder(settings.cuts)(_InMemory(frames), fps))),
        }
    if settings.quality is not None and "dover" not in scores:
        with clock("quality"):
            scores["dover"] = settings.quality.score(frames, fps)
    if settings.describer is not None:
        with clock("words"):
            described = settings.describer.describe(frames)
        caption = caption or described.caption
        scores |= described.scores
    reasons = settings.judge.pictures(scores)
    if camera_words(caption):
        reasons.append(f"caption speaks of the camera: {', '.join(camera_words(caption)[:3])}")
    base = ClipResult(
        settings=identity,
        key=plan.key,
        source=str(plan.source.path),
        start_s=plan.start_s,
        end_s=plan.end_s(fps),
        num_frames=plan.num_frames,
        reasons=reasons,
        scores=scores,
        caption=caption,
    )
    camera_path(folder, plan.key).unlink(missing_ok=True)
    moments = plan.start_s + np.arange(plan.num_frames) / fps
    clip = FilmedClip(plan.source, source, moments, frames, fps)
    result = base if reasons else _with_cameras(base, clip, settings, folder, clock)
    _write_strip(picture_path(folder, plan.key), frames)
    write_result(folder, result, clock.seconds)
    return result


def _with_cameras(
    base: ClipResult, clip: FilmedClip, settings: ClipSettings, folder: Path, clock: _Clock
) -> ClipResult:
    """Find and judge the cameras of a clip whose pictures passed."""
    try:
        with clock("cameras"):
            found, scale_from = find_cameras(clip, settings.cameras)
    except PosesRefused as refused:
        return base.model_copy(update={"reasons": [f"poses refused: {refused}"]})
    reasons = [] if not found.problem else [f"poses refused: {found.problem}"]
    if problem := pose_problem(found.c2w):
        return base.model_copy(update={"reasons": [*reasons, problem]})
    start, stop = trusted_range(found, len(clip.frames))
    scores = {**base.scores, **found.measures, **camera_scores(found.intrinsics, clip.size)}
    intrinsics = map_intrinsics(found.intrinsics[start:stop], clip.size, clip.video.size)
    start_s = base.start_s + start / clip.fps
    write_camera(folder, base.key, found.c2w[start:stop], intrinsics, clip.video.size, clip.fps, start_s)
    method = found.method if settings.cameras.given else f"{settings.cameras.estimator.name}: {found.method}"
    return base.model_copy(
        update={
            "reasons": [*reasons, *settings.judge.cameras(scores)],
            "scores": {name: float(value) for name, value in scores.items() if np.isfinite(value)},
            "method": method,
            "scale_from": scale_from,
            "start_s": start_s,
            "end_s": start_s + (stop - start - 1) / clip.fps,
            "num_frames": stop - start,
        }
    )


def trusted_range(found: CameraEstimate, count: int) -> tuple[int, int]:
    """First frame and end of the stretch between trusted keyframes, cut to 1 + 8 n frames."""
    first = int(found.measures.get("first_frame", 0))
    last = int(found.measures.get("last_frame", count - 1))
    return first, first + 1 + (last - first) // 8 * 8


def clip_frames(source: VideoFrames, plan: ClipPlan, fps: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a clip at an even rate, [F, H, W, 3] of `size`."""
    moments = plan.start_s + np.arange(plan.num_frames) / fps
    return source.read(nearest_frames(frame_times_s(source, fps), moments), size)


@dataclass(frozen=True, eq=False)
class _InMemory:
    """Decoded frames as a source of frames."""

    frames: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.shape[2], self.frames.shape[1]

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        resized = [cv2.resize(self.frames[n], size, interpolation=cv2.INTER_AREA) for n in numbers]
        return np.asarray(np.stack(resized), np.uint8)


def _write_strip(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write some frames of a clip side by side, as JPEG."""
    picks = np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int)
    width = round(STRIP_HEIGHT_PX * frames.shape[2] / frames.shape[1])
    strip = np.concatenate(
        [cv2.resize(frames[n], (width, STRIP_HEIGHT_PX), interpolation=cv2.INTER_AREA) for n in picks], 1
    )
    ok, encoded = cv2.imencode(".jpg", strip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, STRIP_QUALITY])
    assert ok, "a uint8 picture always encodes"
    with replacing(path) as file:
        file.write_bytes(encoded.tobytes())


def kept_plan(plan: ClipPlan, result: ClipResult) -> ClipPlan:
    """The stretch of a plan that was kept."""
    return replace(plan, start_s=result.start_s, num_frames=result.num_frames)
