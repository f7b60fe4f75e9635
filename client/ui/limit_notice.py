"""What is shown at the limits of a walk: the picture darkens softly at its border, and one message says why."""

from __future__ import annotations

import numpy as np
import pygame

from client.camera.limits import Limit, limit_of
from client.input.controls import Intent
from client.playback.walk import Walk
from client.ui.app_context import AppContext
from engine.session.holodeck_session import place_box

FADE_S = 0.3
"""Time in which the border darkens, and clears again."""
DARKEST = 0.55
"""Opacity of the corners."""
QUIET_S = 20.0
"""The same message is not shown again before."""
_SIDE = 64


class LimitNotice:
    """Watches the player against the limits of a walk."""

    def __init__(self, app: AppContext, walk: Walk) -> None:
        self._app = app
        self._walk = walk
        self._opacity = 0.0
        self._updated_s = 0.0
        self._said_s: dict[Limit, float] = {}
        self._world, self._box = walk.session.world, place_box(walk.session.world)
        self._vignette: pygame.Surface | None = None

    def update(self, intent: Intent, now_s: float) -> bool:
        """Take in what the player asks for; return whether the picture changed."""
        walk = self._walk
        if walk.session.world is not self._world:
            self._world, self._box = walk.session.world, place_box(walk.session.world)
        rig = walk.planner.rig
        halted = walk.paused or walk.entering
        limit = None if rig is None or halted else limit_of(rig, self._box, intent)
        if limit is not None and now_s - self._said_s.get(limit, -QUIET_S) >= QUIET_S:
            self._said_s[limit] = now_s
            self._app.say(limit.value)
        step, before = min(1.0, max(0.0, now_s - self._updated_s) / FADE_S), self._opacity
        self._updated_s = now_s
        self._opacity = min(1.0, before + step) if limit is not None else max(0.0, before - step)
        return self._opacity != before

    def draw(self, target: pygame.Surface, place: pygame.Rect) -> None:
        """Darken the border of the picture, which lies at a place of the target."""
        if self._opacity == 0.0:
            return
        if self._vignette is None or self._vignette.get_size() != place.size:
            self._vignette = pygame.transform.smoothscale(_small_vignette(), place.size)
        self._vignette.set_alpha(round(255 * self._opacity))
        target.blit(self._vignette, place)


def _small_vignette() -> pygame.Surface:
    """Return a black square, clear in the middle and darkest in its corners."""
    across = np.abs(np.linspace(-1.0, 1.0, _SIDE))
    out = np.clip(np.hypot(across[:, None], across[None]) - 0.6, 0.0, None) / (2.0**0.5 - 0.6)
    pixels = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    pixels[..., 3] = np.rint(255 * DARKEST * out)
    return pygame.image.frombuffer(pixels.tobytes(), (_SIDE, _SIDE), "RGBA")
