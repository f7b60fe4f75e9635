"""What a clip's frames are scored by without any network: motion, flow, saturation, cuts, blank frames."""

from __future__ import annotations

import itertools
from fractions import Fraction

import av
import av.filter
import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.clip_quality import empty_share

Frames = NDArray[np.uint8]

FLOW_PAIR_S = 0.5
"""Between the frames of a pair."""
FLOW_FIRST_S = 60.0
"""Of a clip that flow is measured in."""
FLOW_WIDTH_PX = 640
"""Width that flow is given for."""
FLOW_SMALL_PX = 320
"""Width that it is computed at."""
MOST_EMPTY = 0.65
"""Share of empty tiles above which a frame is nearly blank (the paper's)."""
LOOK_EVERY = 8
"""Every so many frames are judged for colour and emptiness."""


def vmaf_motion(frames: Frames, fps: float) -> float:
    """Mean VMAF motion of frames [F, H, W, 3], by FFmpeg's own filter."""
    height, width = frames.shape[1:3]
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, round(fps))
    )
    motion, sink = graph.add("vmafmotion"), graph.add("buffersink")
    source.link_to(motion)
    motion.link_to(sink)
    graph.configure()
    scores = []
    for number, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
            format="yuv420p"
        )
        frame.pts = number
        graph.push(frame)
        scores.append(float(graph.pull().metadata["lavfi.vmafmotion.score"]))
    # The first frame has nothing before it and always scores 0.
    return float(np.mean(scores[1:])) if len(scores) > 1 else 0.0


def flow_magnitude(frames: Frames, fps: float) -> float:
    """Mean length of the optical flow (DIS) between frames half a second apart, in pixels of frames 640 wide."""
    step = max(1, round(FLOW_PAIR_S * fps))
    height, width = frames.shape[1:3]
    size = FLOW_SMALL_PX, max(2, round(FLOW_SMALL_PX * height / width))
    last = min(len(frames), round(FLOW_FIRST_S * fps))
    grey = [
        cv2.cvtColor(cv2.resize(frames[n], size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for n in range(0, last, step)
    ]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lengths = [
        np.linalg.norm(method.calc(first, second, None), axis=-1).mean()  # pyright: ignore[reportCallIssue, reportArgumentType]
        for first, second in itertools.pairwise(grey)
    ]
    return float(np.mean(lengths)) * FLOW_WIDTH_PX / FLOW_SMALL_PX if lengths else 0.0


def saturation(frames: Frames) -> float:
    """Mean HSV saturation, 0 to 255."""
    return float(
        np.mean([cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1].mean() for frame in frames[::LOOK_EVERY]])
    )


def nearly_blank_share(frames: Frames) -> float:
    """Share of frames of which over 65 % of the tiles are empty."""
    judged = frames[::LOOK_EVERY]
    return float(np.mean([empty_share(frame) > MOST_EMPTY for frame in judged]))
