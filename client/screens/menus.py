"""The menus over a walk: the pause, the settings with their values, the keys, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from client.input.actions import ACTIONS
from client.input.bindings import RESERVED, Bindings
from client.setup.settings import Settings, Switch
from client.ui.menu import Choice, Menu
from client.ui.picture import Style
from engine.errors import EngineError

_KEYS_HINT = "Enter, then press a key to take it. Delete leaves an action without a key."
_KEY_WANTED = "Press the key to take, or Esc to leave things as they are."
_STEP = 1.25
DO = "do:"
"""Begins the key of a line that stands for an action."""
RESET_SETTINGS, RESET_KEYS = "reset_settings", "reset_keys"
"""Keys of the lines that set everything back."""
OFFERED = {
    "quick_save": "Save this moment",
    "quick_load": "Load what was saved",
    "record": "Record, or stop recording",
    "new_world": "A new world from here",
    "help": "Help",
}
"""Actions that the pause offers to whoever has no key for them, and names the keys of."""
_STYLES: tuple[Style, ...] = get_args(Style)


def pause_menu(key_of: Callable[[str], str]) -> Menu:
    """Return the menu of a paused walk; `key_of` names the key of an action."""
    return Menu(
        "Paused",
        [
            Choice("resume", "Go on", key_of("pause"), fixed=True),
            Choice("settings", "Settings"),
            Choice("keys", "Change the keys"),
            *(Choice(f"{DO}{name}", label, key_of(name), fixed=True) for name, label in OFFERED.items()),
            Choice("saved", "Saved walks"),
            Choice("reset", "Start again", key_of("restart"), fixed=True),
            Choice("worlds", "Other worlds"),
            Choice("quit", "Quit", "Ctrl Q", fixed=True),
        ],
    )


@dataclass(frozen=True)
class _Setting:
    """One line of the settings menu."""

    label: str
    note: str
    shown: Callable[[Settings], str]
    """Returns the present value as it is shown."""
    changed: Callable[[Settings, int], Any]
    """Returns the value one step up (1) or down (-1)."""


def _scaled(value: float, direction: int, low: float, high: float) -> float:
    return max(low, min(high, round(value * _STEP**direction, 4)))


def _turned(values: Sequence[str], value: str, direction: int) -> str:
    return values[(values.index(value) + direction) % len(values)]


def changed_pace(pace: float, direction: int) -> float:
    """Return the walking speed one step faster (1) or slower (-1), within a quarter and four times the world's."""
    return _scaled(pace, direction, 0.25, 4.0)


def _switch(name: str, label: str, note: str) -> _Setting:
    return _Setting(
        label,
        note,
        lambda settings: "on" if getattr(settings, name) else "off",
        lambda settings, _: not getattr(settings, name),
    )


_SETTINGS: Mapping[str, _Setting] = {
    "pace": _Setting(
        "Walking speed",
        "How fast a held key walks.",
        lambda settings: f"{100 * settings.pace:.0f} %",
        lambda settings, direction: changed_pace(settings.pace, direction),
    ),
    "mouse_deg_px": _Setting(
        "Mouse speed",
        "How far the view turns with the mouse.",
        lambda settings: f"{settings.mouse_deg_px:.2f} deg/px",
        lambda settings, direction: _scaled(settings.mouse_deg_px, direction, 0.01, 2.0),
    ),
    "invert_y": _Setting(
        "Mouse up looks",
        "Where the view goes as the mouse goes up.",
        lambda settings: "down" if settings.invert_y else "up",
        lambda settings, _: not settings.invert_y,
    ),
    "dead_zone": _Setting(
        "Stick's dead zone",
        "How far a stick moves before it counts.",
        lambda settings: f"{100 * settings.dead_zone:.0f} %",
        lambda settings, direction: max(0.05, min(0.5, round(settings.dead_zone + 0.05 * direction, 2))),
    ),
    "picture": _Setting(
        "Edges",
        "How the model's small frames are enlarged.",
        lambda settings: settings.picture,
        lambda settings, direction: _turned(_STYLES, settings.picture, direction),
    ),
    "text_size": _Setting(
        "Size of texts",
        "Of everything but the world.",
        lambda settings: f"{100 * settings.text_size:.0f} %",
        lambda settings, direction: max(0.75, min(2.0, settings.text_size + 0.25 * direction)),
    ),
    "sound": _switch("sound", "Sound", "Footsteps, and the place around you."),
    "reproject": _switch("reproject", "Late reprojection", "The view turns before the model answers."),
    "refiner": _Setting(
        "Refiner",
        "A second stage; auto is the engine's choice.",
        lambda settings: settings.refiner,
        lambda settings, direction: _turned(get_args(Switch), settings.refiner, direction),
    ),
    "hud": _switch("hud", "Metrics", "What is shown, what makes it, where you are."),
    "show_map": _switch("show_map", "Map", "The walk from above."),
    "show_held": _switch("show_held", "Held keys", "What keys and sticks ask for just now."),
}


