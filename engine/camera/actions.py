"""SANA action strings: `w-48,aw-24,none-8` to keys per frame, those to camera poses, and back.

A string is segments of `<keys>-<frames>`; N frames of keys give N + 1 poses, the first being the start.
"""

from __future__ import annotations

import math
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


MATCH_TOLERANCE = 2e-5
"""Metres or radians per frame: above float32's rounding 100 m out, far below any change a key makes."""
REPLAY_TOLERANCE = 1e-3
"""Largest difference of any pose entry between the poses given and those of the action string returned."""
MAX_HYPOTHESES = 64
"""Key histories kept side by side; different keys can make the same frame and part ways only later."""


@dataclass(frozen=True)
class _Hypotheses:
    """Key histories that explain the poses so far, one row each."""

    mask: NDArray[np.int64]
    """[N], bit k set while key k of KEY_ORDER is held."""
    velocity: NDArray[np.float64]
    """[N, 4]: forward, strafe, yaw, pitch, per second."""
    cost: NDArray[np.float64]
    """[N]; changes of the key set, and a little for each key held."""
    parent: NDArray[np.int64]
    """[N], row among the frame before."""


def infer_actions(c2w: NDArray[np.float64], fps: float, version: str = "current") -> list[frozenset[str]]:
    """Return keys for each frame that walk these poses, the simplest that do.

    Args:
        c2w: [N + 1, 4, 4], the start first, upright (no roll).
        fps: Video frames per second.
        version: Key map, `current` or `v1`.

    Raises:
        ValueError: Where no keys make the poses; the message names the first such frame.
    """
    mapping = key_map(version)
    motion, pitch_rad = _motion(c2w)
    target = _targets(mapping)
    history = [_Hypotheses(np.zeros(1, np.int64), np.zeros((1, 4)), np.zeros(1), np.zeros(1, np.int64))]
    for i, observed in enumerate(motion):
        found = _advance(history[-1], observed, pitch_rad[i], target, 1.0 / fps, mapping.constants)
        if found is None:
            raise _not_from_keys(i + 1, version)
        history.append(found)
    row = 0
    masks: list[int] = []
    for hypotheses in reversed(history[1:]):
        masks.append(int(hypotheses.mask[row]))
        row = int(hypotheses.parent[row])
    frames = [_held(mask) for mask in reversed(masks)]
    replayed = integrate_actions(frames, fps, version, start=c2w[0])
    error = np.abs(replayed - c2w).max((1, 2))
    if error.max() > REPLAY_TOLERANCE:
        raise _not_from_keys(int((error > REPLAY_TOLERANCE).argmax()), version)
    return frames


def _not_from_keys(frame: int, version: str) -> ValueError:
    return ValueError(
        f"no keys of the {version} map reach the pose of frame {frame}, so the track has no action string; "
        "write .npz instead"
    )


def _motion(c2w: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each frame's move (forward, strafe, yaw, pitch) [N, 4] and the pitch gained before it [N]."""
    yaw = np.arctan2(c2w[:, 0, 2], c2w[:, 2, 2])
    pitch = -np.arcsin(np.clip(c2w[:, 1, 2], -1.0, 1.0))
    direction = np.stack([np.sin(yaw), np.cos(yaw)], 1)[1:]
    move = np.diff(c2w[:, [0, 2], 3], axis=0)
    forward = (move * direction).sum(1)
    strafe = move[:, 0] * direction[:, 1] - move[:, 1] * direction[:, 0]
    turn = (np.diff(yaw) + math.pi) % (2.0 * math.pi) - math.pi
    return np.stack([forward, strafe, turn, np.diff(pitch)], 1), pitch[:-1] - pitch[0]


def _targets(mapping: KeyMap) -> NDArray[np.float64]:
    """Return the target velocity (forward, strafe, yaw, pitch) of every key set, [256, 4]."""
    key_sets = (_held(mask) for mask in range(1 << len(KEY_ORDER)))
    velocities = (mapping.constants.velocity(mapping.axes(held)) for held in key_sets)
    return np.array([(v.forward, v.strafe, v.yaw, v.pitch) for v in velocities])


def _advance(
    before: _Hypotheses,
    observed: NDArray[np.float64],
    pitch_rad: float,
    target: NDArray[np.float64],
    dt_s: float,
    constants: MotionConstants,
) -> _Hypotheses | None:
    """Try every key set after every hypothesis; keep those that make the observed move, [4]."""
    masks = np.arange(len(target))
    press, coast = (
        1.0 - math.exp(-dt_s / tau) if tau else 1.0 for tau in (constants.press_tau_s, constants.coast_tau_s)
    )
    fraction = np.where(target != 0.0, press, coast)
    snaps = (masks[None] & ~before.mask[:, None]) != 0
    approached = before.velocity[:, None] + fraction * (target - before.velocity[:, None])
    velocity = np.where(snaps[..., None], target, approached)
    moved = velocity * dt_s
    limit = constants.pitch_limit_rad
    pitch = pitch_rad + moved[..., 3]
    stopped = (
        np.clip(pitch, -limit, limit)
        if constants.partial_pitch
        else np.where(abs(pitch) > limit, pitch_rad, pitch)
    )
    moved[..., 3] = stopped - pitch_rad
    rows, columns = np.nonzero((abs(moved - observed) < MATCH_TOLERANCE).all(-1))
    if not rows.size:
        return None
    num_keys = np.array([mask.bit_count() for mask in range(len(masks))])
    changed = masks[columns] != before.mask[rows]
    cost = before.cost[rows] + changed + 1e-3 * num_keys[columns]
    order = np.argsort(cost, kind="stable")
    rows, columns = rows[order], columns[order]
    # Histories that hold the same keys but differ in a velocity hidden by the pitch limit all stay.
    hidden = np.round(velocity[rows, columns, 3], 6)
    _, first = np.unique(np.stack([columns, hidden], 1), axis=0, return_index=True)
    kept = np.sort(first)[:MAX_HYPOTHESES]
    return _Hypotheses(columns[kept], velocity[rows[kept], columns[kept]], cost[order][kept], rows[kept])


def _held(mask: int) -> frozenset[str]:
    return frozenset(key for bit, key in enumerate(KEY_ORDER) if mask >> bit & 1)
