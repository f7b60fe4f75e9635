"""What a clip must be to be trained on: pictures with something in them, and words without a camera."""

from __future__ import annotations

import re

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
"""Every so many frames are judged; a film does not blink."""

CAMERA_WORDS = re.compile(
    r"\b(cameras?|cinemat\w*|lens(es)?|zoom\w*|pan(s|ned|ning)?|tilt\w*|doll(y|ies|ying)|truck(s|ed|ing)? (left|right)|"
    r"orbit\w*|spiral\w*|fly(ing)?[- ]?(through|over|by)?|flythrough|drone|aerial|walk\w*|mov(e|es|ed|ing|ement)|turn(s|ed|ing)|"
    r"rotat\w*|track(s|ed|ing)?|shots?|footage|videos?|films?|clips?|frames?|views?|viewer|viewpoint|perspective|pov|"
    r"first[- ]person|close[- ]?ups?|wide[- ]angle|forwards?|backwards?|look(s|ed|ing)? (around|up|down|at)|approach\w*)\b",
    re.IGNORECASE,
)
"""Words that speak of how a place is filmed instead of what it looks like."""


def blank_share(frames: NDArray[np.uint8]) -> float:
    """Share of frames [F, H, W, 3] in which nearly every tile is empty."""
    judged = frames[::LOOK_EVERY]
    return sum(empty_share(frame) > EMPTY_TILES for frame in judged) / len(judged)


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
