"""What the player asked for since the last chunk was latched.

Axes are what is held now, the mouse adds up, and a touch that is over by then (a tapped key, a flicked stick) counts
for the next chunk and for no other. Pure; knows no clock: a touch is whatever two latches have between them.
"""

from __future__ import annotations

from dataclasses import replace

from client.input.controls import IDLE, Axis, Intent

_TOUCHED = (*(axis.value for axis in Axis), "run", "level")
"""Fields of an intent that are pressed and let go."""


class IntentMailbox:
    """The player's intents on their way to the rig."""

    def __init__(self) -> None:
        self._now = self._at_latch = IDLE
        self._look_rad = (0.0, 0.0)
        self._touched: dict[str, float] = {}
        """How far each field went in the newest touch since the last chunk was latched."""

    def post(self, intent: Intent) -> None:
        for name in _TOUCHED:
            self._note(name, getattr(self._now, name), getattr(intent, name))
        right, up = self._look_rad
        self._look_rad = right + intent.look_dx_rad, up + intent.look_dy_rad
        self._now = intent.held

    def take(self) -> Intent:
        over = {
            name: value
            for name, value in self._touched.items()
            if not _same_way(value, getattr(self._now, name))
        }
        right, up = self._look_rad
        self.forget()
        self._at_latch = self._now
        return replace(self._now, look_dx_rad=right, look_dy_rad=up, **over)

    def let_go(self) -> None:
        self._touched.clear()

    def forget(self) -> None:
        self._touched.clear()
        self._look_rad = (0.0, 0.0)

    def _note(self, name: str, before: float, now: float) -> None:
        """Note a touch that begins, or goes further; what was held all along and comes back is none."""
        if not now:
            return
        begins = not _same_way(before, now)
        comes_back = bool(before) and _same_way(getattr(self._at_latch, name), now)
        further = _same_way(self._touched.get(name, 0.0), now) and abs(now) > abs(self._touched[name])
        if (begins and not comes_back) or further:
            self._touched[name] = now


def _same_way(one: float, other: float) -> bool:
    return one * other > 0
