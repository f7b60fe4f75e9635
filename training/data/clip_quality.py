"""What a clip must be to be trained on, and which clips are the best.

A clip must have frames with something in them, and words without a camera. The best are chosen as the paper does for every
source: motion, colour saturation and cuts within bounds, and of what passes the best quarter by picture quality. Motion is what
VMAF calls so, the mean change of blurred luma from frame to frame; quality, for which the paper has a network (DOVER), is the
sharpness of the luma here. Clips of videos without poses are scored by FFmpeg's own motion filter, and by optical flow.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
import cv2
import numpy as np
from numpy.typing import NDArray

EMPTY_TILES = 0.8
"""Share of empty tiles above which a frame is nearly blank. The paper's 0.65 is for photographs; a painted place has
large plain walls, and at 0.8 hardly anything but one of them is to be seen."""
BLANK_FRAMES = 0.3
"""Share of nearly blank frames above which a clip is dropped (the paper's)."""
TILES_ACROSS = 22
"""Tiles along a frame's height; the paper's are 32 pixels of 704."""
EMPTY_CONTRAST = 1.5
"""Standard deviation of grey in a tile, of 255, below which nothing is in it: a painted wall has less, a lawn with
shadows more."""
LOOK_EVERY = 8
"""Every so many frames are judged; a video does not blink."""

CAMERA_WORDS = re.compile(
    r"\b(cameras?|cinemat\w*|lens(es)?|zoom\w*|pan(s|ned|ning)?|tilt\w*|doll(y|ies|ying)|truck(s|ed|ing)? (left|right)|"
    r"orbit\w*|spiral\w*|fly(ing)?[- ]?(through|over|by)?|flythrough|drone|aerial|walk\w*|mov(e|es|ed|ing|ement)|turn(s|ed|ing)|"
    r"rotat\w*|track(s|ed|ing)?|shots?|footage|videos?|videos?|clips?|frames?|views?|viewer|viewpoint|perspective|pov|"
    r"first[- ]person|close[- ]?ups?|wide[- ]angle|forwards?|backwards?|look(s|ed|ing)? (around|up|down|at)|approach\w*)\b",
    re.IGNORECASE,
)
"""Words that speak of how a place is filmed instead of what it looks like."""
BEST_SHARE = 50_000 / 212_975
"""Of all clips, in the paper."""
CUT_FACTOR = 8.0
"""A frame that changes more than this many times the median, and by more than `LEAST_CUT`, follows a cut."""
LEAST_CUT = 12.0
"""In steps of 8-bit luma."""
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


def blank_share(frames: NDArray[np.uint8], most_empty: float = EMPTY_TILES) -> float:
    """Share of frames [F, H, W, 3] of which more than a share of the tiles is empty."""
    judged = frames[::LOOK_EVERY]
    return sum(empty_share(frame) > most_empty for frame in judged) / len(judged)


def empty_share(frame: NDArray[np.uint8]) -> float:
    """Share of tiles of a frame [H, W, 3] in which grey hardly changes."""
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
    side = max(4, grey.shape[0] // TILES_ACROSS)
    rows, columns = grey.shape[0] // side, grey.shape[1] // side
    tiles = grey[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return float((tiles.std((1, 3)) < EMPTY_CONTRAST).mean())


def camera_words(caption: str) -> list[str]:
    """Words of a caption that speak of the camera."""
    return [match.group(0) for match in CAMERA_WORDS.finditer(caption)]


@dataclass(frozen=True)
class ClipScores:
    """What one clip is judged by."""

    motion: float
    """Mean absolute change of blurred 8-bit luma between frames."""
    saturation: float
    """Mean of HSV saturation, 0 to 255."""
    cuts: int
    quality: float
    """Mean variance of the luma's Laplacian."""


@dataclass(frozen=True)
class ClipFilters:
    """Ranges that are kept, ends included; those of the paper's Sekai-Walking set."""

    motion: tuple[float, float] = (0.5, 50.0)
    saturation: tuple[float, float] = (0.0, 180.0)
    most_cuts: int = 1

    def pass_(self, scores: ClipScores) -> bool:
        low, high = self.motion
        return (
            low <= scores.motion <= high
            and self.saturation[0] <= scores.saturation <= self.saturation[1]
            and scores.cuts <= self.most_cuts
        )


def clip_scores(frames: NDArray[np.uint8]) -> ClipScores:
    """Judge a clip [F, H, W, 3] of at least two frames."""
    luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    blurred = np.stack([cv2.GaussianBlur(picture, (5, 5), 0) for picture in luma]).astype(np.float32)
    change = np.abs(np.diff(blurred, axis=0)).mean((1, 2))
    is_cut = (change > CUT_FACTOR * np.median(change)) & (change > LEAST_CUT)
    saturation = [cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1].mean() for frame in frames]
    sharpness = [cv2.Laplacian(picture, cv2.CV_32F).var() for picture in luma]
    return ClipScores(
        float(change.mean()), float(np.mean(saturation)), int(is_cut.sum()), float(np.mean(sharpness))
    )


def best_clips(
    scores: Sequence[ClipScores], filters: ClipFilters | None = None, share: float = BEST_SHARE
) -> list[int]:
    """Return the numbers of the clips to keep, best first: `share` of all, but at least one.

    Raises:
        ValueError: No clip passes the filters.
    """
    filters = filters or ClipFilters()
    passing = [number for number, score in enumerate(scores) if filters.pass_(score)]
    if not passing:
        raise ValueError(
            f"none of {len(scores)} clips passes the filters {filters}; widen them, or bring other clips"
        )
    passing.sort(key=lambda number: -scores[number].quality)
    return passing[: max(1, round(share * len(scores)))]


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
