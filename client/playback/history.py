"""The history of a walk: its newest frames, snapshots to rewind to within a budget of memory, and branches left.

Knows no session, no clock and no window.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.camera.rig import RigState
from engine.files.recording import RecordedChunk
from engine.types import Snapshot

MIN_SNAPSHOTS = 4
"""Fewer than this in the budget are not worth a rewind."""
MAX_BRANCHES = 8
"""Branches that are kept; the one left longest ago goes first."""
RECENT_S = 30.0
RECENT_BYTES = 256 << 20
"""Frames of the pocket take 22 MB for half a minute; of larger worlds there are fewer seconds."""
MAX_CHUNK_ENDS = 4
"""More chunks than can be made and not yet shown."""
START_PER_S = 4.0
"""Snapshots a second at the start of a rewind: the chunks of the pocket world as they were walked."""
GAIN_PER_S2 = 6.0
"""How much faster with every second that the key is held."""


@dataclass(frozen=True, eq=False)
class WalkFrame:
    """One frame of the walk."""

    index: int
    """Counted from the world's first frame."""
    pixels: NDArray[np.uint8]
    """[H, W, 3], RGB."""
    c2w: NDArray[np.float64]
    """[4, 4], the pose it was made for, in the world's own frame."""
    chunk_index: int
    angles_rad: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """Yaw, pitch and roll of the player's camera from the walk's first pose, [3]."""
    inverse_depth: NDArray[np.float32] | None = field(default=None, repr=False)
    """[H, W], 1/m along the optical axis, where the session gives it."""


@dataclass(frozen=True, eq=False)
class WalkSnapshot:
    """The end of a chunk, from which the walk can go on bit for bit."""

    number: int
    """Chunks walked by then."""
    frame: WalkFrame
    """The chunk's last."""
    state: Snapshot
    """Of the session."""
    latent: NDArray[np.float32] | None
    """[C, h, w], the latent frame behind `frame`; None where the engine has none."""
    rig: RigState | None
    """How the camera moved; None where nobody steers it."""

    @property
    def num_bytes(self) -> int:
        latent_bytes = 0 if self.latent is None else self.latent.nbytes
        return self.state.num_bytes + self.frame.pixels.nbytes + latent_bytes


@dataclass(frozen=True, eq=False)
class Branch:
    """A walk that was left at its last snapshot and can be gone on with."""

    name: int
    """Counted from 1 in the order they began."""
    tip: WalkSnapshot
    chunks: tuple[RecordedChunk, ...]
    """From its first step to the tip."""


ChunkEnd = tuple[WalkFrame, NDArray[np.float32]]
"""The last frame of a chunk, and the latent frame behind it, [C, h, w]."""


