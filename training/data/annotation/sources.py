"""What is annotated: video files and folders of pictures, and their frames at an even rate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.files.natural_order import natural_key
from training.data.clip import LeftOut
from training.data.videos.finder import PICTURE_SUFFIXES, VIDEO_SUFFIXES, picture_times_s
from training.data.videos.frames import DecodedFrames, VideoFrames
from training.data.videos.pictures import ImageFrames

LEAST_PICTURES = 8
"""In a folder that counts as a video."""
UNSAFE = re.compile(r"[^A-Za-z0-9-]+")


@dataclass(frozen=True)
class Source:
    """One video."""

    name: str
    """Of its clips, with letters, digits and hyphens; unique within a set."""
    path: Path
    """The video file, or the folder of pictures."""

    def open(self) -> VideoFrames:
        """Open the frames.

        Raises:
            ValueError: It is damaged, in one sentence.
        """
        if self.path.is_file():
            return DecodedFrames(self.path)
        pictures = _pictures(self.path)
        return ImageFrames(pictures, picture_times_s(pictures))

    def beside(self, suffix: str) -> Path:
        """The path beside the video that has its name and another ending."""
        stem = self.path.with_suffix("") if self.path.is_file() else self.path
        return stem.with_name(stem.name + suffix)


def find_sources(paths: Sequence[Path]) -> tuple[list[Source], list[LeftOut]]:
    """Find the videos that paths name: files, and everything in folders; hidden ones are left alone.

    Returns:
        Videos in the order of their paths, and what was named and is none.
    """
    found: list[Path] = []
    left_out: list[LeftOut] = []
    for path in paths:
        inside = [path] if path.is_file() else _inside(path) if path.is_dir() else []
        if not inside:
            reason = "does not exist" if not path.exists() else "holds neither videos nor pictures"
            left_out.append(LeftOut(str(path), f"{path} {reason}; name video files, or folders of them"))
        found += [item for item in inside if item not in found]
    names: dict[str, int] = {}
    sources = []
    for path in found:
        stem = UNSAFE.sub("-", path.stem if path.is_file() else path.name).strip("-") or "video"
        names[stem] = names.get(stem, 0) + 1
        sources.append(Source(stem if names[stem] == 1 else f"{stem}-{names[stem]}", path))
    return sources, left_out


def _inside(folder: Path) -> list[Path]:
    folders = [folder, *(item for item in folder.rglob("*") if item.is_dir())]
    visible = [item for item in folders if not any(p.startswith(".") for p in item.relative_to(folder).parts)]
    found = [item for item in visible if len(_pictures(item)) >= LEAST_PICTURES]
    for place in visible:
        found += [
            item for item in place.iterdir() if item.suffix.lower() in VIDEO_SUFFIXES and item.name[0] != "."
        ]
    return sorted(found, key=lambda item: natural_key(str(item)))


def _pictures(folder: Path) -> list[Path]:
    files = [
        item for item in folder.iterdir() if item.suffix.lower() in PICTURE_SUFFIXES and item.name[0] != "."
    ]
    return sorted(files, key=lambda item: natural_key(item.name))


def frame_times_s(frames: VideoFrames, fps: float) -> NDArray[np.float64]:
    """When each frame is shown; pictures of which nothing says so are `fps` a second."""
    return np.arange(len(frames)) / fps if frames.times_s is None else frames.times_s


def nearest_frames(times_s: NDArray[np.float64], moments_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of the frames that are shown nearest to moments."""
    return np.searchsorted((times_s[1:] + times_s[:-1]) / 2.0, moments_s, side="right").astype(np.int64)


def within_area(size: tuple[int, int], most_pixels: int) -> tuple[int, int]:
    """Width and height of the same shape with so many pixels at most, both even."""
    scale = min(1.0, (most_pixels / (size[0] * size[1])) ** 0.5)
    width, height = (max(2, 2 * int(side * scale / 2 + 1e-6)) for side in size)
    return width, height
