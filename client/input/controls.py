"""Devices into intent: what the player asks for, before any pose exists, on its way to the next chunk.

Plain numbers in, an `Intent` out; knows no window, no clock and no camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from client.input.bindings import DEFAULT_BINDINGS, Bindings

KEY_MAP_VERSION = 1
"""Stands in every recording; raise it when a key comes to mean another movement."""


class Axis(StrEnum):
    """The six directions a player can ask for; the sign conventions are those of `Intent`."""

    FORWARD = "forward"
    STRAFE = "strafe"
    RISE = "rise"
    YAW = "yaw"
    PITCH = "pitch"
    ROLL = "roll"


@dataclass(frozen=True)
class Intent:
    """What the player asks for at one moment; axes in [-1, 1]."""

    forward: float = 0.0
    """Positive walks ahead."""
    strafe: float = 0.0
    """Positive steps to the right."""
    rise: float = 0.0
    """Positive goes up."""
    yaw: float = 0.0
    """Positive turns right."""
    pitch: float = 0.0
    """Positive looks up."""
    roll: float = 0.0
    """Positive leans right (clockwise as seen by the player)."""
    look_dx_rad: float = 0.0
    """Turn asked of the mouse since the last intent, radians, positive right."""
    look_dy_rad: float = 0.0
    """Tilt asked of the mouse since the last intent, radians, positive up."""
    run: bool = False
    level: bool = False
    """Bring the horizon back to level."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for."""
        return not any(getattr(self, item.name) for item in fields(self))

    @property
    def held(self) -> Intent:
        """What lasts of it: keys and sticks, but no mouse."""
        return replace(self, look_dx_rad=0.0, look_dy_rad=0.0)


IDLE = Intent()

AXIS_ACTIONS: Mapping[Axis, tuple[str, str]] = {
    Axis.FORWARD: ("ahead", "back"),
    Axis.STRAFE: ("step_right", "step_left"),
    Axis.RISE: ("rise", "sink"),
    Axis.YAW: ("look_right", "look_left"),
    Axis.PITCH: ("look_up", "look_down"),
    Axis.ROLL: ("lean_right", "lean_left"),
}
"""For each axis the actions of its positive and of its negative direction."""
_TOUCHED = (*(axis.value for axis in Axis), "run", "level")
"""Fields of an intent that are pressed and let go."""
DEAD_ZONE = 0.15
MOVING = frozenset(name for pair in AXIS_ACTIONS.values() for name in pair) | {"run", "level"}
"""Actions that are held and become an intent; every other one is answered by a screen."""


class KeyboardState:
    """The movement keys held now, or tapped since someone asked; of two opposite keys the one pressed last wins."""

    def __init__(self, bindings: Bindings = DEFAULT_BINDINGS) -> None:
        self._held: dict[int, None] = {}
        self._tapped: dict[int, None] = {}
        """Went down and up since someone asked."""
        self._fresh: set[int] = set()
        """Went down since someone asked."""
        self.bind(bindings)

    def bind(self, bindings: Bindings) -> None:
        """Give the keys other meanings; what is held is let go."""
        self.release_all()
        self._keys = {name: frozenset(bindings.keys[name]) for name in MOVING}
        self._moving = bindings.scancodes(MOVING)

    def press(self, scancode: int) -> bool:
        """Note a key going down; say whether it is a movement key. A repeat of a held key changes nothing."""
        if scancode not in self._moving:
            return False
        if scancode not in self._held:
            self._held[scancode] = None
            self._fresh.add(scancode)
        return True

    def release(self, scancode: int) -> None:
        """Note a key going up; a key never seen going down is ignored."""
        if scancode in self._fresh:
            self._tapped[scancode] = None
        self._held.pop(scancode, None)

    def release_all(self) -> None:
        """Forget every held key: the window lost the focus, so their releases will never be seen."""
        self._held.clear()
        self.forget_taps()

    def forget_taps(self) -> None:
        """Forget the keys that went down and up again: someone has seen them by now."""
        self._fresh.clear()
        self._tapped.clear()

    @property
    def held(self) -> tuple[int, ...]:
        """Scancodes in order of pressing."""
        return tuple(self._held)

    def axis(self, axis: Axis) -> float:
        """Return -1, 0 or 1."""
        positive, negative = (self._keys[name] for name in AXIS_ACTIONS[axis])
        for scancode in reversed([*self._held, *self._tapped]):
            if scancode in positive:
                return 1.0
            if scancode in negative:
                return -1.0
        return 0.0

    @property
    def run(self) -> bool:
        return self._any(self._keys["run"])

    @property
    def level(self) -> bool:
        return self._any(self._keys["level"])

    def _any(self, scancodes: Iterable[int]) -> bool:
        return any(scancode in self._held or scancode in self._tapped for scancode in scancodes)


