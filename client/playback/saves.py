"""Saved walks: where they lie, what a list shows of them, what one holds, and the snapshot that it gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.camera.rig import RigState
from client.input.controls import KEY_MAP_VERSION
from client.playback.history import WalkFrame, WalkSnapshot
from client.playback.walk import Walk
from client.setup.folders import unused_path
from engine.camera.integrator import Axes, IntegratorState
from engine.errors import SpecMismatch
from engine.files.recording import RecordedChunk
from engine.files.saved_walk import (
    SUFFIX,
    SavedInfo,
    SavedWalk,
    SessionSpec,
    read_saved_preview,
    read_saved_walk,
)
from engine.machine.installing import app_version
from engine.session.protocol import Session

RIG_NUMBERS = 9 + 3 + 3 + len(Axes._fields) + 2
"""Start rotation, position, yaw pitch and roll, velocities, turn not yet taken."""

ANGLES = slice(12, 15)
"""Place of yaw, pitch and roll among them."""


def save_stem(session: Session) -> str:
    """Return what the files of walks saved in a session's present world with its engine are named by."""
    return f"{session.world.name}-{session.identity.partition(':')[0][:8]}"


def new_save_file(folder: Path, stem: str, now: datetime) -> Path:
    """Return a free path for a walk saved now; nothing is overwritten."""
    return unused_path(folder, stem, SUFFIX, now)


def newest_save(folder: Path, stem: str) -> Path | None:
    """Find the walk that was saved last under a stem."""
    return next(iter(_files(folder, f"{stem}*{SUFFIX}")), None)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder, the newest first; a folder that cannot be read has none."""
    with suppress(OSError):
        return sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return []


@dataclass(frozen=True, eq=False)
class SavedEntry:
    """A saved walk as a list shows it."""

    path: Path
    info: SavedInfo
    picture: NDArray[np.uint8]
    """[H, W, 3], the frame it was saved at."""
    saved_s: float
    """When, seconds since the epoch."""
    num_bytes: int


def list_saves(folder: Path, identity: str | None = None) -> Iterator[SavedEntry]:
    """Yield the walks that were saved, the newest first, those that cannot be read left out.

    Args:
        identity: Of a session, in which they could be gone on with; None for all.
    """
    for file in _files(folder, f"*{SUFFIX}"):
        with suppress(OSError, SpecMismatch, ValueError):
            info, picture = read_saved_preview(file)
            if identity in (None, info.identity):
                found = file.stat()
                yield SavedEntry(file, info, picture, found.st_mtime, found.st_size)


def saved_walk(walk: Walk, snapshot: WalkSnapshot) -> SavedWalk:
    """Gather what is to be saved; it may be written on any thread."""
    session, rig = walk.session, snapshot.rig
    info = SavedInfo(
        app_version=app_version(),
        world=session.world.name,
        world_sha256=session.world.sha256,
        engine=session.engine,
        backend=session.backend,
        identity=snapshot.state.identity,
        key_map=str(KEY_MAP_VERSION),
        seed=snapshot.state.seed,
        chunk_index=snapshot.state.chunk_index,
        frame_index=snapshot.frame.index,
        fps=session.fps,
        flying=rig is not None and rig.flying,
        held=[] if rig is None else sorted(rig.camera.held),
    )
    return SavedWalk(
        info,
        snapshot.state,
        snapshot.frame.pixels,
        snapshot.frame.c2w,
        snapshot.latent,
        np.empty(0) if rig is None else pack_rig(rig),
        walk.recorder.walked(snapshot.number),
    )


def load_walk(path: Path, spec: SessionSpec) -> tuple[WalkSnapshot, tuple[RecordedChunk, ...]]:
    """Read a saved walk of this world and engine: its snapshot, and the walk from its first step to there.

    Raises:
        ValueError, SpecMismatch: It is of another world, engine or key map, or damaged, in one sentence.
    """
    saved = read_saved_walk(path, spec, str(KEY_MAP_VERSION))
    if saved.rig.size not in (0, RIG_NUMBERS):
        raise SpecMismatch(f"the saved walk {path} moves another camera than this; save it again")
    rig, angles_rad = RigState.standing_at(saved.c2w), np.zeros(3)
    if saved.rig.size:
        rig, angles_rad = unpack_rig(saved.rig, saved.info), saved.rig[ANGLES]
    frame = WalkFrame(
        saved.info.frame_index,
        saved.frame,
        saved.c2w,
        saved.info.chunk_index - 1,
        angles_rad=angles_rad,
    )
    return WalkSnapshot(len(saved.chunks), frame, saved.snapshot, saved.latent, rig), saved.chunks


def pack_rig(rig: RigState) -> NDArray[np.float64]:
    """Return the camera's inertia as numbers, [RIG_NUMBERS]."""
    camera = rig.camera
    angles = (camera.yaw_rad, camera.pitch_rad, camera.roll_rad)
    parts = (camera.start_rotation.ravel(), camera.position, angles, camera.velocity)
    return np.concatenate([*parts, rig.left_rad])


def unpack_rig(numbers: NDArray[np.float64], info: SavedInfo) -> RigState:
    """Return what `pack_rig` was given."""
    rotation, position, angles, velocity, left_rad = np.split(
        numbers, np.cumsum((9, 3, 3, len(Axes._fields)))
    )
    yaw, pitch, roll = (float(angle) for angle in angles)
    camera = IntegratorState(
        rotation.reshape(3, 3), position, yaw, pitch, roll, Axes(*map(float, velocity)), frozenset(info.held)
    )
    return RigState(camera, (float(left_rad[0]), float(left_rad[1])), info.flying)
