"""What lies over a walk under way: figures, map, held keys, the marks of a recording and of a replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pygame

from client.input.controls import STANDING, Intent
from client.playback.readings import read_figures
from client.playback.waiting import Waiting
from client.playback.walk import Walk
from client.playback.walk_map import WalkMap
from client.ui import hud
from client.ui.app_context import AppContext
from client.ui.figures import Figures, Line
from client.ui.held_panel import draw_held
from client.ui.map_panel import draw_map

FIGURES_EVERY_S = 0.25


class Overlays:
    """Everything that can be switched on over the picture, and what it needs to remember."""

    def __init__(self, app: AppContext, walk: Walk, more: Callable[[], Sequence[Line]]) -> None:
        """Lie over a walk.

        Args:
            app: What all screens share.
            walk: The walk under way.
            more: Returns lines of figures that are measured outside the walk.
        """
        self._more = more
        self._app = app
        self._walk = walk
        self._map = WalkMap()
        self._waiting = Waiting(app, walk)
        self._intent = STANDING
        self._held: tuple[int, ...] = ()
        self._figures: Figures | None = None
        self._figures_s = 0.0
        self.taken: list[pygame.Rect] = []
        """Where they lie, as drawn last."""

    def update(self, intent: Intent, now_s: float) -> bool:
        """Take in what happened; say whether something that is shown changed by it."""
        self._waiting.update(now_s)
        settings, held = self._app.settings, self._app.keyboard.held
        changed = settings.show_held and (intent != self._intent or held != self._held)
        self._intent, self._held = intent, held
        self._map.add(self._walk.frame.index, self._walk.frame.c2w)
        if not settings.hud:
            self._figures = None
        elif self._figures is None or now_s - self._figures_s >= FIGURES_EVERY_S:
            figures = read_figures(self._walk, self._app.client_ms, settings.reproject)
            self._figures = replace(figures, more=(*figures.more, *self._more()))
            self._figures_s = now_s
            changed = True
        return changed

    def draw(self, target: pygame.Surface, covered: bool) -> None:
        """Draw what is switched on; with a menu or the help over it only what must be seen."""
        look, settings, walk = self._app.look, self._app.settings, self._walk
        progress = walk.progress
        bottom = target.get_height() - look.px(2 if progress is None else 9)
        self.taken = []
        if settings.show_map and not covered:
            self.taken += draw_map(target, look, self._map, bottom)
        if settings.show_held and not covered:
            held = draw_held(target, look, self._intent, self._held, self._app.bindings, bottom)
            self.taken += held
            bottom = min((place.top - look.px(1) for place in held), default=bottom)
        if settings.hud and self._figures is not None and not covered:
            self.taken += hud.draw_figures(target, look, self._figures, bottom)
        if walk.recorder.path is not None:
            self.taken += hud.draw_recording(target, look, walk.walked_s)
        if progress is not None:
            self.taken += hud.draw_progress(target, look, _replay_label(progress, walk), progress)


def _replay_label(progress: float, walk: Walk) -> str:
    if progress >= 1.0:
        return "End of the recorded walk. Backspace starts it again, Esc leaves."
    return f"Replay, {walk.frame.index / walk.session.fps:.1f} s"
