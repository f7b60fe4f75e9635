"""Frames of a benchmark's videos at the benchmark's rate, whatever their own rate and size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import av.error
import cv2
import numpy as np

from evaluation.rollouts import Frames

FPS = 16.0
JUDGED_WIDTH_PX = 320
"""Width that all videos are judged at, so that a larger one has no other measure."""


def read_film(path: Path, seconds: float) -> Frames:
    """Decode a video at FPS and JUDGED_WIDTH_PX, [F, H, W, 3], for so long at most.

    Raises:
        ValueError: It cannot be read.
    """
    frames: list[Frames] = []
    for number, frame in _shown(path, seconds):
        if number >= len(frames):
            size = JUDGED_WIDTH_PX, max(2, 2 * round(JUDGED_WIDTH_PX * frame.height / frame.width / 2))
            picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
            frames += [small] * (number + 1 - len(frames))
    if len(frames) < 2:
        raise ValueError(f"the video {path} has {len(frames)} frames; make it again")
    return np.stack(frames)


def read_frames(path: Path, numbers: Sequence[int]) -> Frames:
    """Decode some frames of a video at its own size, by rising numbers at FPS, [N, H, W, 3].

    Raises:
        ValueError: It cannot be read, or ends before.
    """
    frames: list[Frames] = []
    for number, frame in _shown(path, numbers[-1] / FPS):
        while len(frames) < len(numbers) and numbers[len(frames)] <= number:
            frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    if len(frames) < len(numbers):
        raise ValueError(f"the video {path} ends before its frame {numbers[len(frames)]}; make it again")
    return np.stack(frames)


def _shown(path: Path, seconds: float) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames until some time, each with the number at FPS that it is shown at."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for count, frame in enumerate(container.decode(stream)):
                shown_s = frame.time if frame.time is not None else count / float(stream.average_rate or FPS)
                if shown_s > seconds + 0.5 / FPS:
                    return
                yield round(shown_s * FPS), frame
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise ValueError(f"cannot read the video {path}: {error}; make it again") from error
