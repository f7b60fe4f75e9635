"""Cuts of a video, and the clips that its shots are divided into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scenedetect import AdaptiveDetector, FrameTimecode

from training.data.annotation.sources import Source, frame_times_s, within_area

DETECTION_PIXELS = 320 * 180
"""Of the frames that cuts are looked for in."""
FRAMES_PER_READ = 256
FRAME_STEP = 16
"""Clips have 1 + 16 n frames."""


class SizedFrames(Protocol):
    """What cuts are looked for in; any `VideoFrames` will do."""

    @property
    def size(self) -> tuple[int, int]: ...

    def __len__(self) -> int: ...

    def read(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]: ...


FindCuts = Callable[[SizedFrames, float], list[int]]
"""(frames, frames a second) -> numbers of the frames that follow a cut."""


@dataclass(frozen=True)
class ClipPlan:
    """A stretch of a video that is to become a clip."""

    key: str
    """Name of the clip within its set."""
    source: Source
    start_s: float
    num_frames: int
    """At the rate of the set."""

    def end_s(self, fps: float) -> float:
        """Time of the last frame."""
        return self.start_s + (self.num_frames - 1) / fps


@dataclass(frozen=True)
class ClipLengths:
    """How shots become clips; the paper's numbers."""

    fps: float = 16.0
    least_frames: int = 161
    most_frames: int = 961
    stride: int = 480
    """Frames from the start of one clip to that of the next, in shots that are longer than a clip."""


def adaptive_cuts(frames: SizedFrames, fps: float) -> list[int]:
    """Find cuts with PySceneDetect's adaptive detector: changes that stand out of those around them."""
    detector = AdaptiveDetector()
    size = within_area(frames.size, DETECTION_PIXELS)
    cuts: list[int] = []
    for start in range(0, len(frames), FRAMES_PER_READ):
        numbers = np.arange(start, min(start + FRAMES_PER_READ, len(frames)))
        for number, picture in zip(numbers, frames.read(numbers, size), strict=True):
            found = detector.process_frame(
                FrameTimecode(int(number), fps), np.ascontiguousarray(picture[..., ::-1])
            )
            cuts += [cut.frame_num for cut in found]
    return cuts


def plan_clips(
    source: Source, lengths: ClipLengths, find_cuts: FindCuts = adaptive_cuts
) -> tuple[list[ClipPlan], list[float]]:
    """Divide a video into clips that hold no cut.

    Returns:
        Clips, and the times of all cuts in seconds.

    Raises:
        ValueError: The video is damaged.
    """
    frames = source.open()
    times = frame_times_s(frames, lengths.fps)
    rate = (len(times) - 1) / max(times[-1] - times[0], 1e-6) if len(times) > 1 else lengths.fps
    cuts = [number for number in find_cuts(frames, float(rate)) if 0 < number < len(times)]
    plans: list[ClipPlan] = []
    for first, end in zip([0, *cuts], [*cuts, len(times)], strict=True):
        for start_s, count in _windows(times[first:end], lengths):
            plans.append(ClipPlan(f"{source.name}-{len(plans):03d}", source, start_s, count))
    return plans, [float(times[number]) for number in cuts]


def _windows(times: NDArray[np.float64], lengths: ClipLengths) -> list[tuple[float, int]]:
    """Start and number of frames of the clips of one shot."""
    count = int((times[-1] - times[0]) * lengths.fps + 1e-6) + 1
    windows = []
    start = 0
    while count - start >= lengths.least_frames:
        taken = min(count - start, lengths.most_frames)
        windows.append((float(times[0] + start / lengths.fps), 1 + (taken - 1) // FRAME_STEP * FRAME_STEP))
        if start + taken >= count:
            break
        start += lengths.stride
    return windows
