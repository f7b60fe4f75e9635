"""Answers the keys that change a setting at once: what is shown, instant look, and how the walker goes."""

from __future__ import annotations

from client.playback.walk import Walk
from client.screens.menus import adjust, changed_pace
from client.ui.app_context import AppContext


class Switching:
    """Settings that have a key of their own, for the walk in the window."""

    def __init__(self, app: AppContext, walk: Walk) -> None:
        self._app = app
        self._walk = walk

    def do_figures(self, now_s: float) -> None:
        self._switch("hud")

    def do_map(self, now_s: float) -> None:
        self._switch("show_map")

    def do_held_keys(self, now_s: float) -> None:
        self._switch("show_held")

    def do_instant_look(self, now_s: float) -> None:
        on = self._switch("reproject")
        self._app.toasts.add(
            "Instant look on." if on else "Instant look off: the model alone answers.", now_s
        )

    def do_fly(self, now_s: float) -> None:
        rig = self._walk.planner.rig
        if rig is not None:
            rig.flying = not rig.flying
            rise, sink = self._app.key_of("rise"), self._app.key_of("sink")
            flying = f"Flying: {rise} rises, {sink} sinks."
            self._app.toasts.add(flying if rig.flying else "Walking.", now_s)

    def do_faster(self, now_s: float) -> None:
        self._change_pace(1, now_s)

    def do_slower(self, now_s: float) -> None:
        self._change_pace(-1, now_s)

    def _switch(self, name: str) -> bool:
        """Turn a setting on or off; return what it is now."""
        settings = adjust(self._app.settings, name, 1)
        self._app.apply_settings(settings)
        return getattr(settings, name)

    def _change_pace(self, direction: int, now_s: float) -> None:
        rig, settings = self._walk.planner.rig, self._app.settings
        if rig is not None:
            rig.pace = changed_pace(settings.pace, direction)
            self._app.apply_settings(settings.model_copy(update={"pace": rig.pace}))
            self._app.toasts.replace("Walking at ", f"{rig.speed_m_s:.1f} metres a second.", now_s)
