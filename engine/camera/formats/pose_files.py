"""Poses of films and picture folders as other programs write them: nerfstudio, COLMAP, TUM.

Lens distortion is not undone: the pinhole part of a camera is what is read. Lengths are in the file's own unit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES
from engine.camera.tracks import Track, check_intrinsics, check_poses, load_track

Array = NDArray[np.float64]
MAX_TEXT_BYTES = 1 << 28
FIRST_BYTES = 4096
"""Of a text file, to see what it holds."""
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Turns a camera that looks along -z, y up, into one that looks along +z, y down."""


@dataclass(frozen=True, eq=False)
class PosedFrames:
    """Poses, and what their file says of the pictures they belong to."""

    track: Track
    names: tuple[str, ...] | None = None
    """File name of each picture, as the file writes it; None where poses belong to the frames of a film."""
    times_s: Array | None = None
    """When each pose was taken, rising, [F]."""


@dataclass(frozen=True)
class Lens:
    """A pinhole camera."""

    size: tuple[int, int]
    """Width and height of its picture in pixels."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""


def read_posed(path: Path) -> PosedFrames:
    """Read poses in any known format.

    Args:
        path: nerfstudio's transforms (.json), a COLMAP model (a folder), TUM lines (.tum or .txt), or a track file.

    Raises:
        ValueError: It is missing, of no known format, or damaged, in one sentence.
    """
    if path.is_dir():
        from engine.camera.formats.colmap import read_colmap

        return read_colmap(path)
    if path.suffix.lower() == ".json":
        return _read_nerfstudio(path)
    if is_tum(path):
        return _read_tum(path)
    return PosedFrames(load_track(path))


def is_posed(path: Path) -> bool:
    """Whether this is a file or folder that only `read_posed` reads, not an action string or an array."""
    return path.is_dir() or path.suffix.lower() == ".json" or is_tum(path)


def is_tum(path: Path) -> bool:
    """Whether a text file holds TUM lines: a time, a position and a quaternion."""
    if path.suffix.lower() == ".tum":
        return True
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        lines = file.read(FIRST_BYTES).decode("utf-8", "replace").splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return len(first.split()) == 8


def read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ValueError(f"{path} is over {MAX_TEXT_BYTES >> 20} MB; poses never are, check the path")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error.reason}); check the path") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def _read_nerfstudio(path: Path) -> PosedFrames:
    try:
        values = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON; write the transforms again") from error
    frames = values.get("frames") if isinstance(values, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise ValueError(f"{path} has no list of frames; nerfstudio's transforms.json has one")
    try:
        frames = sorted(frames, key=lambda frame: str(frame["file_path"]))
        poses = np.array([frame["transform_matrix"] for frame in frames], np.float64)
        lenses = [_nerfstudio_lens({**values, **frame}, str(path)) for frame in frames]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f"{path} has a frame without a file_path, a 4x4 transform_matrix or a number for its lens"
        ) from error
    c2w = check_poses(poses, str(path)) @ OPENGL_TO_OPENCV
    names = tuple(str(frame["file_path"]) for frame in frames)
    return PosedFrames(join_lenses(c2w, lenses, str(path)), names)


def _nerfstudio_lens(frame: dict[str, Any], source: str) -> Lens | None:
    """Return the lens of a frame; None where the file says nothing of it."""
    if "w" not in frame or "h" not in frame:
        return None
    if "fisheye" in str(frame.get("camera_model", "")).lower():
        raise ValueError(f"{source} was taken through a fisheye lens; undistort the pictures first")
    width, height = int(frame["w"]), int(frame["h"])
    if "fl_x" in frame:
        fx = float(frame["fl_x"])
    elif "camera_angle_x" in frame:
        fx = 0.5 * width / float(np.tan(0.5 * float(frame["camera_angle_x"])))
    else:
        return None
    centre = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
    return Lens((width, height), (fx, float(frame.get("fl_y", fx)), *centre))


def join_lenses(c2w: Array, lenses: Sequence[Lens | None], source: str) -> Track:
    """Join poses and lenses; lenses are left out unless every frame has one."""
    known = [lens for lens in lenses if lens is not None]
    if len(known) < len(c2w):
        return Track(c2w)
    sizes = {lens.size for lens in known}
    if len(sizes) > 1:
        raise ValueError(f"{source} has pictures of different sizes {sorted(sizes)[:3]}; keep those of one")
    (size,) = sizes
    if min(size) < 1:
        raise ValueError(f"{source} has pictures of {size[0]}x{size[1]} pixels; sizes are positive")
    intrinsics = check_intrinsics(np.array([lens.intrinsics for lens in known]), len(c2w), source)
    return Track(c2w, intrinsics, image_size=size)


def _read_tum(path: Path) -> PosedFrames:
    lines = [line.split() for line in read_text(path).splitlines() if line.strip() and line[0] != "#"]
    if not 1 <= len(lines) <= MAX_FRAMES:
        raise ValueError(f"{path} holds {len(lines)} poses; 1 to {MAX_FRAMES} are accepted")
    try:
        rows = np.array(lines, np.float64)
    except ValueError as error:
        raise ValueError(f"{path} has a line that is not eight numbers: {error}") from error
    if rows.shape[1:] != (8,) or not np.isfinite(rows).all():
        raise ValueError(f"{path} has a line that is not eight finite numbers: time, x, y, z, qx, qy, qz, qw")
    times = rows[:, 0]
    if (np.diff(times) <= 0.0).any():
        raise ValueError(f"{path} has times that do not rise; sort its lines and drop repeated ones")
    c2w = np.tile(np.eye(4), (len(rows), 1, 1))
    c2w[:, :3, :3] = rotations(rows[:, [7, 4, 5, 6]], str(path))
    c2w[:, :3, 3] = rows[:, 1:4]
    fps = None if len(times) < 2 else (len(times) - 1) / float(times[-1] - times[0])
    return PosedFrames(Track(check_poses(c2w, str(path)), fps=fps), times_s=times)


def rotations(quaternions: Array, source: str) -> Array:
    """Turn quaternions w, x, y, z [F, 4] into rotations [F, 3, 3]."""
    length = np.linalg.norm(quaternions, axis=1)
    if not (np.isfinite(length) & (np.abs(length - 1.0) < 0.1)).all():
        raise ValueError(f"{source} has a quaternion that is not of length 1; write the poses again")
    w, x, y, z = (quaternions / length[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
