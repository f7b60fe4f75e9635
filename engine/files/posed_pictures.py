"""Posed RGB-D pictures of other programs as keyframes of a spatial memory.

Two forms are read: a folder with nerfstudio's transforms.json whose frames name a `depth_file_path`, and an .npz file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.formats.nerfstudio import read_nerfstudio
from engine.camera.formats.posed_frames import PosedFrames
from engine.camera.formats.text_lines import read_text
from engine.camera.lens import undistort, undistorted_intrinsics
from engine.camera.tracks import check_intrinsics, check_poses
from engine.files.array_files import read_npy, read_npz
from engine.files.pictures import read_depth_picture, read_rgb
from engine.memory.codec import MAX_SIDE_PX
from engine.memory.keyframes import Keyframe
from engine.memory.store import MAX_KEYFRAMES, MAX_PIXELS

TRANSFORMS = "transforms.json"
NERFSTUDIO_UNIT_M = 1e-3
"""Metres per number of a depth file, where transforms.json names no `depth_unit_scale_factor`."""
Z_UP_TO_Y_DOWN = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
"""From nerfstudio's world, z up, into ours, y down."""
MIN_SIDE_PX = 8


def read_posed_pictures(path: Path) -> list[Keyframe]:
    """Read the keyframes in a folder or an .npz file.

    Raises:
        ValueError: There are none, or they are damaged, too many or too large, in one sentence.
    """
    if path.is_dir():
        if (path / TRANSFORMS).is_file():
            return list(_bounded(_from_nerfstudio(path), path))
        arrays = sorted(path.glob("*.npz"))
        if not arrays:
            raise ValueError(
                f"{path} holds neither {TRANSFORMS} nor an .npz file; docs/spatial-memory.md says what is read"
            )
        return list(_bounded((keyframe for file in arrays for keyframe in _from_npz(file)), path))
    if path.suffix != ".npz":
        raise ValueError(f"{path} is neither a folder nor an .npz file of posed pictures; check the path")
    return list(_bounded(_from_npz(path), path))


def inverse_of(depth_m: NDArray[np.floating]) -> NDArray[np.float32]:
    """Turn depths in metres into inverse depth, 1/m: 0 for infinity, -1 where a depth is 0, negative or no number."""
    known = depth_m > 0
    return np.where(known, 1.0 / np.where(known, np.maximum(depth_m, 1e-3), 1.0), -1.0).astype(np.float32)


def _from_npz(path: Path) -> Iterator[Keyframe]:
    arrays = read_npz(path, ("color", "depth", "c2w", "intrinsics"), (), 3 * MAX_PIXELS)
    color, depth = arrays["color"], arrays["depth"]
    sound = color.dtype == np.uint8 and color.ndim == 4 and color.shape[3] == 3
    if not sound or depth.shape != color.shape[:3]:
        raise ValueError(
            f"{path} holds color {color.dtype} {list(color.shape)} and depth {list(depth.shape)}; they are uint8 [N, H, W, 3] "
            "and metres [N, H, W]"
        )
    c2w = check_poses(arrays["c2w"], str(path))
    if len(c2w) != len(color):
        raise ValueError(f"{path} holds {len(color)} pictures and {len(c2w)} poses; it needs one each")
    intrinsics = check_intrinsics(arrays["intrinsics"], len(c2w), str(path))
    for picture, metres, pose, lens in zip(color, depth, c2w, intrinsics, strict=True):
        yield _keyframe(picture.astype(np.uint8), metres.astype(np.float64), pose, lens, str(path))


def _from_nerfstudio(folder: Path) -> Iterator[Keyframe]:
    file = folder / TRANSFORMS
    parts = read_nerfstudio(file)
    values = json.loads(read_text(file))
    depths = {str(frame["file_path"]): frame.get("depth_file_path") for frame in values["frames"]}
    unit_m = values.get("depth_unit_scale_factor", NERFSTUDIO_UNIT_M)
    if not isinstance(unit_m, (int, float)) or not 0 < unit_m < 1e6:
        raise ValueError(f"{file} has a depth_unit_scale_factor that is not a positive number")
    for part in parts:
        assert part.names is not None, "nerfstudio names its images"
        for number, name in enumerate(part.names):
            depth_name = depths[name]
            if not isinstance(depth_name, str):
                raise ValueError(
                    f"{file} names no depth_file_path for {name[:80]}; a memory needs the depth of each picture"
                )
            color = read_rgb(_inside(folder, name))
            depth_m = _read_depth(_inside(folder, depth_name)) * unit_m
            pose = Z_UP_TO_Y_DOWN @ part.track.c2w[number]
            lens = _lens(part, color.shape[1::-1], file)[number]
            if part.distortion is not None:
                color, depth_m, lens = _undistorted(color, depth_m, lens, part.distortion[number])
            yield _keyframe(color, depth_m, pose, lens, str(folder / name))


def _undistorted(
    color: NDArray[np.uint8],
    depth_m: NDArray[np.float64],
    lens: NDArray[np.float64],
    distortion: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Return a picture, its depth and its intrinsics as of a lens without distortion."""
    new = undistorted_intrinsics(lens[None], distortion[None], color.shape[1::-1])[0]
    flat = np.asarray(undistort(color, lens, distortion, new), np.uint8)
    depth = np.asarray(undistort(depth_m, lens, distortion, new, nearest=True), np.float64)
    return flat, depth, new


def _lens(part: PosedFrames, size: tuple[int, int], file: Path) -> NDArray[np.float64]:
    """Intrinsics of a camera's pictures, [F, 4]."""
    if part.track.intrinsics is not None:
        return part.track.intrinsics
    if part.intrinsics_of is None:
        raise ValueError(f"{file} lacks the camera of a frame; give fl_x, w and h")
    return part.intrinsics_of(size)


def _read_depth(path: Path) -> NDArray[np.float64]:
    """Depth in the file's own unit, [H, W]."""
    depth = read_npy(path, MAX_PIXELS) if path.suffix == ".npy" else read_depth_picture(path)
    return np.squeeze(depth).astype(np.float64)


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(
            f"{folder / TRANSFORMS} names {name[:80]!r}, which lies outside of its folder; move it there"
        )
    return path


def _keyframe(
    color: NDArray[np.uint8],
    depth_m: NDArray[np.float64],
    c2w: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
    source: str,
) -> Keyframe:
    height, width = color.shape[:2]
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in (width, height)):
        raise ValueError(
            f"{source} has {width}x{height} pixels; sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} are accepted, scale it"
        )
    if depth_m.shape != (height, width):
        raise ValueError(
            f"the depth of {source} is {list(depth_m.shape)}, its picture {[height, width]}; give them one size"
        )
    return Keyframe.of(color, inverse_of(depth_m), c2w, intrinsics.astype(np.float32))


def _bounded(keyframes: Iterator[Keyframe], path: Path) -> Iterator[Keyframe]:
    pixels = 0
    for count, keyframe in enumerate(keyframes, 1):
        pixels += keyframe.size[0] * keyframe.size[1]
        if count > MAX_KEYFRAMES or pixels > MAX_PIXELS:
            raise ValueError(
                f"{path} holds more than {MAX_KEYFRAMES} pictures or {MAX_PIXELS >> 20} million pixels; leave some out"
            )
        yield keyframe
