"""Camera tracks: poses and intrinsics over time, and fitting one to a run: its starting place, length and frame rate.

A track is a motion: wherever its file begins, playing it begins where the world does. Its files are `engine.camera.formats`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES

RIGID_TOLERANCE = 1e-3
"""Largest entry of R R^T - I accepted; float32 poses chained over a thousand frames drift by about 1e-4."""
MAX_DISTANCE_M = 1e6
"""Farthest position accepted; beyond it float32 no longer resolves a step."""


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


def rebase(c2w: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same motion beginning at `start` [4, 4]; poses that begin there come back bit for bit."""
    if np.array_equal(c2w[0], start):
        return c2w
    inverse = np.eye(4)
    inverse[:3, :3] = c2w[0, :3, :3].T
    inverse[:3, 3] = -c2w[0, :3, :3].T @ c2w[0, :3, 3]
    return start @ inverse @ c2w


def hold(track: Track, num_frames: int) -> Track:
    """Return the first num_frames of a track; one that is shorter ends in holding still."""
    index = np.minimum(np.arange(num_frames), track.num_frames - 1)
    intrinsics = None if track.intrinsics is None else track.intrinsics[index]
    return replace(track, c2w=track.c2w[index], intrinsics=intrinsics)


def resample(track: Track, num_frames: int, fps: float | None = None) -> Track:
    """Return the whole track in num_frames: positions linear in time, rotations along the shortest arc."""
    times = np.linspace(0.0, track.num_frames - 1.0, num_frames)
    return replace(at_times(track, np.arange(track.num_frames, dtype=np.float64), times), fps=fps)


def at_times(track: Track, times_s: NDArray[np.float64], wanted_s: NDArray[np.float64]) -> Track:
    """Return the track at other times: positions linear in time, rotations along the shortest arc.

    Args:
        times_s: When each pose was taken, rising, [F] seconds.
        wanted_s: When poses are wanted, [N]; before the first and after the last pose the track stands still.
    """
    lower = np.clip(np.searchsorted(times_s, wanted_s, side="right") - 1, 0, max(track.num_frames - 2, 0))
    upper = np.minimum(lower + 1, track.num_frames - 1)
    span = times_s[upper] - times_s[lower]
    weight = np.clip((wanted_s - times_s[lower]) / np.where(span > 0.0, span, 1.0), 0.0, 1.0)
    c2w = track.c2w[lower].copy()
    c2w[:, :3, 3] += weight[:, None] * (track.c2w[upper, :3, 3] - track.c2w[lower, :3, 3])
    c2w[:, :3, :3] = _slerp(track.c2w[lower, :3, :3], track.c2w[upper, :3, :3], weight)
    intrinsics = track.intrinsics
    if intrinsics is not None:
        intrinsics = intrinsics[lower] + weight[:, None] * (intrinsics[upper] - intrinsics[lower])
    return replace(track, c2w=c2w, intrinsics=intrinsics, fps=None)


def at_fps(track: Track, fps: float) -> Track:
    """Return the track at another frame rate, where its own is known and differs."""
    if track.fps is None or abs(track.fps - fps) < 1e-9:
        return track
    num_frames = 1 + round((track.num_frames - 1) * fps / track.fps)
    if num_frames > MAX_FRAMES:
        raise ValueError(f"the track would have {num_frames} frames at {fps:g} fps; use at most {MAX_FRAMES}")
    return resample(track, num_frames, fps)


def _slerp(
    start: NDArray[np.float64], end: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Turn rotations [F, 3, 3] part of the way to others: start exp(weight log(start^T end))."""
    turn = start.transpose(0, 2, 1) @ end
    axis = np.stack(
        [turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], 1
    )
    sine = np.linalg.norm(axis, axis=1)
    angle = weight * np.arctan2(sine, np.trace(turn, axis1=1, axis2=2) - 1.0)
    axis = axis / np.maximum(sine, 1e-12)[:, None]
    cross = np.zeros_like(turn)
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    sin, versine = np.sin(angle)[:, None, None], (1.0 - np.cos(angle))[:, None, None]
    return start @ (np.eye(3) + sin * cross + versine * cross @ cross)