class MouseLook:
    """Sums relative mouse motion until someone takes it; every count is taken exactly once."""

    def __init__(self, sensitivity_rad_px: float, invert_y: bool = False) -> None:
        self.sensitivity_rad_px = sensitivity_rad_px
        self.invert_y = invert_y
        self._dx_px = 0.0
        self._dy_px = 0.0

    def move(self, dx_px: float, dy_px: float) -> None:
        """Add a motion in window pixels, x to the right and y down."""
        if math.isfinite(dx_px) and math.isfinite(dy_px):
            self._dx_px += dx_px
            self._dy_px += dy_px

    def take_rad(self) -> tuple[float, float]:
        """Return the turn (right) and tilt (up) not yet taken, radians, and start again from nothing."""
        sign = 1.0 if self.invert_y else -1.0
        look_rad = self._dx_px * self.sensitivity_rad_px, sign * self._dy_px * self.sensitivity_rad_px
        self.forget()
        return look_rad

    def forget(self) -> None:
        """Drop what was not taken: it belongs to a moment that has passed."""
        self._dx_px = self._dy_px = 0.0


@dataclass(frozen=True)
class GamepadState:
    """One gamepad at one moment; sticks in [-1, 1] with y down, triggers in [0, 1]."""

    left_x: float = 0.0
    left_y: float = 0.0
    right_x: float = 0.0
    right_y: float = 0.0
    left_trigger: float = 0.0
    right_trigger: float = 0.0
    left_shoulder: bool = False
    right_shoulder: bool = False
    run: bool = False
    level: bool = False


def apply_dead_zone(x: float, y: float, dead_zone: float) -> tuple[float, float]:
    """Zero a stick near its rest and stretch its remaining travel to the unit disc, without a step."""
    length = math.hypot(x, y)
    if not math.isfinite(length) or length <= dead_zone:
        return 0.0, 0.0
    scale = min(1.0, (length - dead_zone) / (1.0 - dead_zone)) / length
    return x * scale, y * scale


def gamepad_axes(pad: GamepadState, dead_zone: float = DEAD_ZONE) -> dict[Axis, float]:
    """Return the six axes a gamepad asks for, each in [-1, 1].

    Left stick moves, right stick looks, triggers sink and rise, shoulders roll.
    """
    strafe, back = apply_dead_zone(pad.left_x, pad.left_y, dead_zone)
    yaw, down = apply_dead_zone(pad.right_x, pad.right_y, dead_zone)
    rise, _ = apply_dead_zone(pad.right_trigger - pad.left_trigger, 0.0, dead_zone / 2)
    return {
        Axis.FORWARD: -back,
        Axis.STRAFE: strafe,
        Axis.RISE: rise,
        Axis.YAW: yaw,
        Axis.PITCH: -down,
        Axis.ROLL: float(pad.right_shoulder) - float(pad.left_shoulder),
    }


def read_intent(
    keyboard: KeyboardState,
    mouse: MouseLook,
    pads: Iterable[GamepadState] = (),
    *,
    dead_zone: float = DEAD_ZONE,
) -> Intent:
    """Merge all devices into one intent; what passed since the last one is spent by it.

    Args:
        keyboard: Keys held now, and those that were tapped.
        mouse: Its motion.
        pads: What each gamepad does now.
        dead_zone: How far a stick moves before it means anything, of its whole way.
    """
    pads = tuple(pads)
    axes = {axis: keyboard.axis(axis) for axis in Axis}
    for pad in pads:
        for axis, value in gamepad_axes(pad, dead_zone).items():
            axes[axis] += value
    look_dx_rad, look_dy_rad = mouse.take_rad()
    intent = Intent(
        **{axis.value: max(-1.0, min(1.0, value)) for axis, value in axes.items()},
        look_dx_rad=look_dx_rad,
        look_dy_rad=look_dy_rad,
        run=keyboard.run or any(pad.run for pad in pads),
        level=keyboard.level or any(pad.level for pad in pads),
    )
    keyboard.forget_taps()
    return intent


class IntentMailbox:
    """What the player asked for since the last chunk was latched.

    Axes are what is held now, the mouse adds up, and a touch that is over by then (a tapped key, a flicked stick)
    counts for the next chunk and for no other. Knows no clock: a touch is whatever two latches have between them.
    """

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
