"""Where the cameras of the next chunk come from: the player's rig, or a track walked before.

A planner is called on the engine thread, at the last moment before the model starts. The client thread reads
what is documented as readable, and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.camera.rig import CameraRig, PlannedMotion, RigState
from client.input.controls import Intent
from engine.camera.tracks import Track, at_fps, hold, output_intrinsics, rebase
from engine.files.recording import INTENT_COLUMNS
from engine.files.world import World
from engine.session.holodeck_session import place_slide
from engine.session.protocol import Session
from engine.types import CameraTrack, Intrinsics


def no_intents() -> NDArray[np.float64]:
    """Return what a recording keeps of a chunk nobody asked for, [0, 11]."""
    return np.empty((0, len(INTENT_COLUMNS)))


@dataclass(frozen=True, eq=False)
class ChunkPlan:
    """What a planner wants back with the frames of a chunk; travels as its track's `plan`."""

    intents: NDArray[np.float64] = field(default_factory=no_intents)
    """[N, 11], what was asked for."""
    motion: PlannedMotion | None = None
    """How the player's camera turns and moves through it; None where there is no player."""
    rig: RigState | None = None
    """How the player's camera moves behind it."""


class Planner(ABC):
    """Makes the cameras of one chunk after another."""

    num_chunks: int | None = None
    """Chunks until the walk ends; None if it goes on for as long as the player wants. Readable."""
    rig: CameraRig | None = None
    """The player's camera, where there is one; its `flying` may be read and set by the client thread."""
    num_steps: int | None = None
    """Denoising steps of the player's next chunks, None for all; set by the client thread."""
    refine: bool = False
    """Whether the player's next chunks are refined; set by the client thread."""

    def __init__(self) -> None:
        self._next = 0

    def plan(self, intent: Intent, chunk_index: int) -> CameraTrack:
        """Return the next chunk's cameras with a `ChunkPlan`; the index is the session's and not needed."""
        self._next += 1
        return self._plan(intent, self._next - 1)

    def reset(self) -> None:
        """Go back to the first chunk."""
        self._next = 0

    def resume_at(self, number: int, rig: RigState | None) -> None:
        """Make the chunk of a number, counted from 0, the next, from where the camera was then."""
        self._next = number

    @abstractmethod
    def _plan(self, intent: Intent, number: int) -> CameraTrack: ...


class RigPlanner(Planner):
    """Cameras from the player's intents."""

    def __init__(self, rig: CameraRig, num_frames: int) -> None:
        super().__init__()
        self.rig = self._rig = rig
        self._num_frames = num_frames

    def reset(self) -> None:
        super().reset()
        self._rig.reset()

    def enter(self, rig: CameraRig) -> None:
        """Begin another walk with another camera."""
        super().reset()
        self.rig = self._rig = rig

    def resume_at(self, number: int, rig: RigState | None) -> None:
        super().resume_at(number, rig)
        if rig is not None:
            self._rig.restore(rig)

    def _plan(self, intent: Intent, number: int) -> CameraTrack:
        track = self._rig.plan(intent, self._num_frames)
        plan = ChunkPlan(intent_row(intent, number), self._rig.motion, self._rig.snapshot())
        return replace(track, num_steps=self.num_steps, refine=self.refine, plan=plan)


class TrackPlanner(Planner):
    """Cameras walked before; the last chunk is repeated for whoever asks for more."""

    def __init__(self, tracks: Sequence[CameraTrack]) -> None:
        super().__init__()
        self.num_chunks = len(tracks)
        self._tracks = tracks

    def _plan(self, intent: Intent, number: int) -> CameraTrack:
        return replace(self._tracks[min(number, len(self._tracks) - 1)], plan=ChunkPlan())


def intent_row(intent: Intent, number: int) -> NDArray[np.float64]:
    """Return an intent as a recording keeps it, [1, 11]; its time is the number of its chunk."""
    axes = (intent.forward, intent.strafe, intent.rise, intent.yaw, intent.pitch, intent.roll)
    look = (intent.look_dx_rad, intent.look_dy_rad)
    return np.array([[float(number), *axes, *look, float(intent.run), float(intent.level)]])


def rig_planner(session: Session) -> RigPlanner:
    """Return the planner of a free walk."""
    return RigPlanner(world_rig(session.world, session.fps), session.frames_per_chunk)


def world_rig(world: World, fps: float) -> CameraRig:
    """Return a walker's camera at a world's first frame."""
    fx, fy, cx, cy = (float(value) for value in world.intrinsics)
    return CameraRig(
        world.c2w,
        Intrinsics(fx, fy, cx, cy, *world.frame_size),
        fps,
        world.info.speed_scale,
        place_slide(world),
        eye_y_m=float(world.origin_c2w[1, 3]),
    )


def track_planner(session: Session, track: Track) -> TrackPlanner:
    """Return the planner of a walk along a camera track, begun where the world begins."""
    track = at_fps(track, session.fps)
    size = session.frames_per_chunk
    num_chunks = max(1, -(-(track.num_frames - 1) // size))
    track = hold(track, 1 + num_chunks * size)
    c2w = rebase(track.c2w, session.world.c2w)[1:]
    width, height = session.frame_size
    given = output_intrinsics(track, width, height)
    own = np.repeat(session.world.intrinsics[None], track.num_frames, axis=0)
    intrinsics = np.asarray(own if given is None else given, np.float32)[1:]
    return TrackPlanner(
        [CameraTrack(c2w[i : i + size], intrinsics[i : i + size]) for i in range(0, num_chunks * size, size)]
    )
