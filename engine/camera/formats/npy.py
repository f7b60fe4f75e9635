"""Tracks as NumPy arrays: .npy holds the poses alone, .npz all that a track knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES
from engine.camera.tracks import Track, check_intrinsics, check_poses
from engine.files.array_files import read_npy, read_npz


def read_npy_track(path: Path) -> Track:
    return Track(check_poses(read_npy(path, MAX_FRAMES * 16), str(path)))


def read_npz_track(path: Path) -> Track:
    optional = ("intrinsics", "fps", "width", "height")
    arrays = read_npz(path, required=("c2w",), optional=optional, max_items=MAX_FRAMES * 16)
    c2w = check_poses(arrays["c2w"], str(path))
    intrinsics = arrays.get("intrinsics")
    width, height, fps = (_scalar(arrays, name, path) for name in ("width", "height", "fps"))
    return Track(
        c2w,
        None if intrinsics is None else check_intrinsics(intrinsics, len(c2w), str(path)),
        fps,
        (int(width), int(height)) if width and height else None,
    )


def npz_arrays(track: Track) -> dict[str, Any]:
    arrays: dict[str, Any] = {"c2w": track.c2w, "num_frames": np.array(track.num_frames)}
    if track.intrinsics is not None:
        arrays["intrinsics"] = track.intrinsics
    if track.fps is not None:
        arrays["fps"] = np.array(track.fps)
    if track.image_size is not None:
        arrays["width"], arrays["height"] = np.array(track.image_size[0]), np.array(track.image_size[1])
    return arrays


def _scalar(arrays: dict[str, NDArray[np.generic]], name: str, path: Path) -> float | None:
    if name not in arrays:
        return None
    value = arrays[name].astype(np.float64)
    if value.size != 1 or not 0.0 < value.item() < 1e6:
        raise ValueError(f"{path} has {name} = {value.ravel()[:3].tolist()}; it must be one positive number")
    return float(value.item())
