"""The keys, buttons and clicks that play a replay; in a free walk they mean something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pygame

from client.playback.replay_playback import ReplayPlayback
from client.playback.walk import Walk
from client.ui.app_context import AppContext
from client.ui.replay_bar import ReplayBar

SEEK_S = 5.0
"""How far an arrow goes."""
FINE_S = 1.0
"""How far it goes with Shift."""

_KEYS = {
    pygame.KSCAN_SPACE: "play",
    pygame.KSCAN_LEFT: "back",
    pygame.KSCAN_RIGHT: "on",
    pygame.KSCAN_DOWN: "slower",
    pygame.KSCAN_UP: "faster",
    pygame.KSCAN_COMMA: "frame_back",
    pygame.KSCAN_PERIOD: "frame_on",
    pygame.KSCAN_HOME: "start",
    pygame.KSCAN_END: "end",
}
_BUTTONS = {
    pygame.CONTROLLER_BUTTON_A: "play",
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: "back",
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "on",
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: "slower",
    pygame.CONTROLLER_BUTTON_DPAD_UP: "faster",
    pygame.CONTROLLER_BUTTON_LEFTSHOULDER: "frame_back",
    pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: "frame_on",
}


class ReplayControls:
    """Answers for the walk screen while a replay is on."""

    def __init__(self, app: AppContext, walk: Walk, bar: ReplayBar) -> None:
        self._app = app
        self._walk = walk
        self._bar = bar
        self._dragging = False
        self._commands: Mapping[str, Callable[[], None]] = {
            "play": self.turn,
            "back": lambda: self._skip(-SEEK_S),
            "on": lambda: self._skip(SEEK_S),
            "back_a_little": lambda: self._skip(-FINE_S),
            "on_a_little": lambda: self._skip(FINE_S),
            "frame_back": lambda: self._step(-1),
            "frame_on": lambda: self._step(1),
            "slower": lambda: self._change_speed(-1),
            "faster": lambda: self._change_speed(1),
            "start": lambda: self._go_to(self._replay.span.first),
            "end": lambda: self._go_to(self._replay.span.last),
        }

    @property
    def _replay(self) -> ReplayPlayback:
        assert self._walk.replay is not None
        return self._walk.replay

    def handle(self, event: pygame.event.Event) -> bool:
        """Answer an event; say whether it was one that plays a replay."""
        if self._walk.replay is None or self._walk.paused:
            self._dragging = False
            return False
        if event.type == pygame.KEYDOWN:
            name = self._command(event)
        elif event.type == pygame.CONTROLLERBUTTONDOWN:
            name = _BUTTONS.get(event.button)
        else:
            return self._point(event)
        if name is None:
            return False
        self._commands[name]()
        return True

    def _command(self, event: pygame.event.Event) -> str | None:
        action = self._app.bindings.action(event.scancode)
        if action in ("faster", "slower"):
            return action
        name = _KEYS.get(event.scancode)
        if name in ("back", "on") and event.mod & pygame.KMOD_SHIFT:
            return f"{name}_a_little"
        return name

    def _point(self, event: pygame.event.Event) -> bool:
        """Answer the mouse: a click in the bar goes there, and so does what is dragged from it."""
        if event.type == pygame.MOUSEBUTTONUP and event.button == 1:
            self._dragging = False
            return False
        clicked = event.type == pygame.MOUSEBUTTONDOWN and event.button == 1
        if not clicked and not (event.type == pygame.MOUSEMOTION and self._dragging):
            return False
        index = self._bar.frame_at(self._replay, event.pos, dragged=not clicked)
        if index is None:
            return False
        self._dragging = True
        self._go_to(index)
        return True

    def turn(self) -> None:
        """Play or hold; at the end it begins again."""
        replay = self._replay
        if replay.is_at_end:
            self.restart()
        else:
            replay.playing = not replay.playing

    def restart(self) -> None:
        """Play from the beginning."""
        self._replay.playing = True
        self._go_to(self._replay.span.first)

    def _go_to(self, index: int) -> None:
        self._walk.seek(index)

    @property
    def _aim(self) -> int:
        """The frame that is on, or the one that it is on its way to."""
        replay = self._replay
        return replay.frame.index if replay.target is None else replay.target

    def _skip(self, seconds: float) -> None:
        self._go_to(self._aim + round(seconds * self._walk.session.fps))

    def _step(self, direction: int) -> None:
        self._replay.playing = False
        self._go_to(self._aim + direction)

    def _change_speed(self, direction: int) -> None:
        self._replay.change_speed(direction)
