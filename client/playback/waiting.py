"""Says so when the picture waits for the model, so that a slow machine does not look like a hang."""

from __future__ import annotations

from client.playback.walk import Walk
from client.ui.app_context import AppContext

LONG_S = 2.0
"""A picture that stands for so long while more is under way looks like a hang."""
AGAIN_S = 30.0
"""Not to be said again before."""
_BEGINNING = "The picture waits for the model"


class Waiting:
    """Watches the pictures of one walk."""

    def __init__(self, app: AppContext, walk: Walk) -> None:
        self._app = app
        self._walk = walk
        self._index = -1
        self._since_s = 0.0
        self._next_s = 0.0

    def update(self, now_s: float) -> None:
        """Look at the frame that is on."""
        walk = self._walk
        waits = walk.showing.pacer.in_flight and not (walk.paused or walk.resting or walk.entering)
        if not waits or walk.frame.index != self._index:
            self._index, self._since_s = walk.frame.index, now_s
        elif now_s - self._since_s >= LONG_S and now_s >= self._next_s:
            self._next_s = now_s + AGAIN_S
            self._app.toasts.replace(_BEGINNING, self._why(), now_s)

    def _why(self) -> str:
        usual_ms, _ = self._walk.instruments.chunk_ms()
        chunk_s = self._walk.showing.pacer.config.chunk_s
        if usual_ms <= 1e3 * chunk_s:
            return "; this machine has little time for it just now."
        return f": {chunk_s:.2g} s of the walk take it {usual_ms / 1e3:.1f} s on this machine."
