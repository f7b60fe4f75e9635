"""Motion of a grabbed pointer, also where the system reports positions in its place.

VNC, remote desktops, virtual machines and tablets have pointers that are absolute. SDL asks them for relative motion and
passes on what they say: where the pointer is. Knows no window; positions are in pixels of the screen.
"""

from __future__ import annotations

import math

NEAR_ORIGIN_PX = 40.0
"""Positions so close to the screen's corner look like motion and are taken for it."""
FLICK_PX = 250.0
"""No mouse begins to move by more between two events."""
SAME_SHARE = 0.25
"""Two positions in a row differ by less, as a share of their distance from the origin."""
CLOSE_SHARE, CLOSE_PX = 0.125, 16.0
"""How near the first position is to where the pointer was when it was grabbed."""


class RelativePointer:
    """Turns what a grabbed pointer reports into motion."""

    def __init__(self) -> None:
        self._is_absolute = False
        self._last: tuple[float, float] | None = None
        """The position reported last; None while reports are motion, or nothing was reported."""
        self._is_first = True
        self._grabbed_at: tuple[float, float] | None = None

    def grab(self, position: tuple[float, float] | None) -> None:
        """Begin anew.

        Args:
            position: Where on the screen the pointer is; None where the system does not say.
        """
        self._last, self._is_first, self._grabbed_at = None, True, position

    def motion(self, x: float, y: float) -> tuple[float, float]:
        """Return how far the pointer moved, pixels, x to the right and y down.

        Args:
            x: What the system calls motion to the right since the last report.
            y: The same downwards.
        """
        reported = x, y
        if min(reported) < 0.0:
            # No position is negative.
            self._is_absolute, self._last, self._is_first = False, None, False
            return reported
        last, self._last = self._last, reported
        if self._is_absolute:
            return (0.0, 0.0) if last is None else (x - last[0], y - last[1])
        if self._is_first:
            self._is_first = False
            if self._may_be_position(reported):
                # The next report tells, and brings what is held back here; a mouse would lose one count.
                return 0.0, 0.0
        elif last is not None and self._follows(reported, last):
            self._is_absolute = True
            began = self._grabbed_at if self._grabbed_at and self._is_near(last) else last
            return x - began[0], y - began[1]
        self._last = None
        return reported

    def _may_be_position(self, reported: tuple[float, float]) -> bool:
        length = math.hypot(*reported)
        if length <= NEAR_ORIGIN_PX:
            return False
        if self._grabbed_at is None:
            return length > FLICK_PX
        return self._is_near(reported) or length > FLICK_PX

    def _is_near(self, reported: tuple[float, float]) -> bool:
        """Whether a report may be a position that the pointer came to from where it was grabbed."""
        if self._grabbed_at is None:
            return False
        return math.dist(reported, self._grabbed_at) <= max(CLOSE_PX, CLOSE_SHARE * math.hypot(*reported))

    def _follows(self, reported: tuple[float, float], last: tuple[float, float]) -> bool:
        return math.dist(reported, last) <= SAME_SHARE * math.hypot(*last)
