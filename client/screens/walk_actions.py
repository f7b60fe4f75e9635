"""When an action may begin in a walk, and the actions that change a setting at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from client.input.actions import ACTIONS, ActionTable, Handler
from client.input.controls import MOVING
from client.playback.walk import Walk
from client.screens.capture import CaptureController
from client.screens.menus import adjust, changed_pace
from client.screens.rewind import RewindController
from client.setup.settings import Settings
from client.ui.app_context import AppContext
from engine.session.protocol import Session

IN_PAUSE = frozenset({"quick_save", "quick_load", "clip", "photo", "record", "help"})
"""Actions that work behind the pause menu: they keep or fetch something, and nothing moves."""
NEED_A_WALK = frozenset({"rewind", "other_branch", "new_world", "photo_mode"})
"""Actions that photo mode and a rewind must end before."""
_LABELS = {action.name: action.label for action in ACTIONS}


class WalkActions:
    """Begins an action where the walk can answer now, and says what must end first where it cannot."""

    def __init__(
        self,
        app: AppContext,
        walk: Walk,
        capture: CaptureController,
        rewind: RewindController,
        handlers: Mapping[str, Handler | Callable[[float], None]],
    ) -> None:
        self._app = app
        self._walk = walk
        self._capture = capture
        self._rewind = rewind
        self.table = ActionTable(handlers)
        self.end, self.end_all = self.table.end, self.table.end_all

    def begin(self, name: str, now_s: float, key: int | None = None) -> None:
        """Begin an action, by a key if it has one; on the way to another world nothing can be done."""
        if name in NEED_A_WALK and (first := self._what_first(name)) is not None:
            self._refuse(name, first)
        elif not self._walk.entering:
            self.table.begin(name, now_s, key)

    def begin_in_pause(self, name: str, now_s: float) -> None:
        """Begin an action while the pause is open; a key that moves the camera does nothing there."""
        if name in IN_PAUSE:
            self.begin(name, now_s)
        elif name not in MOVING:
            self._refuse(name, f"go on with {self._app.key_of('pause')}")

    def _what_first(self, name: str) -> str | None:
        """Say what has to end before the walk can go another way, None where nothing has."""
        if self._rewind.frame is not None and name != "rewind":
            return f"let {self._app.key_of('rewind')} go"
        if self._capture.photo_mode and name != "photo_mode":
            return f"go on with {self._app.key_of('photo_mode')}"
        return None

    def _refuse(self, name: str, first: str) -> None:
        label = _LABELS[name]
        self._app.say(f"{label[:1].upper()}{label[1:]}: {first} first.")


def wants_refiner(settings: Settings, session: Session) -> bool:
    """Whether chunks are to be refined by what the player set, or as the engine has it where nothing was."""
    return session.refines_by_default if settings.refiner == "auto" else settings.refiner == "on"


class SettingKeys:
    """The settings that have a key of their own, and the walker's gait and speed."""

    def __init__(self, app: AppContext, walk: Walk) -> None:
        self._app = app
        self._walk = walk

    def switch(self, name: str) -> None:
        """Turn a setting on or off."""
        self._app.apply_settings(adjust(self._app.settings, name, 1))

    def switch_sound(self) -> None:
        """Turn the sound on or off, and say which."""
        self.switch("sound")
        self._app.say("Sound on." if self._app.settings.sound else "Sound off.")

    def switch_reprojection(self) -> None:
        """Turn late reprojection on or off, and say which."""
        self.switch("reproject")
        on = self._app.settings.reproject
        self._app.say("Late reprojection on." if on else "Late reprojection off: the model alone answers.")

    def switch_refiner(self) -> None:
        """Turn the refiner on or off from the next chunk on, and say which, or why there is none."""
        if not self._walk.session.has_refiner:
            self._app.say("This engine was opened without a refiner.")
            return
        on = not self._walk.refiner_wanted
        self._app.apply_settings(self._app.settings.model_copy(update={"refiner": "on" if on else "off"}))
        self._app.say("Refiner on: a chunk comes later for it." if on else "Refiner off.")

    def toggle_flying(self) -> None:
        """Walk or fly."""
        if (rig := self._walk.planner.rig) is not None:
            rig.flying = not rig.flying
            rise, sink = self._app.key_of("rise"), self._app.key_of("sink")
            self._app.say(f"Flying: {rise} rises, {sink} sinks." if rig.flying else "Walking.")

    def change_pace(self, direction: int) -> None:
        """Walk one step faster (1) or slower (-1)."""
        rig, settings = self._walk.planner.rig, self._app.settings
        if rig is not None:
            rig.pace = changed_pace(settings.pace, direction)
            self._app.apply_settings(settings.model_copy(update={"pace": rig.pace}))
            self._app.toasts.replace(
                "Walking at ", f"{rig.speed_m_s:.1f} metres a second.", self._app.clock()
            )
