"""SANA action strings: `w-48,aw-24,none-8` to keys per frame, and those to camera poses.

A string is segments of `<keys>-<frames>`; N frames of keys give N + 1 poses, the first being the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from engine.camera.integrator import CURRENT, V1, Axes, IntegratorState, MotionConstants, step

MAX_FRAMES = 1_000_000
"""Longest track accepted anywhere: 17 hours at 16 fps, 128 MB of poses."""
MAX_TEXT_CHARS = 1_000_000
"""Longest action string accepted."""


@dataclass(frozen=True)
class KeyMap:
    """What each key asks for, and how the camera answers."""

    version: str
    keys: Mapping[str, Axes]
    constants: MotionConstants

    def axes(self, held: Iterable[str]) -> Axes:
        """Return the signed sums of the held keys' axes; opposite keys cancel, diagonals add up."""
        return Axes(*(sum(values) for values in zip(Axes(), *(self.keys[key] for key in held), strict=True)))


_MOVES = {"w": Axes(forward=1.0), "s": Axes(forward=-1.0), "i": Axes(pitch=1.0), "k": Axes(pitch=-1.0)}
KEY_MAPS = {
    "current": KeyMap(
        "current",
        {**_MOVES, "a": Axes(yaw=-1.0), "d": Axes(yaw=1.0), "j": Axes(strafe=-1.0), "l": Axes(strafe=1.0)},
        CURRENT,
    ),
    "v1": KeyMap(
        "v1",
        {**_MOVES, "a": Axes(strafe=-1.0), "d": Axes(strafe=1.0), "j": Axes(yaw=-1.0), "l": Axes(yaw=1.0)},
        V1,
    ),
}
"""Key maps by version. In `v1`, as in older releases, a/d strafe and j/l yaw, faster and without inertia."""

KEY_ORDER = "wsadjlik"


def key_map(version: str) -> KeyMap:
    """Return the key map of a version, or say which there are."""
    if version not in KEY_MAPS:
        raise ValueError(f"no key map {version!r}; use {' or '.join(KEY_MAPS)}")
    return KEY_MAPS[version]


def parse_actions(text: str) -> list[frozenset[str]]:
    """Read an action string: the keys held in each frame.

    Spaces are dropped, case is ignored, full-width commas count as commas.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(f"the action string has {len(text)} characters; use at most {MAX_TEXT_CHARS}")
    cleaned = "".join(text.replace("\uff0c", ",").split()).lower()
    if not cleaned:
        raise ValueError("the action string is empty; write segments such as w-48,aw-24,none-8")
    frames: list[frozenset[str]] = []
    for segment in cleaned.split(","):
        held, num_frames = _parse_segment(segment)
        if len(frames) + num_frames > MAX_FRAMES:
            raise ValueError(f"action segment {segment!r} makes the track longer than {MAX_FRAMES} frames")
        frames.extend([held] * num_frames)
    return frames


def _parse_segment(segment: str) -> tuple[frozenset[str], int]:
    keys, dash, duration = segment.rpartition("-")
    if not dash or not keys:
        raise ValueError(f"action segment {segment[:40]!r} is not <keys>-<frames>; write for example aw-24")
    # isascii, since str.isdigit is also true of digits that int() cannot read; nine digits exceed any track.
    if not (duration.isascii() and duration.isdigit() and len(duration) <= 9 and int(duration) > 0):
        raise ValueError(
            f"action segment {segment[:40]!r} has the duration {duration[:20]!r}; "
            "use a whole number of frames, 1 or more"
        )
    if keys == "none":
        return frozenset(), int(duration)
    if unknown := sorted(set(keys) - set(KEY_ORDER)):
        raise ValueError(
            f"action segment {segment[:40]!r} has the unknown key {unknown[0]!r}; "
            f"use the keys {' '.join(KEY_ORDER)}, or none"
        )
    return frozenset(keys), int(duration)


def format_actions(frames: Sequence[frozenset[str]]) -> str:
    """Write the keys of each frame as the shortest action string."""
    segments = []
    for held, run in groupby(frames):
        keys = "".join(key for key in KEY_ORDER if key in held) or "none"
        segments.append(f"{keys}-{len(list(run))}")
    return ",".join(segments)


def integrate_actions(
    frames: Sequence[frozenset[str]],
    fps: float,
    version: str = "current",
    start: NDArray[np.float64] | None = None,
    speed_scale: float = 1.0,
) -> NDArray[np.float64]:
    """Walk the keys of each frame.

    Args:
        frames: Keys held in each of N frames.
        fps: Video frames per second.
        version: Key map, `current` or `v1`.
        start: First pose, c2w [4, 4]; identity by default.
        speed_scale: Multiplies translation.

    Returns:
        c2w [N + 1, 4, 4] float64, the start first.
    """
    mapping = key_map(version)
    state = IntegratorState.at(np.eye(4) if start is None else start)
    poses = np.empty((len(frames) + 1, 4, 4))
    poses[0] = state.c2w()
    targets = {held: mapping.constants.velocity(mapping.axes(held), speed_scale) for held in set(frames)}
    for i, held in enumerate(frames, start=1):
        state = step(state, targets[held], held, 1.0 / fps, mapping.constants)
        poses[i] = state.c2w()
    return poses
