"""Camera tracks: poses and intrinsics over time, and their files.

Fitting one to a run (its length, rate and starting place) is `engine.camera.fitting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES, format_actions, integrate_actions, parse_actions
from engine.files.array_files import read_npy, read_npz
from engine.files.atomic import replacing

RIGID_TOLERANCE = 1e-3
"""Largest entry of R R^T - I accepted; float32 poses chained over a thousand frames drift by about 1e-4."""
MAX_DISTANCE_M = 1e6
"""Farthest position accepted; beyond it float32 no longer resolves a step."""
DEFAULT_FPS = 16.0
SUFFIXES = {".npy": "npy", ".npz": "npz", ".txt": "actions", ".flaneur": "recording"}
POSE_SUFFIXES = (".json", ".tum")
"""Of files that are read by `engine.camera.formats` and not written."""


@dataclass(frozen=True, eq=False)
class Track:
    """One pose per video frame, and what its file says of the camera."""

    c2w: NDArray[np.float64]
    """[F, 4, 4], OpenCV axes, metres."""
    intrinsics: NDArray[np.float64] | None = None
    """[F, 4]: fx, fy, cx, cy in pixels of an image of `image_size`."""
    fps: float | None = None
    image_size: tuple[int, int] | None = None
    """Width and height in pixels of the image the intrinsics belong to; None where the file does not say."""

    @property
    def num_frames(self) -> int:
        return int(self.c2w.shape[0])


def check_poses(poses: NDArray[np.generic], source: str) -> NDArray[np.float64]:
    """Return poses as float64 [F, 4, 4], or say in one sentence what is wrong with them."""
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or poses.shape[0] == 0:
        raise ValueError(
            f"{source} holds poses of shape {poses.shape}; a track is camera-to-world [frames, 4, 4]"
        )
    if poses.shape[0] > MAX_FRAMES:
        raise ValueError(f"{source} holds {poses.shape[0]} poses; use at most {MAX_FRAMES}")
    c2w = poses.astype(np.float64)
    if frame := _first(~np.isfinite(c2w).all((1, 2))):
        raise ValueError(f"{source} has a pose that is not finite (NaN or infinity) at frame {frame - 1}")
    rotation = c2w[:, :3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        rigid = (error <= RIGID_TOLERANCE) & (np.linalg.det(rotation) > 0.0)
    rigid &= np.abs(c2w[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(1) <= RIGID_TOLERANCE
    if frame := _first(~rigid):
        raise ValueError(
            f"{source} has a pose that is not rigid at frame {frame - 1}; give camera-to-world matrices "
            f"of a right-handed rotation (to {RIGID_TOLERANCE:g}) and a position, with no scale or mirror"
        )
    if frame := _first((np.abs(c2w[:, :3, 3]) > MAX_DISTANCE_M).any(1)):
        raise ValueError(
            f"{source} is farther than {MAX_DISTANCE_M:g} m from the origin at frame {frame - 1}"
        )
    return c2w


def _first(bad: Any) -> int:
    """Return one more than the index of the first bad frame of a mask [F]; 0 where there is none."""
    return int(bad.argmax()) + 1 if bad.any() else 0


def check_intrinsics(array: NDArray[np.generic], num_frames: int, source: str) -> NDArray[np.float64]:
    """Return intrinsics as [F, 4] float64 from (3, 3), (F, 3, 3), (4,) or (F, 4)."""
    values = array.astype(np.float64)
    if values.shape[-2:] == (3, 3) and values.ndim <= 3:
        if not np.allclose(values[..., 2, :], [0.0, 0.0, 1.0]):
            raise ValueError(f"{source} has an intrinsics matrix whose last row is not 0 0 1")
        values = values[..., [0, 1, 0, 1], [0, 1, 2, 2]]
    if values.shape == (4,):
        values = np.tile(values, (num_frames, 1))
    if values.shape != (num_frames, 4):
        raise ValueError(
            f"{source} holds intrinsics of shape {array.shape} for {num_frames} poses; "
            "use (3, 3), (frames, 3, 3), (4,) or (frames, 4) as fx, fy, cx, cy"
        )
    if not np.isfinite(values).all() or not (values[:, :2] > 0.0).all():
        raise ValueError(
            f"{source} has intrinsics that are not finite, or a focal length that is not positive"
        )
    return values


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
    from engine.camera.formats.pose_files import is_posed, read_posed

    if is_posed(path):
        return read_posed(path).track
    track_format = detect_format(path)
    if track_format == "actions":
        return _actions_track(_read_text(path), fps, version)
    return _READERS[track_format](path)


def detect_format(path: Path) -> str:
    """Return a track file's format by its suffix: npy, npz, actions or recording."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is no track by its name; use a file ending in {', '.join(SUFFIXES)}")
    return SUFFIXES[path.suffix.lower()]


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


