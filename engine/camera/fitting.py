"""Fitting a camera track to a run: its starting place, its length and its frame rate.

A track is a motion: wherever its file begins, playing it begins where the world does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES
from engine.camera.tracks import Track


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
