"""What a player can ask for: named actions, menu steps, and the table of the handlers that answer actions.

Knows no devices, no window and no walk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

import pygame


class Group(StrEnum):
    """Where an action stands in the help."""

    MOVE = "Move"
    LOOK = "Look"
    WORLD = "World"
    KEEP = "Keep"
    REPLAY = "In a replay"
    SHOW = "Show"


@dataclass(frozen=True)
class Action:
    """Something a player can ask for with a key or a button."""

    name: str
    """Names it to the program and in settings files, so that it stays when its label changes."""
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
    Action("instant_look", "late reprojection", Group.LOOK, (pygame.KSCAN_F2,)),
    Action("refiner", "refiner on or off", Group.LOOK, (pygame.KSCAN_F7,)),
    Action("restart", "start again", Group.WORLD, (pygame.KSCAN_BACKSPACE,)),
    Action("next_world", "next world", Group.WORLD, (_key("N"), pygame.KSCAN_PAGEDOWN)),
    Action("previous_world", "world before", Group.WORLD, (pygame.KSCAN_PAGEUP,)),
    Action("pause", "pause, settings", Group.WORLD, (_key("P"),), pygame.CONTROLLER_BUTTON_START),
    Action("new_world", "a new world from here", Group.WORLD, (pygame.KSCAN_F6,)),
    Action("quick_save", "save", Group.KEEP, (pygame.KSCAN_F5,)),
    Action("quick_load", "load", Group.KEEP, (pygame.KSCAN_F9,)),
    Action("rewind", "hold to go back", Group.KEEP, (_key("R"),), pygame.CONTROLLER_BUTTON_DPAD_LEFT),
    Action("other_branch", "other branch", Group.KEEP, (_key("B"),), pygame.CONTROLLER_BUTTON_DPAD_RIGHT),
    Action("walk_on", "leave it, and walk on", Group.REPLAY, (_key("J"),)),
    Action("record", "record", Group.KEEP, (pygame.KSCAN_F10,)),
    Action("clip", "keep the last 30 s", Group.KEEP, (pygame.KSCAN_F8,), pygame.CONTROLLER_BUTTON_RIGHTSTICK),
    Action("photo_mode", "hold still, hide all", Group.KEEP, (_key("O"),)),
    Action("photo", "take a photo", Group.KEEP, (pygame.KSCAN_F12,), pygame.CONTROLLER_BUTTON_X),
    Action("help", "this help", Group.SHOW, (pygame.KSCAN_F1,), pygame.CONTROLLER_BUTTON_BACK),
    Action("map", "map of the walk", Group.SHOW, (_key("M"),)),
    Action("held_keys", "keys held", Group.SHOW, (_key("H"),)),
    Action("figures", "metrics", Group.SHOW, (pygame.KSCAN_F3,)),
    Action("flash", "latency marker", Group.SHOW, (pygame.KSCAN_F4,)),
    Action("truth", "show the truth", Group.SHOW, (_key("T"),)),
    Action("sound", "sound on or off", Group.SHOW, (_key("K"),)),
    Action("full_screen", "full screen", Group.SHOW, (pygame.KSCAN_F11,)),
)
"""Everything that can be bound. A new feature adds its line here and its handler to the walk screen's `ActionTable`."""

FIXED: tuple[tuple[Group, str, str], ...] = (
    (Group.LOOK, "Click", "take the mouse"),
    (Group.WORLD, "Esc", "free the mouse, menu"),
    (Group.WORLD, "Ctrl Q", "quit"),
    (Group.REPLAY, "Space", "hold, play"),
    (Group.REPLAY, "Left Right", "5 s, with Shift 1 s"),
    (Group.REPLAY, ", .", "one frame"),
    (Group.REPLAY, "Up Down", "faster, slower"),
    (Group.REPLAY, "Home End", "beginning, end"),
)
"""What cannot be bound: group, keys and what they do."""


class Step(Enum):
    """One step through a menu, whichever device it comes from."""

    UP = auto()
    DOWN = auto()
    LEFT = auto()
    RIGHT = auto()
    ACCEPT = auto()
    BACK = auto()
    MENU = auto()
    """Open or close the menu of a walk."""
    FIRST = auto()
    LAST = auto()
    PAGE_UP = auto()
    PAGE_DOWN = auto()
    NEXT = auto()
    """To the next thing that can be chosen, around the ends."""
    PREVIOUS = auto()
    RENAME = auto()
    DELETE = auto()


@dataclass(frozen=True)
class Handler:
    """Who answers an action; each is called with the clock time, seconds."""

    begin: Callable[[float], None]
    end: Callable[[float], None] | None = None
    """For an action that lasts while its key is held."""


class ActionTable:
    """The handler of each action, and which keys still hold the one that they began."""

    def __init__(self, handlers: Mapping[str, Handler | Callable[[float], None]]) -> None:
        """Answer actions by name; a plain function is a handler without an end."""
        unknown = handlers.keys() - {action.name for action in ACTIONS}
        assert not unknown, f"no action is called {', '.join(sorted(unknown))}"
        self._handlers = {
            name: handler if isinstance(handler, Handler) else Handler(handler)
            for name, handler in handlers.items()
        }
        self._held: set[tuple[int, str]] = set()

    def begin(self, name: str, now_s: float, key: int | None = None) -> None:
        """Begin an action; one that a key began lasts until that key ends it. One without a handler does nothing."""
        if (handler := self._handlers.get(name)) is None:
            return
        if key is not None:
            self._held.add((key, name))
        handler.begin(now_s)

    def end(self, key: int, now_s: float) -> None:
        """End what a key began."""
        for held in [held for held in self._held if held[0] == key]:
            self._held.discard(held)
            end = self._handlers[held[1]].end
            if end is not None:
                end(now_s)

    def end_all(self, now_s: float) -> None:
        """End everything that a key began: its release may never be seen."""
        for key, _ in list(self._held):
            self.end(key, now_s)
