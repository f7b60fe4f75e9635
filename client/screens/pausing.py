"""What keys do while the walk stands still: some work as ever, the others say what comes first."""

from __future__ import annotations

from client.input.actions import ACTIONS
from client.input.answering import Answering
from client.input.controls import MOVING
from client.playback.walk import Walk
from client.screens.photo_mode import PhotoMode
from client.screens.remembering import Remembering
from client.ui.app_context import AppContext

IN_PAUSE = frozenset({"quick_save", "quick_load", "clip", "photo", "record", "help"})
"""Actions that work behind the card of the pause: they keep or fetch something, and nothing moves."""
NEED_A_WALK = frozenset({"rewind", "other_branch", "new_world", "photo_mode"})
"""Actions that a walk held for photos, or wound back, cannot answer."""
_LABELS = {action.name: action.label for action in ACTIONS}


class Gate:
    """Lets an action through to whoever answers it, where the walk can answer now."""

    def __init__(
        self,
        app: AppContext,
        walk: Walk,
        answering: Answering,
        remembering: Remembering,
        photo_mode: PhotoMode,
    ) -> None:
        self._app = app
        self._walk = walk
        self._answering = answering
        self._remembering = remembering
        self._photo_mode = photo_mode

    def begin(self, name: str, now_s: float, key: int | None = None) -> None:
        """Begin an action, by a key if it has one; on the way to another world nothing can be done."""
        if name in NEED_A_WALK and (first := self._what_first(name)) is not None:
            self._refuse(name, first, now_s)
        elif not self._walk.entering:
            self._answering.begin(name, now_s, key)

    def begin_in_pause(self, name: str, now_s: float) -> None:
        """Begin an action while the pause is open; a key that moves the camera is only out of place there."""
        if name in IN_PAUSE:
            self.begin(name, now_s)
        elif name not in MOVING:
            self._refuse(name, f"go on with {self._app.key_of('pause')}", now_s)

    def _what_first(self, name: str) -> str | None:
        """Say what has to end before the walk can go another way, None where nothing has."""
        if self._remembering.frame is not None and name != "rewind":
            return f"let {self._app.key_of('rewind')} go"
        if self._photo_mode.is_on and name != "photo_mode":
            return f"go on with {self._app.key_of('photo_mode')}"
        return None

    def _refuse(self, name: str, first: str, now_s: float) -> None:
        label = _LABELS[name]
        self._app.toasts.add(f"{label[:1].upper()}{label[1:]}: {first} first.", now_s)
