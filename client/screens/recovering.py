"""Answers a world that fell apart: the walk goes on from the last chunk that was whole, or further back if that is not enough."""

from __future__ import annotations

from client.playback.walk import Walk
from client.screens.keeping import Keeping
from client.ui.app_context import AppContext
from engine.errors import EngineError

STEADY_CHUNKS = 8
"""A walk that comes so far after it was brought back has recovered."""
FURTHER = 4
"""How many times further back each time that it has not."""


class Recovering:
    """Brings one walk back."""

    def __init__(self, app: AppContext, walk: Walk, keeping: Keeping) -> None:
        self._app = app
        self._walk = walk
        self._keeping = keeping
        self._back = 1
        self._began_at: int | None = None
        """Chunks walked where the walk was last brought back to; None where it never was."""

    def recover(self, now_s: float) -> bool:
        """Go back behind what fell apart, and say so; return False where going back does not help.

        What was left can have gone wrong some chunks before it showed, and the same input at the same place would
        only make it again: each time in a row it is gone back further, at last to the beginning.
        """
        walk = self._walk
        if walk.planner.rig is None:
            return False
        reached, held = walk.recorder.num_chunks, walk.paused
        in_a_row = self._began_at is not None and reached - self._began_at < STEADY_CHUNKS
        if in_a_row and self._began_at == 0:
            return False
        self._back = self._back * FURTHER if in_a_row else 1
        fell_s = reached * walk.session.frames_per_chunk / walk.session.fps
        moment = walk.past.at(reached + 1 - self._back)
        self._began_at = 0 if moment is None else moment.number
        if moment is None:
            self._keeping.restart(now_s)
        else:
            try:
                walk.branch_off(moment)
            except (ValueError, EngineError) as error:
                self._keeping.warn(error, now_s)
        if held:
            walk.pause()
        on_s = self._began_at * walk.session.frames_per_chunk / walk.session.fps
        goes_on = f"goes on from {on_s:.1f} s" if moment is not None else "begins again"
        self._app.toasts.add(
            f"The world fell apart at {fell_s:.1f} s; the walk {goes_on}.", now_s, warning=True
        )
        return True
