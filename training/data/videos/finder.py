"""Videos in a folder, and the poses that lie beside each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.formats.tum import is_tum
from training.data.clip import LeftOut

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
POSE_SUFFIXES = (".npz", ".npy", ".json", ".tum", ".txt")
"""Of poses beside a video, of the video's own name, in the order of looking."""
POSE_NAMES = ("transforms.json", "poses.npz", "poses.npy", "groundtruth.txt", "sparse/0", "sparse")
"""Of poses inside a folder of pictures, in the order of looking."""
PICTURE_FOLDERS = ("images", "rgb")
"""Where pictures lie in a folder with poses, where they do not lie in it itself."""
MAX_CAPTION_BYTES = 10_000


@dataclass(frozen=True, eq=False)
class Video:
    """One video and where its poses are."""

    name: str
    """Path within the folder, without an ending."""
    path: Path
    """The video, or the folder of pictures."""
    poses: Path
    caption: str
    scene: str
    pictures: tuple[Path, ...] = ()
    """Files of a folder of pictures, in the order of their names."""
    lens: Path | None = None
    """Text file with fx, fy, cx, cy in pixels of the pictures, for poses that say nothing of the lens."""

    @property
    def is_video(self) -> bool:
        return not self.pictures

    @property
    def picture_times_s(self) -> NDArray[np.float64] | None:
        """When each picture was taken, where all are named after it; None otherwise."""
        try:
            times = np.array([float(path.stem) for path in self.pictures])
        except ValueError:
            return None
        # 000001.png is a number in a row and no time.
        named_in_row = all(path.stem.isdigit() for path in self.pictures)
        return None if named_in_row or (np.diff(times) <= 0.0).any() else times


def find_videos(folder: Path) -> tuple[list[Video], list[LeftOut]]:
    """Find the videos of a folder and of those in it.

    Returns:
        Videos in the order of their names, and videos that have no poses.

    Raises:
        ValueError: There is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name one of videos with poses")
    videos: list[Video] = []
    left_out: list[LeftOut] = []
    places = [folder, *(path for path in sorted(folder.rglob("*")) if path.is_dir())]
    for place in places:
        if any(part.startswith(".") for part in place.relative_to(folder).parts):
            continue
        found = [*_videos(place), *_pictures(place)]
        for path, poses, pictures in found:
            name = path.relative_to(folder).with_suffix("").as_posix()
            name = folder.resolve().name if name == "." else name
            if poses is None:
                left_out.append(
                    LeftOut(name, f"{path} has no poses beside it; docs/data.md says which are read")
                )
            else:
                scene = name.split("/")[0]
                videos.append(Video(name, path, poses, _caption(path), scene, pictures, _lens(path)))
    return videos, left_out


_Found = tuple[Path, Path | None, tuple[Path, ...]]


def _videos(place: Path) -> list[_Found]:
    return [
        (path, _poses_beside(path), ())
        for path in sorted(place.iterdir())
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    ]


def _pictures(place: Path) -> list[_Found]:
    """The pictures of a folder as one video, if there are poses for them."""
    poses = next((place / name for name in POSE_NAMES if _is_pose(place / name)), None)
    # A COLMAP model beside a video of the same name is the video's.
    if any((place.parent / (place.name + suffix)).is_file() for suffix in VIDEO_SUFFIXES):
        return []
    if poses is None and place.name not in PICTURE_FOLDERS:
        poses = _poses_beside(place)
    if poses is None:
        return []
    for folder in (*(place / name for name in PICTURE_FOLDERS), place):
        pictures = _picture_files(folder)
        if pictures:
            return [(place, poses, pictures)]
    return []


def _picture_files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES)


def _poses_beside(path: Path) -> Path | None:
    """The first file of poses that has a video's own name; a folder may hold a COLMAP model."""
    stem = path.with_suffix("") if path.is_file() else path
    for suffix in POSE_SUFFIXES:
        beside = _named(path, suffix)
        if _is_pose(beside):
            return beside
    models = (stem / "sparse" / "0", stem / "sparse", stem)
    return next((model for model in models if path.is_file() and _is_pose(model)), None)


def _is_pose(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in ("images.bin", "images.txt"))
    return path.is_file() and (path.suffix.lower() != ".txt" or is_tum(path))


def _lens(path: Path) -> Path | None:
    """`NAME.lens.txt` beside a video, or `lens.txt` in a folder of pictures."""
    return next((lens for lens in (_named(path, ".lens.txt"), path / "lens.txt") if lens.is_file()), None)


def _named(path: Path, suffix: str) -> Path:
    """The path beside a video that has its name and another ending."""
    stem = path.with_suffix("") if path.is_file() else path
    return stem.with_name(stem.name + suffix)


def _caption(path: Path) -> str:
    """What a text file beside a video says of it, `NAME.caption.txt`; empty without one."""
    beside = _named(path, ".caption.txt")
    if not beside.is_file():
        return ""
    with beside.open("rb") as file:
        return " ".join(file.read(MAX_CAPTION_BYTES).decode("utf-8", "replace").split())
