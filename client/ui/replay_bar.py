"""The bar of a replay: where it is, what is made of it, how it is played; a click in it goes there."""

from __future__ import annotations

import pygame

from client.playback.replay_playback import ReplayPlayback
from client.ui import theme
from client.ui.theme import Theme

KEYS = "Space plays, arrows seek, comma and period step, J walks on"


class ReplayBar:
    """Drawn along the bottom of the window."""

    def __init__(self) -> None:
        self.place = pygame.Rect(0, 0, 0, 0)
        """Where it lies, as drawn last."""
        self._track = pygame.Rect(0, 0, 0, 0)

    def draw(self, target: pygame.Surface, look: Theme, replay: ReplayPlayback, fps: float) -> None:
        """Draw it for the frame that is on."""
        pad = look.px(2)
        width = min(target.get_width() - 2 * pad, look.px(96))
        label = look.text(state_words(replay, fps), 15)
        height = label.get_height() + look.px(4)
        left, top = (target.get_width() - width) // 2, target.get_height() - height - pad
        self.place = pygame.Rect(left, top, width, height)
        target.blit(look.panel(width, height), (left, top))
        target.blit(label, (left + pad, top + look.px(0.75)))
        keys = look.text(KEYS, 13, colour=theme.PAPER_DIM)
        if label.get_width() + keys.get_width() + 3 * pad <= width:
            target.blit(keys, (left + width - pad - keys.get_width(), top + look.px(1)))
        line_px = max(3, look.px(0.75))
        self._track = pygame.Rect(left + pad, top + height - line_px - look.px(1), width - 2 * pad, line_px)
        target.fill(theme.INK_RAISED, self._track)
        made = round(self._track.width * _fraction(replay, replay.newest))
        target.fill(theme.PAPER_DIM, (*self._track.topleft, made, line_px))
        shown = replay.frame.index if replay.target is None else replay.target
        reached = round(self._track.width * _fraction(replay, shown))
        target.fill(theme.AMBER, (*self._track.topleft, reached, line_px))
        knob = max(3, look.px(0.9))
        pygame.draw.circle(target, theme.AMBER, (self._track.left + reached, self._track.centery), knob)

    def frame_at(
        self, replay: ReplayPlayback, position: tuple[int, int], dragged: bool = False
    ) -> int | None:
        """Return the frame under the pointer; None beside the bar, unless it is being dragged."""
        if self._track.width == 0 or not (dragged or self.place.collidepoint(position)):
            return None
        fraction = (position[0] - self._track.left) / self._track.width
        span = replay.span
        return replay.clamped(round(span.first + fraction * (span.last - span.first)))


def _fraction(replay: ReplayPlayback, index: int) -> float:
    span = replay.span
    return max(0.0, min(1.0, (index - span.first) / max(1, span.last - span.first)))


def state_words(replay: ReplayPlayback, fps: float) -> str:
    """Say where a replay is, and how it is played."""
    span = replay.span
    shown = replay.frame.index if replay.target is None else replay.target
    words = f"{clock_words((shown - span.first) / fps)} of {clock_words((span.last - span.first) / fps)}"
    if replay.target is not None and not replay.holds(replay.target):
        left = replay.target - replay.newest
        return f"{words}, making the walk up to there" + (f": {left / fps:.0f} s to go" if left > 0 else "")
    if replay.is_at_end:
        return f"{words}, the end"
    speed = "" if replay.speed == 1.0 else f", {replay.speed:g} x"
    return f"{words}{speed}" + ("" if replay.playing else f", held at frame {shown}")


def clock_words(seconds: float) -> str:
    """Return a length as minutes, seconds and tenths."""
    tenths = round(10 * max(0.0, seconds))
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