def _read_npy_track(path: Path) -> Track:
    return Track(check_poses(read_npy(path, MAX_FRAMES * 16), str(path)))


def _read_npz_track(path: Path) -> Track:
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


def _scalar(arrays: dict[str, NDArray[np.generic]], name: str, path: Path) -> float | None:
    if name not in arrays:
        return None
    value = arrays[name].astype(np.float64)
    if value.size != 1 or not 0.0 < value.item() < 1e6:
        raise ValueError(f"{path} has {name} = {value.ravel()[:3].tolist()}; it must be one positive number")
    return float(value.item())


def _read_recording_track(path: Path) -> Track:
    from engine.files.recording import read_recording

    return read_recording(path).track()


_READERS: dict[str, Callable[[Path], Track]] = {
    "npy": _read_npy_track,
    "npz": _read_npz_track,
    "recording": _read_recording_track,
}


def save_track(track: Track, path: str | Path, version: str = "current") -> None:
    """Write a track as .npy (poses alone), .npz (all it holds) or .txt (the action string that makes it)."""
    path = Path(path)
    track_format = detect_format(path)
    if track_format == "recording":
        raise ValueError(f"cannot write {path}: a recording is made by walking; write .npz, .npy or .txt")
    if track_format == "actions":
        from engine.camera.keys_from_poses import infer_actions

        text = format_actions(infer_actions(track.c2w, track.fps or DEFAULT_FPS, version))
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return
    with replacing(path) as temporary:
        if track_format == "npy":
            np.save(temporary, track.c2w, allow_pickle=False)
        else:
            np.savez(temporary, allow_pickle=False, **_npz_arrays(track))


def _npz_arrays(track: Track) -> dict[str, Any]:
    arrays: dict[str, Any] = {"c2w": track.c2w, "num_frames": np.array(track.num_frames)}
    if track.intrinsics is not None:
        arrays["intrinsics"] = track.intrinsics
    if track.fps is not None:
        arrays["fps"] = np.array(track.fps)
    if track.image_size is not None:
        arrays["width"], arrays["height"] = np.array(track.image_size[0]), np.array(track.image_size[1])
    return arrays


def convert(
    source: str | Path, destination: str | Path, fps: float = DEFAULT_FPS, version: str = "current"
) -> Track:
    """Read any track and write it in the format of the destination's name; returns what was written."""
    track = load_track(source, fps, version)
    save_track(track, destination, version)
    return track


def output_intrinsics(track: Track, width: int, height: int) -> NDArray[np.float64] | None:
    """Return a track's intrinsics in pixels of an output frame, [F, 4]; None where it has none.

    The image is taken to be resized to cover the frame and cropped about its centre. Without a known image
    size the intrinsics must already be those of the frame.
    """
    if track.intrinsics is None:
        return None
    if track.image_size is not None:
        return map_intrinsics(track.intrinsics, track.image_size, (width, height))
    cx, cy = track.intrinsics[:, 2], track.intrinsics[:, 3]
    if ((cx < 0) | (cx > width) | (cy < 0) | (cy > height)).any():
        raise ValueError(
            f"the track's principal point ({cx[0]:g}, {cy[0]:g}) lies outside the {width}x{height} frame; "
            "add the width and height of its images to the .npz"
        )
    return track.intrinsics


def map_intrinsics(
    intrinsics: NDArray[np.float64], source_size: tuple[int, int], output_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Map [F, 4] intrinsics through a resize that covers the output and a crop about its centre."""
    (source_w, source_h) = source_size
    (resized_w, resized_h), (left, top) = cover(source_size, output_size)
    factor = np.array([resized_w / source_w, resized_h / source_h] * 2)
    return intrinsics * factor - np.array([0.0, 0.0, left, top])


def cover(
    source_size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of an image resized to cover the output, and the left and top of the crop about its centre."""
    (source_w, source_h), (width, height) = source_size, output_size
    scale = max(width / source_w, height / source_h)
    resized = max(width, round(source_w * scale)), max(height, round(source_h * scale))
    return resized, ((resized[0] - width) // 2, (resized[1] - height) // 2)
