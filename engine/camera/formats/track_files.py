"""Track files of every format, told apart by what they hold: reading, writing and converting."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.camera.actions import format_actions, infer_actions, integrate_actions, parse_actions
from engine.camera.formats.colmap import find_colmap, read_colmap
from engine.camera.formats.nerfstudio import read_nerfstudio
from engine.camera.formats.npy import npz_arrays, read_npy_track, read_npz_track
from engine.camera.formats.posed_frames import PosedFrames
from engine.camera.formats.text_lines import read_text
from engine.camera.formats.trajectory import EXPECTED, is_trajectory, read_trajectory
from engine.camera.formats.trajectory import SUFFIXES as TRAJECTORY_SUFFIXES
from engine.camera.tracks import Track
from engine.files.atomic import replacing
from engine.files.recording import read_recording

DEFAULT_FPS = 16.0
SUFFIXES = {".npy": "npy", ".npz": "npz", ".txt": "actions", ".flaneur": "recording"}
ARRAY_SUFFIXES = (".npy", ".npz", ".flaneur")
"""Of files that are no text."""
POSE_SUFFIXES = (".json", *TRAJECTORY_SUFFIXES)
"""Of files that are read and not written."""
TRANSFORMS = ("transforms.json", "transforms_train.json")
"""Names of nerfstudio's file in a project, in the order of looking."""
FIRST_BYTES = 4096
"""Of a file, to see what it holds."""
_MARKS = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ACTION_TEXT = re.compile(r"\s*[A-Za-z]+\s*-\s*[0-9]")
_READERS: dict[str, Callable[[Path], Track]] = {
    "npy": read_npy_track,
    "npz": read_npz_track,
    "recording": lambda path: read_recording(path).track(),
}


def load_track(source: str | Path, fps: float = DEFAULT_FPS, version: str = "current") -> Track:
    """Read a track file, or an action string given in place of one.

    Args:
        source: Path of a .npy, .npz or .flaneur file, of a text file of poses or actions, of nerfstudio's JSON, of the folder
            of a COLMAP model or of a project with one, or an action string.
        fps: Frame rate at which action strings are walked.
        version: Key map of action strings, `current` or `v1`.
    """
    path = Path(source)
    if isinstance(source, str) and _looks_like_actions(source):
        return _actions_track(source, fps, version)
    if not path.exists():
        raise ValueError(
            f"there is no track {str(source)!r}; name a file or an action string such as w-48,aw-24"
        )
    track_format = told_format(path)
    if track_format in _READERS:
        return _READERS[track_format](path)
    if track_format == "actions":
        return _actions_track(read_text(path), fps, version)
    return read_posed(path).track


def read_posed(path: Path) -> PosedFrames:
    """Read poses of one camera in any known format, as `read_cameras` does.

    Raises:
        ValueError: They are of several cameras, or cannot be read, in one sentence.
    """
    cameras = read_cameras(path)
    if len(cameras) > 1:
        names = ", ".join(camera.camera or "images" for camera in cameras[:4])
        raise ValueError(
            f"{path} holds the frames of {len(cameras)} cameras ({names}), which are no one walk; keep those of one"
        )
    return next(iter(cameras))


def read_cameras(path: Path) -> tuple[PosedFrames, ...]:
    """Read poses in any known format, those of each camera of a rig apart.

    Args:
        path: nerfstudio's transforms, a COLMAP model or a project with one (a folder), a trajectory as text, or a track file.

    Raises:
        ValueError: It is missing, of no known format, or damaged, in one sentence.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}; check the path")
    if path.is_dir():
        return _read_project(path)
    track_format = told_format(path)
    if track_format == "nerfstudio":
        return read_nerfstudio(path)
    if track_format == "trajectory":
        return (read_trajectory(path),)
    return (PosedFrames(load_track(path)),)


def _read_project(folder: Path) -> tuple[PosedFrames, ...]:
    if (model := find_colmap(folder)) is not None:
        return read_colmap(model)
    if (transforms := next((folder / n for n in TRANSFORMS if (folder / n).is_file()), None)) is not None:
        return read_nerfstudio(transforms)
    return read_colmap(folder)


def told_format(path: Path) -> str:
    """Return what a file or folder holds: folder, npy, npz, recording, nerfstudio, trajectory or actions.

    Arrays and recordings are known by their names or first bytes, text by what stands in it.

    Raises:
        ValueError: It holds nothing that is known; the message says what is expected.
    """
    if path.is_dir():
        return "folder"
    if (suffix := path.suffix.lower()) in ARRAY_SUFFIXES:
        return SUFFIXES[suffix]
    head = _first_bytes(path)
    if (known := next((kind for mark, kind in _MARKS.items() if head.startswith(mark)), None)) is not None:
        return known
    text = head.decode("utf-16" if head[:2] in _UTF16 else "utf-8-sig", "replace").lstrip()
    if suffix == ".json" or text[:1] in ("{", "["):
        return "nerfstudio"
    if is_trajectory(path):
        return "trajectory"
    if _ACTION_TEXT.match(text):
        return "actions"
    raise ValueError(
        f"{path} holds neither poses ({EXPECTED}, or nerfstudio's JSON) nor an action string such as w-48,aw-24"
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FIRST_BYTES)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def detect_format(path: Path) -> str:
    """Return the format of a track file to write by its suffix: npy, npz, actions or recording."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is no track by its name; use a file ending in {', '.join(SUFFIXES)}")
    return SUFFIXES[path.suffix.lower()]


def save_track(track: Track, path: str | Path, version: str = "current") -> None:
    """Write a track as .npy (poses alone), .npz (all it holds) or .txt (the action string that makes it)."""
    path = Path(path)
    track_format = detect_format(path)
    if track_format == "recording":
        raise ValueError(f"cannot write {path}: a recording is made by walking; write .npz, .npy or .txt")
    if track_format == "actions":
        text = format_actions(infer_actions(track.c2w, track.fps or DEFAULT_FPS, version))
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return
    with replacing(path) as temporary:
        if track_format == "npy":
            np.save(temporary, track.c2w, allow_pickle=False)
        else:
            np.savez(temporary, allow_pickle=False, **npz_arrays(track))


def convert(
    source: str | Path, destination: str | Path, fps: float = DEFAULT_FPS, version: str = "current"
) -> Track:
    """Read any track and write it in the format of the destination's name; returns what was written."""
    track = load_track(source, fps, version)
    save_track(track, destination, version)
    return track


def _looks_like_actions(source: str) -> bool:
    suffix = Path(source).suffix.lower()
    if suffix in (*SUFFIXES, *POSE_SUFFIXES) or (len(source) < 256 and Path(source).exists()):
        return False
    return "-" in source and "/" not in source and "\\" not in source


def _actions_track(text: str, fps: float, version: str) -> Track:
    return Track(integrate_actions(parse_actions(text), fps, version), fps=fps)
