"""Track files of every format, told apart by their names: reading, writing and converting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.camera.actions import format_actions, infer_actions, integrate_actions, parse_actions
from engine.camera.formats.colmap import read_colmap
from engine.camera.formats.nerfstudio import read_nerfstudio
from engine.camera.formats.npy import npz_arrays, read_npy_track, read_npz_track
from engine.camera.formats.posed_frames import PosedFrames
from engine.camera.formats.tum import is_tum, read_tum
from engine.camera.tracks import Track
from engine.files.atomic import replacing
from engine.files.recording import read_recording

DEFAULT_FPS = 16.0
SUFFIXES = {".npy": "npy", ".npz": "npz", ".txt": "actions", ".flaneur": "recording"}
POSE_SUFFIXES = (".json", ".tum")
"""Of files that are read and not written."""
_READERS: dict[str, Callable[[Path], Track]] = {
    "npy": read_npy_track,
    "npz": read_npz_track,
    "recording": lambda path: read_recording(path).track(),
}


def load_track(source: str | Path, fps: float = DEFAULT_FPS, version: str = "current") -> Track:
    """Read a track file, or an action string given in place of one.

    Args:
        source: Path of a .npy, .npz, .txt (action string or TUM lines), .tum, .json (nerfstudio) or .flaneur file, of a
            COLMAP model's folder, or an action string.
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
    if is_posed(path):
        return read_posed(path).track
    track_format = detect_format(path)
    if track_format == "actions":
        return _actions_track(_read_text(path), fps, version)
    return _READERS[track_format](path)


def read_posed(path: Path) -> PosedFrames:
    """Read poses in any known format.

    Args:
        path: nerfstudio's transforms (.json), a COLMAP model (a folder), TUM lines (.tum or .txt), or a track file.

    Raises:
        ValueError: It is missing, of no known format, or damaged, in one sentence.
    """
    if path.is_dir():
        return read_colmap(path)
    if path.suffix.lower() == ".json":
        return read_nerfstudio(path)
    if is_tum(path):
        return read_tum(path)
    return PosedFrames(load_track(path))


def is_posed(path: Path) -> bool:
    """Whether this is a file or folder that only `read_posed` reads, not an action string or an array."""
    return path.is_dir() or path.suffix.lower() == ".json" or is_tum(path)


def detect_format(path: Path) -> str:
    """Return a track file's format by its suffix: npy, npz, actions or recording."""
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


def _read_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(1_000_001)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} as text: {error}") from error
