"""nerfstudio's transforms.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.camera.formats.posed_frames import PinholeCamera, PosedFrames, join_cameras, read_text
from engine.camera.tracks import check_poses

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Turns a camera that looks along -z, y up, into one that looks along +z, y down."""


def read_nerfstudio(path: Path) -> PosedFrames:
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
        cameras = [_camera_of({**values, **frame}, str(path)) for frame in frames]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f"{path} has a frame without a file_path, a 4x4 transform_matrix or a number for its camera"
        ) from error
    c2w = check_poses(poses, str(path)) @ OPENGL_TO_OPENCV
    names = tuple(str(frame["file_path"]) for frame in frames)
    return PosedFrames(join_cameras(c2w, cameras, str(path)), names)


def _camera_of(frame: dict[str, Any], source: str) -> PinholeCamera | None:
    """Return the camera of a frame; None where the file says nothing of it."""
    if "w" not in frame or "h" not in frame:
        return None
    if "fisheye" in str(frame.get("camera_model", "")).lower():
        raise ValueError(f"{source} was taken through a fisheye lens; undistort the images first")
    width, height = int(frame["w"]), int(frame["h"])
    if "fl_x" in frame:
        fx = float(frame["fl_x"])
    elif "camera_angle_x" in frame:
        fx = 0.5 * width / float(np.tan(0.5 * float(frame["camera_angle_x"])))
    else:
        return None
    centre = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
    return PinholeCamera((width, height), (fx, float(frame.get("fl_y", fx)), *centre))
