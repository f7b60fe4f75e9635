"""nerfstudio's transforms.json, and what Blender's NeRF exporters and instant-ngp write in its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.camera.formats.posed_frames import (
    PINHOLE_MODELS,
    PinholeCamera,
    PosedFrames,
    PosedImage,
    by_camera,
    join_distortion,
)
from engine.camera.formats.text_lines import read_text
from engine.camera.lens import coefficients
from engine.camera.tracks import check_intrinsics

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Turns a camera that looks along -z, y up, into one that looks along +z, y down."""
OTHER_LENSES = ("is_fisheye", "fisheye", "equirectangular", "latlong", "ftheta", "ortho", "orthographic")
"""Flags of lenses that are no pinholes."""
NOT_SET = (None, False, 0, "", "false", "False", "0")
SIZE_KEYS, FOCAL_KEYS = ("w", "h"), ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")


def read_nerfstudio(path: Path) -> tuple[PosedFrames, ...]:
    """Read the frames of each camera, in the order of their names.

    Raises:
        ValueError: The file is damaged, or was taken through a lens that is no pinhole, in one sentence.
    """
    try:
        values = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON; write the transforms again") from error
    frames = values.get("frames") if isinstance(values, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise ValueError(f"{path} has no list of frames; nerfstudio's transforms.json has one")
    _check_lens(values, str(path))
    general = {key: value for key, value in values.items() if key != "frames"}
    try:
        cameras = {str(frame["file_path"]): {**general, **frame} for frame in frames}
        images = [_image(frame, cameras[str(frame["file_path"])], str(path)) for frame in frames]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f"{path} has a frame without a file_path, a 4x4 transform_matrix or a number for its camera, or a k4 that no "
            "pinhole has"
        ) from error
    if len(cameras) < len(frames):
        raise ValueError(f"{path} names {len(frames) - len(cameras)} pictures twice; write each frame once")
    return tuple(_with_angles(part, cameras, str(path)) for part in by_camera(images, str(path)))


def _image(frame: dict[str, Any], camera: dict[str, Any], source: str) -> PosedImage:
    pose = np.array(frame["transform_matrix"], np.float64)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
    if pose.shape != (4, 4):
        raise ValueError("no 4x4 matrix")
    _check_lens(frame, source)
    size = (int(camera["w"]), int(camera["h"])) if all(key in camera for key in SIZE_KEYS) else None
    known = None if size is None else _camera(camera, size)
    return PosedImage(str(frame["file_path"]), pose @ OPENGL_TO_OPENCV, known, known)


def _check_lens(values: dict[str, Any], source: str) -> None:
    """Refuse lenses that are no pinholes, by name."""
    model = str(values.get("camera_model") or PINHOLE_MODELS[0]).upper()
    if model not in (*PINHOLE_MODELS, "PERSPECTIVE"):
        kind = "a fisheye lens" if "FISHEYE" in model else "no pinhole"
        raise ValueError(
            f"{source} has the camera model {model[:40]!r}, {kind}; undistort the images to PINHOLE first"
        )
    if flags := [name for name in OTHER_LENSES if values.get(name) not in NOT_SET]:
        raise ValueError(
            f"{source} has {flags[0]} set, so its lens is no pinhole; undistort the images to PINHOLE first"
        )


def _camera(values: dict[str, Any], size: tuple[int, int]) -> PinholeCamera | None:
    """Return the camera of a frame for images of a size; None where the file says nothing of it."""
    width, height = size
    fx = _focal(values, "x", width)
    fy = _focal(values, "y", height)
    if fx is None and fy is None:
        return None
    fx, fy = fx or fy, fy or fx
    assert fx is not None, "one of the two is known"
    assert fy is not None, "one of the two is known"
    centre = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
    return PinholeCamera(size, (fx, fy, *centre), _distortion(values))


def _distortion(values: dict[str, Any]) -> tuple[float, ...]:
    """Return a frame's distortion; k1 to k3 are factors of the radius's even powers, as OpenCV has them."""
    k1, k2, p1, p2, k3, k4 = (float(values.get(name) or 0.0) for name in ("k1", "k2", "p1", "p2", "k3", "k4"))
    if k4 or not np.isfinite((k1, k2, p1, p2, k3, k4)).all():
        raise ValueError("a distortion that is no pinhole's")
    return coefficients(k1, k2, p1, p2, k3)


def _focal(values: dict[str, Any], axis: str, length: int) -> float | None:
    if (focal := values.get(f"fl_{axis}")) is not None:
        return float(focal)
    if (angle := values.get(f"camera_angle_{axis}")) is not None:
        return 0.5 * length / float(np.tan(0.5 * float(angle)))
    return None


def _with_angles(part: PosedFrames, cameras: dict[str, dict[str, Any]], source: str) -> PosedFrames:
    """Let the images' own size complete lenses for which the file gives none."""
    assert part.names is not None, "nerfstudio names its images"
    values = [cameras[name] for name in part.names]
    if part.track.intrinsics is not None or not all(any(key in v for key in FOCAL_KEYS) for v in values):
        return part

    def intrinsics_of(size: tuple[int, int]) -> NDArray[np.float64]:
        return _intrinsics(values, size, source)

    distortion = join_distortion([_distortion(frame) for frame in values])
    return replace(part, intrinsics_of=intrinsics_of, distortion=distortion)


def _intrinsics(values: Sequence[dict[str, Any]], size: tuple[int, int], source: str) -> NDArray[np.float64]:
    try:
        cameras = [_camera(frame, size) for frame in values]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{source} has a camera that is not of numbers; write the transforms again"
        ) from error
    numbers = [camera.intrinsics for camera in cameras if camera is not None]
    return check_intrinsics(np.array(numbers), len(values), source)
