"""TUM trajectories: one line per pose, a time, a position and a quaternion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.camera.actions import MAX_FRAMES
from engine.camera.formats.posed_frames import PosedFrames, read_text, rotations
from engine.camera.tracks import Track, check_poses

FIRST_BYTES = 4096
"""Of a text file, to see what it holds."""


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


def read_tum(path: Path) -> PosedFrames:
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
