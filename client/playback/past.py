"""What a walk has been through: moments it can go back to, thinned out to a budget of memory, and branches left.

Knows no session, no clock and no window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from client.camera.rig import RigState
from engine.files.recording import RecordedChunk
from engine.types import Snapshot

MIN_MOMENTS = 4
"""Fewer than this in the budget are no film to go back through."""
MAX_BRANCHES = 8
"""Branches that are kept; the one left longest ago goes first."""


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


@dataclass(frozen=True, eq=False)
class Moment:
    """The end of a chunk, from which the walk can go on bit for bit."""

    number: int
    """Chunks walked by then."""
    frame: WalkFrame
    """The chunk's last."""
    snapshot: Snapshot
    latent: NDArray[np.float32] | None
    """[C, h, w], the latent frame behind `frame`; None where the engine has none."""
    rig: RigState | None
    """How the camera moved; None where nobody steers it."""

    @property
    def num_bytes(self) -> int:
        latent_bytes = 0 if self.latent is None else self.latent.nbytes
        return self.snapshot.num_bytes + self.frame.pixels.nbytes + latent_bytes


@dataclass(frozen=True, eq=False)
class Branch:
    """A walk that was left at its last moment and can be gone on with."""

    name: int
    """Counted from 1 in the order they began."""
    tip: Moment
    chunks: tuple[RecordedChunk, ...]
    """From its first step to the tip."""


class Past:
    """The moments of the walk, oldest first: all of the last seconds, ever fewer of what is longer ago."""

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
        self._moments: list[Moment] = []
        self._num_bytes = 0

    def has_room_for(self, moment_bytes: int) -> bool:
        """Whether enough moments of a size fit to go back through them."""
        return self.budget_bytes >= MIN_MOMENTS * moment_bytes

    @property
    def moments(self) -> Sequence[Moment]:
        return self._moments

    @property
    def newest(self) -> Moment | None:
        return self._moments[-1] if self._moments else None

    @property
    def num_bytes(self) -> int:
        """Held by moments and branches together."""
        return self._num_bytes + sum(branch.tip.num_bytes for branch in self.branches)

    def add(self, moment: Moment) -> None:
        """Note the newest moment and make room for it."""
        self._moments.append(moment)
        self._num_bytes += moment.num_bytes
        self._thin_out()

    def at(self, number: int) -> Moment | None:
        """Return the newest moment that is not after a number of chunks."""
        return next((moment for moment in reversed(self._moments) if moment.number <= number), None)

    def branch_off(self, moment: Moment, walked: Sequence[RecordedChunk], num_shared: int) -> Branch | None:
        """Begin another branch at a moment.

        Args:
            moment: Of this walk or, where it was loaded, of another.
            walked: The chunks of the branch that is left, from its first step on.
            num_shared: How many of them lead to the moment too.

        Returns:
            The branch that is left; None if it holds nothing but what it began with.
        """
        left = self._leave(walked)
        # A loaded moment is another object than the one of its number that may be here: there must not be both.
        self._forget_after(min(num_shared, moment.number - 1))
        self.add(moment)
        self._num_begun += 1
        self.name, self._began_at = self._num_begun, moment.number
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
        while self._moments and self._moments[-1].number > number:
            self._num_bytes -= self._moments.pop().num_bytes
        self._thin_out()

    def _thin_out(self) -> None:
        """Drop what is missed least until the budget is kept; the oldest and the newest moment stay longest."""
        while self.num_bytes > self.budget_bytes:
            if len(self._moments) > 2:
                self._drop(self._least_missed())
            elif self.branches:
                self.branches.pop(0)
            elif len(self._moments) > 1:
                self._drop(0)
            else:
                return

    def _least_missed(self) -> int:
        """Return the moment whose neighbours lie closest together for its age."""
        newest = self._moments[-1].number

        def gap_for_age(i: int) -> float:
            gap = self._moments[i + 1].number - self._moments[i - 1].number
            return gap / (newest - self._moments[i].number)

        return min(range(1, len(self._moments) - 1), key=gap_for_age)

    def _drop(self, i: int) -> None:
        self._num_bytes -= self._moments.pop(i).num_bytes
