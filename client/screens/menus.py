"""The menus over a walk: the pause, the settings with their values, the keys, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from client.input.actions import ACTIONS
from client.input.bindings import RESERVED, Bindings
from client.setup.settings import Settings
from client.ui.menu import Choice, Menu
from client.ui.picture import Style
from engine.errors import EngineError

_KEYS_HINT = "Enter, then press a key to take it. Delete leaves an action without a key."
_KEY_WANTED = "Press the key to take, or Esc to leave things as they are."
_STEP = 1.25
DO = "do:"
"""Begins the key of a line that stands for an action."""
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
            Choice("reset", "Start again", key_of("restart"), fixed=True),
            Choice("worlds", "Other worlds"),
            Choice("quit", "Quit", "Ctrl Q", fixed=True),
        ],
    )


def settings_menu(settings: Settings, chosen: int = 0) -> Menu:
    """Return the menu with the settings' present values."""
    values = {
        "pace": ("Walking speed", f"{100 * settings.pace:.0f} %"),
        "mouse_deg_px": ("Mouse speed", f"{settings.mouse_deg_px:.2f} deg/px"),
        "invert_y": ("Mouse up looks", "down" if settings.invert_y else "up"),
        "dead_zone": ("Stick's rest", f"{100 * settings.dead_zone:.0f} %"),
        "picture": ("Edges", settings.picture),
        "text_size": ("Size of texts", f"{100 * settings.text_size:.0f} %"),
        **{name: (label, _switch(getattr(settings, name))) for name, label in SWITCHES.items()},
    }
    menu = Menu(
        "Settings",
        [
            *(Choice(name, label, value, note=NOTES[name]) for name, (label, value) in values.items()),
            Choice("keys", "Change the keys", note="Any action on any key."),
            Choice("defaults", "All as at first", note="Everything here; the keys have a line of their own."),
            Choice("back", "Back", note="What was set is kept."),
        ],
    )
    menu.chosen = chosen
    return menu


def _switch(on: bool) -> str:
    return "on" if on else "off"


def changed_pace(pace: float, direction: int) -> float:
    """Return the walking speed one step faster (1) or slower (-1), within a quarter and four times the world's."""
    return _scaled(pace, direction, 0.25, 4.0)


def _scaled(value: float, direction: int, low: float, high: float) -> float:
    return max(low, min(high, round(value * _STEP**direction, 4)))


def _next_style(settings: Settings, direction: int) -> Style:
    return _STYLES[(_STYLES.index(settings.picture) + direction) % len(_STYLES)]


SWITCHES = {
    "reproject": "Instant look",
    "hud": "Metrics",
    "show_map": "Map",
    "show_held": "Held keys",
}
"""Settings that are on or off."""
NOTES = {
    "pace": "How fast a held key walks.",
    "mouse_deg_px": "How far the view turns with the mouse.",
    "invert_y": "Where the view goes as the mouse goes up.",
    "dead_zone": "How far a stick moves before it counts.",
    "picture": "How the model's small pictures are enlarged.",
    "text_size": "Of everything but the world.",
    "reproject": "The picture turns before the model answers.",
    "hud": "What is shown, what makes it, where you are.",
    "show_map": "The walk from above.",
    "show_held": "What keys and sticks ask for just now.",
}
"""What each setting is, in one line."""

_CHANGES: Mapping[str, Callable[[Settings, int], Any]] = {
    "pace": lambda settings, direction: changed_pace(settings.pace, direction),
    "mouse_deg_px": lambda settings, direction: _scaled(settings.mouse_deg_px, direction, 0.01, 2.0),
    "invert_y": lambda settings, _: not settings.invert_y,
    "dead_zone": lambda settings, direction: max(
        0.05, min(0.5, round(settings.dead_zone + 0.05 * direction, 2))
    ),
    "picture": _next_style,
    "text_size": lambda settings, direction: max(0.75, min(2.0, settings.text_size + 0.25 * direction)),
}


def adjust(settings: Settings, key: str, direction: int) -> Settings:
    """Return the settings with one value moved up (1) or down (-1); unchanged for a line without a value."""
    if key in SWITCHES:
        return settings.model_copy(update={key: not getattr(settings, key)})
    if key in _CHANGES:
        return settings.model_copy(update={key: _CHANGES[key](settings, direction)})
    return settings


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
        )
        self.chosen = chosen

    @property
    def on_action(self) -> bool:
        """Whether the chosen line is an action's."""
        return self.chosen < len(ACTIONS)

    def wait(self) -> KeysMenu:
        """Return the menu with its chosen action waiting for a key."""
        return KeysMenu(self.bindings, self.chosen, waiting=True)

    def take(self, scancode: int) -> KeysMenu:
        """Return the menu with the chosen action on a key, instead of the keys it had."""
        keys = () if scancode in RESERVED else (scancode,)
        bindings = self.bindings.with_keys(ACTIONS[self.chosen].name, keys) if keys else self.bindings
        return KeysMenu(bindings, self.chosen)

    def clear(self) -> KeysMenu:
        """Return the menu with the chosen action on no key."""
        return KeysMenu(self.bindings.with_keys(ACTIONS[self.chosen].name, ()), self.chosen)

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