class RecentFrames:
    """The frames that were on lately, in the order they were, and the latents behind the last chunks that were made.

    Frames have a limit of time and of memory. What was on before a load or a rewind stays: it was seen.
    """

    def __init__(self, fps: float, frame_bytes: int, budget_bytes: int = RECENT_BYTES) -> None:
        count = min(round(RECENT_S * fps), budget_bytes // max(1, frame_bytes))
        self._frames: deque[WalkFrame] = deque(maxlen=max(1, count))
        self._num_in_run = 0
        self._chunk_ends: deque[ChunkEnd] = deque(maxlen=MAX_CHUNK_ENDS)

    def see(self, frames: Sequence[WalkFrame], jumped: bool = False) -> None:
        """Note frames that were on; `jumped` says that the first does not follow the one before."""
        # Depth is for the frames that are yet to be shown: half a minute of it would take more than the pictures.
        self._frames.extend(replace(frame, inverse_depth=None) for frame in frames)
        self._num_in_run = len(frames) + (0 if jumped else self._num_in_run)

    def add_chunk_end(self, frame: WalkFrame, latent: NDArray[np.float32]) -> None:
        """Note the last frame of the next chunk, and the latent frame behind it."""
        self._chunk_ends.append((frame, latent))

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self._num_in_run = 0
        self._chunk_ends.clear()

    @property
    def seen(self) -> tuple[WalkFrame, ...]:
        """The frames that were on, oldest first."""
        return tuple(self._frames)

    @property
    def run(self) -> tuple[WalkFrame, ...]:
        """Those since the last jump: the walk as a recording of it has it."""
        return tuple(self._frames)[max(0, len(self._frames) - self._num_in_run) :]

    def chunk_end(self, index: int) -> ChunkEnd | None:
        """Return the end of the chunk that a frame is in, or of the last one; None where the engine has no latents."""
        later = [end for end in self._chunk_ends if end[0].index >= index]
        return later[0] if later else self._chunk_ends[-1] if self._chunk_ends else None

    def resume_at(self, frame: WalkFrame, latent: NDArray[np.float32] | None = None) -> None:
        """Forget the chunks after a frame, from which the walk goes on."""
        self._chunk_ends.clear()
        if latent is not None:
            self._chunk_ends.append((frame, latent))


class History:
    """The snapshots of the walk, oldest first: all of the last seconds, ever fewer of what is longer ago."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything: a walk begins."""
        self.name = 1
        """Of the branch being walked, counted from 1 in the order they began."""
        self.branches: list[Branch] = []
        """Those left, the last one at the end."""
        self._num_begun = 1
        self._began_at = 0
        self._snapshots: list[WalkSnapshot] = []
        self._num_bytes = 0
        self._here = 0
        """Chunks walked where the last snapshot was taken; in a replay that was wound back there are later ones."""

    def has_room_for(self, snapshot_bytes: int) -> bool:
        """Whether enough snapshots of a size fit for a rewind."""
        return self.budget_bytes >= MIN_SNAPSHOTS * snapshot_bytes

    @property
    def snapshots(self) -> Sequence[WalkSnapshot]:
        return self._snapshots

    @property
    def newest(self) -> WalkSnapshot | None:
        return self._snapshots[-1] if self._snapshots else None

    @property
    def num_bytes(self) -> int:
        """Held by snapshots and branches together."""
        return self._num_bytes + sum(branch.tip.num_bytes for branch in self.branches)

    def add(self, snapshot: WalkSnapshot) -> None:
        """Note the snapshot behind the chunk made last, in the place of one that was there, and make room for it."""
        place = bisect_left(self._snapshots, snapshot.number, key=lambda held: held.number)
        if place < len(self._snapshots) and self._snapshots[place].number == snapshot.number:
            self._drop(place)
        self._snapshots.insert(place, snapshot)
        self._num_bytes += snapshot.num_bytes
        self._here = snapshot.number
        self._thin_out()

    def at(self, number: int) -> WalkSnapshot | None:
        """Return the newest snapshot that is not after a number of chunks."""
        return next((snapshot for snapshot in reversed(self._snapshots) if snapshot.number <= number), None)

    def branch_off(
        self, snapshot: WalkSnapshot, walked: Sequence[RecordedChunk], num_shared: int
    ) -> Branch | None:
        """Begin another branch at a snapshot.

        Args:
            snapshot: Of this walk or, where it was loaded, of another.
            walked: The chunks of the branch that is left, from its first step on.
            num_shared: How many of them lead to the snapshot too.

        Returns:
            The branch that is left; None if it holds nothing but what it began with.
        """
        left = self._leave(walked)
        # A loaded snapshot is another object than the one of its number that may be here: there must not be both.
        self._forget_after(min(num_shared, snapshot.number - 1))
        self.add(snapshot)
        self._num_begun += 1
        self.name, self._began_at = self._num_begun, snapshot.number
        return left

    def return_to_last(self, walked: Sequence[RecordedChunk], num_shared: Callable[[Branch], int]) -> Branch:
        """Change places with the branch left last, which must exist.

        Args:
            walked: The chunks of the branch that is left, from its first step on.
            num_shared: Returns how many chunks both have in common.
        """
        branch = self.branches.pop()
        shared = num_shared(branch)
        self._leave(walked)
        self._forget_after(shared)
        if self.newest is None or self.newest.number < branch.tip.number:
            self.add(branch.tip)
        self.name, self._began_at = branch.name, shared
        return branch

    def _leave(self, walked: Sequence[RecordedChunk]) -> Branch | None:
        """Keep the branch being walked, if anything was walked in it."""
        tip = self.newest
        if tip is None or tip.number <= self._began_at:
            return None
        branch = Branch(self.name, tip, tuple(walked[: tip.number]))
        self.branches.append(branch)
        del self.branches[:-MAX_BRANCHES]
        return branch

    def _forget_after(self, number: int) -> None:
        while self._snapshots and self._snapshots[-1].number > number:
            self._num_bytes -= self._snapshots.pop().num_bytes
        self._thin_out()

    def _thin_out(self) -> None:
        """Drop what is missed least until the budget is kept; the oldest and the newest snapshot stay longest."""
        while self.num_bytes > self.budget_bytes:
            if len(self._snapshots) > 2:
                self._drop(self._least_missed())
            elif self.branches:
                self.branches.pop(0)
            elif len(self._snapshots) > 1:
                self._drop(0)
            else:
                return

    def _least_missed(self) -> int:
        """Return the snapshot whose neighbours lie closest together for its distance from here."""

        def gap_for_distance(i: int) -> float:
            gap = self._snapshots[i + 1].number - self._snapshots[i - 1].number
            return gap / max(1, abs(self._here - self._snapshots[i].number))

        return min(range(1, len(self._snapshots) - 1), key=gap_for_distance)

    def _drop(self, i: int) -> None:
        self._num_bytes -= self._snapshots.pop(i).num_bytes


class Rewind:
    """Which snapshot is shown while the rewind key is held: one back at once, then ever faster."""

    def __init__(self, snapshots: Sequence[WalkSnapshot], now_s: float) -> None:
        """Begin behind the last of the snapshots, of which there must be one."""
        self.snapshots = tuple(snapshots)
        self._began_s = now_s
        self.index = len(self.snapshots) - 1

    @property
    def snapshot(self) -> WalkSnapshot:
        """The one that is shown."""
        return self.snapshots[self.index]

    def update(self, now_s: float) -> bool:
        """Wind on; say whether another snapshot is shown now."""
        held_s = max(0.0, now_s - self._began_s)
        back = int(START_PER_S * held_s + 0.5 * GAIN_PER_S2 * held_s**2)
        before = self.index
        self.index = max(0, min(self.index, len(self.snapshots) - 1 - back))
        return self.index != before