def settings_menu(settings: Settings, chosen: int = 0) -> Menu:
    """Return the menu with the settings' present values."""
    lines = [Choice(key, line.label, line.shown(settings), note=line.note) for key, line in _SETTINGS.items()]
    lines += [
        Choice("keys", "Change the keys", note="Any action on any key."),
        Choice("defaults", "All as at first", note="Everything here; the keys have a line of their own."),
        Choice("back", "Back", note="What was set is kept."),
    ]
    return Menu("Settings", lines, chosen=chosen)


def reset_menu(key: str) -> Menu:
    """Return the question whether all settings (`defaults`) or all keys (`default_keys`) are to be as at first."""
    of_keys = key == "default_keys"
    what = (
        "Every key is as at first then."
        if of_keys
        else "Every setting here is as at first then; the keys stay."
    )
    lines = [
        Choice("back", "Leave them as they are"),
        Choice(RESET_KEYS if of_keys else RESET_SETTINGS, "Set all of them back"),
    ]
    return Menu("All as at first?", lines, what)


def adjust(settings: Settings, key: str, direction: int) -> Settings:
    """Return the settings with one value moved up (1) or down (-1); unchanged for a line without a value."""
    if key not in _SETTINGS:
        return settings
    return settings.model_copy(update={key: _SETTINGS[key].changed(settings, direction)})


def defaults(settings: Settings) -> Settings:
    """Return the settings as they were at first, but for the keys and the window's size."""
    kept = settings.model_dump(include={"window_width", "window_height", "keys"})
    return Settings.model_validate(kept)


class KeysMenu(Menu):
    """One line for each action; a line can wait for the key it is to have."""

    def __init__(self, bindings: Bindings, chosen: int = 0, waiting: bool = False) -> None:
        self.bindings = bindings
        self.waiting = waiting
        lines = [_line(bindings, number, waiting and number == chosen) for number in range(len(ACTIONS))]
        super().__init__(
            "Keys",
            [*lines, Choice("default_keys", "All as at first"), Choice("back", "Back")],
            _KEY_WANTED if waiting else _KEYS_HINT,
            chosen=chosen,
        )

    @property
    def on_action(self) -> bool:
        """Whether the chosen line is an action's."""
        return self.chosen < len(ACTIONS)

    def wait(self) -> KeysMenu:
        """Return the menu with its chosen action waiting for a key."""
        return KeysMenu(self.bindings, self.chosen, waiting=True)

    def take(self, scancode: int) -> KeysMenu:
        """Return the menu with the chosen action on a key, instead of the keys it had."""
        return KeysMenu(self.bindings, self.chosen) if scancode in RESERVED else self._with_keys((scancode,))

    def clear(self) -> KeysMenu:
        """Return the menu with the chosen action on no key."""
        return self._with_keys(())

    def _with_keys(self, keys: tuple[int, ...]) -> KeysMenu:
        return KeysMenu(self.bindings.with_keys(ACTIONS[self.chosen].name, keys), self.chosen)

    def reset(self) -> KeysMenu:
        """Return the menu with every action on the keys it had at first."""
        return KeysMenu(self.bindings.with_defaults(), self.chosen)


def _line(bindings: Bindings, number: int, waiting: bool) -> Choice:
    action = ACTIONS[number]
    rivals = bindings.rivals(action.name)
    names = ", ".join(bindings.label(key) for key in bindings.keys[action.name]) or "none"
    label = action.label[:1].upper() + action.label[1:]
    if rivals:
        label = f"{label} (also {rivals[0].label})"
    return Choice(action.name, label, "..." if waiting else names, warning=bool(rivals), fixed=True)


def problem_menu(title: str, error: Exception, again: bool = True) -> Menu:
    """Return a menu that says what went wrong and what can be done."""
    sentence = " ".join(str(error).split())
    if not isinstance(error, EngineError | ValueError):
        sentence = f"Something unexpected happened ({type(error).__name__}: {sentence})."
    choices = [Choice("again", "Try again")] if again else []
    choices += [Choice("worlds", "Other worlds"), Choice("quit", "Quit")]
    return Menu(title, choices, f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}.", warning=True)
