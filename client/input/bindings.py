"""What keys and gamepad buttons do: one table of named actions, and who pressed what.

A key is a scancode, a physical position: W is the key above S on an AZERTY keyboard too. Knows no window and
no walk; whoever answers an action has a method for it, `do_NAME`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

import pygame


class Group(StrEnum):
    """Where an action stands in the help."""

    MOVE = "Move"
    LOOK = "Look"
    WORLD = "World"
    KEEP = "Keep"
    SHOW = "Show"


@dataclass(frozen=True)
class Action:
    """Something a player can ask for with a key or a button."""

    name: str
    """Names it to the program, in settings too."""
    label: str
    """What it does, in a few words."""
    group: Group
    keys: tuple[int, ...]
    """Scancodes it has at first."""
    button: int | None = None
    """Gamepad button, where it has one."""
    line: str = ""
    """Its line in the help; neighbours with the same line share it. The label where empty."""


def _key(letter: str) -> int:
    return pygame.KSCAN_A + ord(letter) - ord("A")


ACTIONS: tuple[Action, ...] = (
    Action("ahead", "walk ahead", Group.MOVE, (_key("W"),), line="walk, step aside"),
    Action("step_left", "step left", Group.MOVE, (_key("A"),), line="walk, step aside"),
    Action("back", "walk back", Group.MOVE, (_key("S"),), line="walk, step aside"),
    Action("step_right", "step right", Group.MOVE, (_key("D"),), line="walk, step aside"),
    Action("rise", "rise, and fly", Group.MOVE, (pygame.KSCAN_SPACE, _key("E"))),
    Action("sink", "sink, and fly", Group.MOVE, (_key("C"), _key("Q"))),
    Action("run", "run", Group.MOVE, (pygame.KSCAN_LSHIFT, pygame.KSCAN_RSHIFT), pygame.CONTROLLER_BUTTON_A),
    Action("fly", "walk or fly", Group.MOVE, (_key("F"),), pygame.CONTROLLER_BUTTON_LEFTSTICK),
    Action(
        "faster",
        "go faster",
        Group.MOVE,
        (pygame.KSCAN_EQUALS, pygame.KSCAN_KP_PLUS),
        pygame.CONTROLLER_BUTTON_DPAD_UP,
    ),
    Action(
        "slower",
        "go slower",
        Group.MOVE,
        (pygame.KSCAN_MINUS, pygame.KSCAN_KP_MINUS),
        pygame.CONTROLLER_BUTTON_DPAD_DOWN,
    ),
    Action("look_up", "look up", Group.LOOK, (pygame.KSCAN_UP,), line="look around"),
    Action("look_down", "look down", Group.LOOK, (pygame.KSCAN_DOWN,), line="look around"),
    Action("look_left", "look left", Group.LOOK, (pygame.KSCAN_LEFT,), line="look around"),
    Action("look_right", "look right", Group.LOOK, (pygame.KSCAN_RIGHT,), line="look around"),
    Action("lean_left", "lean left", Group.LOOK, (_key("Z"),), pygame.CONTROLLER_BUTTON_LEFTSHOULDER, "lean"),
    Action(
        "lean_right", "lean right", Group.LOOK, (_key("X"),), pygame.CONTROLLER_BUTTON_RIGHTSHOULDER, "lean"
    ),
    Action("level", "level the horizon", Group.LOOK, (_key("V"),), pygame.CONTROLLER_BUTTON_Y),
    Action("instant_look", "instant look on or off", Group.LOOK, (pygame.KSCAN_F2,)),
    Action("restart", "start again", Group.WORLD, (pygame.KSCAN_BACKSPACE,)),
    Action("next_world", "next world", Group.WORLD, (_key("N"), pygame.KSCAN_PAGEDOWN)),
    Action("previous_world", "world before", Group.WORLD, (pygame.KSCAN_PAGEUP,)),
    Action("pause", "pause, settings", Group.WORLD, (_key("P"),), pygame.CONTROLLER_BUTTON_START),
    Action("new_world", "a new world from here", Group.WORLD, (pygame.KSCAN_F6,)),
    Action("quick_save", "save", Group.KEEP, (pygame.KSCAN_F5,)),
    Action("quick_load", "load", Group.KEEP, (pygame.KSCAN_F9,)),
    Action("rewind", "hold to go back", Group.KEEP, (_key("R"),), pygame.CONTROLLER_BUTTON_DPAD_LEFT),
    Action("other_branch", "other branch", Group.KEEP, (_key("B"),), pygame.CONTROLLER_BUTTON_DPAD_RIGHT),
    Action("record", "record", Group.KEEP, (pygame.KSCAN_F10,)),
    Action("clip", "keep the last 30 s", Group.KEEP, (pygame.KSCAN_F8,), pygame.CONTROLLER_BUTTON_RIGHTSTICK),
    Action("photo_mode", "hold still, hide all", Group.KEEP, (_key("O"),)),
    Action("photo", "take a photo", Group.KEEP, (pygame.KSCAN_F12,), pygame.CONTROLLER_BUTTON_X),
    Action("help", "this help", Group.SHOW, (pygame.KSCAN_F1,), pygame.CONTROLLER_BUTTON_BACK),
    Action("map", "map of the walk", Group.SHOW, (_key("M"),)),
    Action("held_keys", "keys held", Group.SHOW, (_key("H"),)),
    Action("figures", "figures", Group.SHOW, (pygame.KSCAN_F3,)),
    Action("flash", "flash for a camera", Group.SHOW, (pygame.KSCAN_F4,)),
    Action("full_screen", "full screen", Group.SHOW, (pygame.KSCAN_F11,)),
)
"""Everything that can be bound. A new feature adds its line here and a `do_` method where it is answered; one that
lasts while its key is held has an `end_` method too."""

FIXED: tuple[tuple[Group, str, str], ...] = (
    (Group.LOOK, "Click", "take the mouse"),
    (Group.WORLD, "Esc", "free the mouse, menu"),
    (Group.WORLD, "Ctrl Q", "quit"),
)
"""What cannot be bound: group, keys and what they do."""

PAD_LINES = (
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
    return [*groups, ("Gamepad", [*PAD_LINES, *_button_lines()])]


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
