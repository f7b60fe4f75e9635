"""The few steps every menu understands, whichever device they come from."""

from __future__ import annotations

from enum import Enum, auto


class Step(Enum):
    """One step through a menu."""

    UP = auto()
    DOWN = auto()
    LEFT = auto()
    RIGHT = auto()
    ACCEPT = auto()
    BACK = auto()
    MENU = auto()
    """Open or close the menu of a walk."""
