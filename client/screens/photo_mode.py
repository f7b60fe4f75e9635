"""Photo mode: the world holds still and nothing lies over it, for as long as it takes to look."""

from __future__ import annotations

from client.playback.walk import Walk
from client.ui.app_context import AppContext


class PhotoMode:
    """Answers the key that goes into photo mode and out of it."""

    def __init__(self, app: AppContext, walk: Walk) -> None:
        self._app = app
        self._walk = walk
        self._on = False

    @property
    def is_on(self) -> bool:
        """Whether the picture is to be seen alone."""
        return self._on and self._walk.paused

    def do_photo_mode(self, now_s: float) -> None:
        if self.leave() or self._walk.paused:
            return
        self._walk.pause()
        self._on = True
        keys = self._app.key_of("photo"), self._app.key_of("photo_mode")
        self._app.toasts.clear()
        self._app.toasts.add(f"{keys[0]} takes the photo, {keys[1]} goes on.", now_s)

    def leave(self) -> bool:
        """Let the world go on; say whether it was held."""
        was_on, self._on = self.is_on, False
        if was_on:
            self._walk.resume()
        return was_on
