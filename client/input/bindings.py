"""Key bindings: which physical keys and gamepad buttons ask for which action, and what the help says of them.

A key is a scancode, a physical position: W is the key above S on an AZERTY keyboard too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pygame

from client.input.actions import ACTIONS, FIXED, Action, Group

GAMEPAD_LINES = (
    ("Sticks", "walk, look around"),
    ("Triggers", "sink, rise"),
    ("Shoulders", "lean"),
    ("B", "menu, back"),
)
"""What a gamepad's sticks and paired buttons do."""
BUTTON_NAMES = {
    pygame.CONTROLLER_BUTTON_A: "A",
    pygame.CONTROLLER_BUTTON_X: "X",
    pygame.CONTROLLER_BUTTON_Y: "Y",
    pygame.CONTROLLER_BUTTON_START: "Start",
    pygame.CONTROLLER_BUTTON_BACK: "Back",
    pygame.CONTROLLER_BUTTON_LEFTSTICK: "Left stick",
    pygame.CONTROLLER_BUTTON_RIGHTSTICK: "Right stick",
    pygame.CONTROLLER_BUTTON_DPAD_UP: "Pad up",
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: "Pad down",
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: "Pad left",
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "Pad right",
}
"""Names of the single buttons; the shoulders are shown as a pair."""

HelpGroup = tuple[str, list[tuple[str, str]]]
"""A heading, and lines of keys with what they do."""

RESERVED = frozenset({pygame.KSCAN_ESCAPE})
"""Keys no action may take: without them there is no way back out of a wrong binding."""

DEFAULT_KEYS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {action.name: action.keys for action in ACTIONS}
)


@dataclass(frozen=True)
class Bindings:
    """Which physical keys ask for which action."""

    keys: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: DEFAULT_KEYS)
    """Scancodes of every action."""

    labels: Mapping[int, str] = field(default_factory=dict)
    """What stands on keys of the player's own keyboard, as far as it is known."""

    @classmethod
    def changed_by(cls, changed: Mapping[str, tuple[int, ...]], labels: Mapping[int, str]) -> Bindings:
        """Return the first bindings with some actions on other keys."""
        return cls({**DEFAULT_KEYS, **changed}, labels)

    @property
    def changed(self) -> dict[str, tuple[int, ...]]:
        """The actions that are on other keys than at first."""
        return {name: keys for name, keys in self.keys.items() if keys != DEFAULT_KEYS[name]}

    def with_keys(self, name: str, keys: tuple[int, ...]) -> Bindings:
        """Return the bindings with one action on other keys."""
        return replace(self, keys={**self.keys, name: keys})

    def with_defaults(self) -> Bindings:
        """Return the bindings with every action on its first keys."""
        return replace(self, keys=DEFAULT_KEYS)

    def rivals(self, name: str) -> list[Action]:
        """Return the other actions that one of an action's keys asks for too."""
        keys = set(self.keys[name])
        return [action for action in ACTIONS if action.name != name and keys & set(self.keys[action.name])]

    def label(self, scancode: int) -> str:
        """Return what stands on a key: on the player's keyboard if it is known, on a US one otherwise."""
        return self.labels.get(scancode) or key_name(scancode)

    def action(self, scancode: int) -> str | None:
        """Return the action a key asks for, the first in the table where several do."""
        return next((name for name, keys in self.keys.items() if scancode in keys), None)

    def scancodes(self, names: Iterable[str]) -> frozenset[int]:
        """Return the keys of some actions."""
        return frozenset(scancode for name in names for scancode in self.keys[name])


DEFAULT_BINDINGS = Bindings()

_BUTTON_ACTIONS = {action.button: action.name for action in ACTIONS if action.button is not None}


def action_of_button(button: int) -> str | None:
    """Return the action a gamepad button asks for."""
    return _BUTTON_ACTIONS.get(button)


_NAMES = {
    pygame.KSCAN_SPACE: "Space",
    pygame.KSCAN_LSHIFT: "Shift",
    pygame.KSCAN_RSHIFT: "Right Shift",
    pygame.KSCAN_UP: "Up",
    pygame.KSCAN_DOWN: "Down",
    pygame.KSCAN_LEFT: "Left",
    pygame.KSCAN_RIGHT: "Right",
    pygame.KSCAN_PAGEUP: "Page Up",
    pygame.KSCAN_PAGEDOWN: "Page Down",
    pygame.KSCAN_EQUALS: "=",
    pygame.KSCAN_MINUS: "-",
    pygame.KSCAN_KP_PLUS: "Num +",
    pygame.KSCAN_KP_MINUS: "Num -",
}


def key_name(scancode: int) -> str:
    """Return what stands on a key of a US keyboard."""
    if pygame.KSCAN_A <= scancode <= pygame.KSCAN_Z:
        return chr(ord("A") + scancode - pygame.KSCAN_A)
    if scancode in _NAMES:
        return _NAMES[scancode]
    constant = next((name for name, value in _scancodes() if value == scancode), None)
    return constant.replace("_", " ").title() if constant is not None else f"Key {scancode}"


def letter_of(key: int) -> str:
    """Return the letter or sign that a layout puts on a key, from the symbol it reports; empty where it is none."""
    # Symbols below the bit for keys without a character are Unicode; a space has a name instead.
    return chr(key).upper() if 32 < key < 0x11_0000 and chr(key).isprintable() else ""


def _scancodes() -> Iterable[tuple[str, int]]:
    prefix = "KSCAN_"
    return ((name[len(prefix) :], value) for name, value in vars(pygame).items() if name.startswith(prefix))


def help_groups(bindings: Bindings) -> list[HelpGroup]:
    """Return the help: for each group its keys and what they do; the gamepad comes last."""
    groups = [(group.value, _help_lines(group, bindings)) for group in Group]
    return [*groups, ("Gamepad", [*GAMEPAD_LINES, *_button_lines()])]


def _help_lines(group: Group, bindings: Bindings) -> list[tuple[str, str]]:
    keys_of: dict[str, list[int]] = {}
    for action in ACTIONS:
        if action.group is group:
            keys_of.setdefault(action.line or action.label, []).extend(bindings.keys[action.name])
    lines = [(_name_keys(keys, bindings), line) for line, keys in keys_of.items()]
    return lines + [(keys, line) for fixed, keys, line in FIXED if fixed is group]


def _button_lines() -> list[tuple[str, str]]:
    return [
        (BUTTON_NAMES[action.button], action.label) for action in ACTIONS if action.button in BUTTON_NAMES
    ]


def _name_keys(scancodes: Sequence[int], bindings: Bindings) -> str:
    if set(scancodes) == {pygame.KSCAN_UP, pygame.KSCAN_DOWN, pygame.KSCAN_LEFT, pygame.KSCAN_RIGHT}:
        return "Arrows"
    if set(scancodes) == {pygame.KSCAN_LSHIFT, pygame.KSCAN_RSHIFT}:
        return "Shift"
    return " ".join(bindings.label(scancode) for scancode in scancodes) or "none"
