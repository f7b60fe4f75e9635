"""Whatever looks on while a walk is made: its past, its newest frames, its drift, and whether it stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.camera.planner import PlannedChunk
from client.playback.clip import RecentFrames
from client.playback.drift import DriftMeter
from client.playback.past import Moment, Past, WalkFrame
from client.playback.resting import Rest
from client.ui.metrics import Line, Section
from engine.session.protocol import Session
from engine.types import FrameChunk

MAX_ENDINGS = 4
"""More chunks than can be made and not yet shown."""
Ending = tuple[WalkFrame, NDArray[np.float32]]
"""The last frame of a chunk, and the latent frame behind it, [C, h, w]."""


class Chronicle:
    """Told of every chunk of a walk, and of where it goes on."""

    def __init__(self, session: Session, past_bytes: int) -> None:
        """Look on at a session's walk, with some memory for the moments it can go back to."""
        self._session = session
        self.past = Past(past_bytes)
        self.recent = RecentFrames(session.fps, session.world.first_frame.nbytes)
        self._drift = DriftMeter()
        self._rest = Rest(session.world.info.animated)
        self._planned_flying: bool | None = None
        self._endings: deque[Ending] = deque(maxlen=MAX_ENDINGS)

    def begin(self) -> None:
        """Begin another walk; the session is in its world."""
        self.past.clear()
        self._drift.begin()
        self._rest = Rest(self._session.world.info.animated)

    def close(self) -> None:
        """Let go of everything: whoever looked on belongs to circles of objects that may outlive the walk by minutes."""
        self.past.clear()
        self.recent.clear()
        self._endings.clear()

    def go_on_from(self, frame: WalkFrame, latent: NDArray[np.float32] | None = None) -> None:
        """Go on behind a frame, with the latent frame behind it where there is one."""
        self._endings.clear()
        if latent is not None:
            self._endings.append((frame, latent))
        self.recent.go_on_from(frame)
        self._drift.forget_recent()
        self._rest.begin()
        self._planned_flying = None

    def note(
        self, number: int, chunk: FrameChunk, planned: PlannedChunk, frames: Sequence[WalkFrame]
    ) -> None:
        """Note the chunk of a number, counted from 1, and its frames."""
        for frame in frames:
            self.recent.add(frame)
        self._drift.add(chunk.frames[-1])
        self._rest.note(planned.track.c2w, len(frames) / self._session.fps, chunk.times.latched_s)
        self._planned_flying = None if planned.rig is None else planned.rig.flying
        latent = None if chunk.latents is None else chunk.latents[:, -1].copy()
        if latent is not None:
            self._endings.append((frames[-1], latent))
        if chunk.snapshot is not None:
            self.past.add(Moment(number, frames[-1], chunk.snapshot, latent, planned.rig))

    def ending(self, index: int) -> Ending | None:
        """Return the end of the chunk that a frame is in, or of the last one; None where the engine has no latents."""
        later = [ending for ending in self._endings if ending[0].index >= index]
        return later[0] if later else self._endings[-1] if self._endings else None

    def note_asked(self, posted_s: float) -> None:
        """Note that the player asked for something."""
        self._rest.ask(posted_s)

    def may_rest(self, flying: bool) -> bool:
        """Whether no chunk is needed: nothing moves, all asked for is answered, and the last plan still holds."""
        return flying == self._planned_flying and self._rest.may_begin

    def lines(self, resting: bool) -> list[Line]:
        """Return what the figures say."""
        drift = self._drift.read()
        said = "not known yet"
        if drift is not None:
            said = f"{drift.value:.2f}, {drift.most} {drift.factor:.2f} times the first"
        lines = [(Section.PICTURE, "drift", said)]
        if resting:
            lines.append((Section.PICTURE, "rests", "nothing moves, none is made"))
        return lines
