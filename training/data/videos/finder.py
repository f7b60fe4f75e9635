"""Videos in a folder, and the poses that lie beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.formats.colmap import find_colmap
from engine.camera.formats.track_files import POSE_SUFFIXES as TEXT_SUFFIXES
from engine.camera.formats.track_files import TRANSFORMS
from engine.camera.formats.trajectory import is_trajectory, seconds_per_unit
from engine.files.natural_order import natural_key
from training.data.clip import LeftOut

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
POSE_SUFFIXES = (".npz", ".npy", *TEXT_SUFFIXES, ".txt")
"""Of poses beside a video, of the video's own name, in the order of looking."""
POSE_NAMES = (*TRANSFORMS, "poses.npz", "poses.npy", "groundtruth.txt", "groundtruth.csv", "poses.txt")
"""Of poses inside a folder of pictures, in the order of looking; a COLMAP model comes after them."""
PICTURE_FOLDERS = ("images", "rgb", "train", "color", "frames")
"""Where pictures lie in a folder with poses, in it or deeper, where they do not lie in it itself."""
FIRST_TIME = 1e9
"""Whole numbers from here on are times of day in some unit; smaller ones number a row."""
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
    """Files of a folder of pictures, in the natural order of their names."""
    lens: Path | None = None
    """Text file with fx, fy, cx, cy in pixels of the pictures, for poses that say nothing of the lens."""

    @property
    def is_video(self) -> bool:
        return not self.pictures


def picture_times_s(pictures: Sequence[Path]) -> NDArray[np.float64] | None:
    """When each picture was taken, rising, where all are named after it; None otherwise."""
    try:
        times = np.array([float(path.stem) for path in pictures])
    except ValueError:
        return None
    # 000001.png is a number in a row and no time.
    named_in_row = all(path.stem.isdigit() for path in pictures) and times.min() < FIRST_TIME
    if named_in_row or not np.isfinite(times).all() or (np.diff(times) <= 0.0).any():
        return None
    return times * seconds_per_unit(times)


def find_videos(folder: Path) -> tuple[list[Video], list[LeftOut]]:
    """Find the videos of a folder and of those in it; hidden ones are left alone.

    Returns:
        Videos in the natural order of their names, and videos that have no poses.

    Raises:
        ValueError: There is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name one of videos with poses")
    # The folder's own name is a video's, and "." has none.
    folder = folder.resolve()
    found = [item for place in _places(folder) for item in (*_videos(place), *_pictures(place))]
    names = _names([path for path, _, _ in found], folder)
    videos: list[Video] = []
    left_out: list[LeftOut] = []
    for (path, poses, pictures), name in zip(found, names, strict=True):
        if poses is None:
            left_out.append(LeftOut(name, f"{path} has no poses beside it; docs/data.md says which are read"))
        else:
            scene = name.split("/")[0]
            videos.append(Video(name, path, poses, _caption(path), scene, pictures, _lens(path)))
    return videos, left_out


def _places(folder: Path) -> list[Path]:
    below = [path for path in folder.rglob("*") if path.is_dir()]
    shown = [path for path in below if not _is_hidden(path, folder)]
    return [folder, *sorted(shown, key=lambda path: natural_key(path.relative_to(folder).as_posix()))]


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)


def _names(paths: list[Path], folder: Path) -> list[str]:
    """Name videos by their paths in the folder, without the ending of a file unless two would be called the same."""
    full = [path.relative_to(folder).as_posix() if path != folder else folder.name for path in paths]
    short = [
        name if path.is_dir() else name.removesuffix(path.suffix)
        for name, path in zip(full, paths, strict=True)
    ]
    return [name if short.count(name) == 1 else long for name, long in zip(short, full, strict=True)]


_Found = tuple[Path, Path | None, tuple[Path, ...]]


def _videos(place: Path) -> list[_Found]:
    files = [path for path in place.iterdir() if _is_file(path, VIDEO_SUFFIXES)]
    return [(path, poses_beside(path), ()) for path in sorted(files, key=lambda path: natural_key(path.name))]


def _is_file(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file has such a name; macOS writes hidden twins of its own kind of every file."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def _pictures(place: Path) -> list[_Found]:
    """The pictures of a folder as one video, if there are poses for them."""
    # A COLMAP model beside a video of the same name is the video's.
    if any((place.parent / (place.name + suffix)).is_file() for suffix in VIDEO_SUFFIXES):
        return []
    poses = next((place / name for name in POSE_NAMES if _is_pose(place / name)), None) or find_colmap(place)
    if poses is None and place.name not in PICTURE_FOLDERS:
        poses = poses_beside(place)
    if poses is None:
        return []
    for pictures in (
        *(_picture_files(place / name, deep=True) for name in PICTURE_FOLDERS),
        _picture_files(place),
    ):
        if pictures:
            return [(place, poses, pictures)]
    pictures = _picture_files(place, deep=True)
    return [(place, poses, pictures)] if pictures else []


def _picture_files(folder: Path, deep: bool = False) -> tuple[Path, ...]:
    """List the pictures of a folder, or of those in it too, in natural order; those named by decimals by their number."""
    if not folder.is_dir():
        return ()
    paths = folder.rglob("*") if deep else folder.iterdir()
    files = [path for path in paths if _is_file(path, PICTURE_SUFFIXES) and not _is_hidden(path, folder)]
    try:
        return tuple(sorted(files, key=lambda path: float(path.stem)))
    except ValueError:
        return tuple(sorted(files, key=lambda path: natural_key(path.relative_to(folder).as_posix())))


def poses_beside(path: Path) -> Path | None:
    """The first file of poses that has a video's own name; a folder may hold a COLMAP model."""
    stem = path.with_suffix("") if path.is_file() else path
    for suffix in POSE_SUFFIXES:
        beside = _named(path, suffix)
        if _is_pose(beside):
            return beside
    return find_colmap(stem) if path.is_file() else None


def _is_pose(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() != ".txt" or is_trajectory(path))


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
