"""Passing messages: short sentences that come up where they cover nothing that is to be read, and go by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pygame

from client.ui import theme
from client.ui.theme import Theme

TOAST_S = 4.0
FADE_S = 0.4
STRIP = 9.0
"""Height that menus leave below them, grid units: room for a message of two lines."""
WISHED, LEAST = 80.0, 44.0
"""Widths of a message, grid units: of a long one, and of one that still shows the name of a kept file whole."""


class Toasts:
    """Short messages that come up and go by themselves."""

    def __init__(self) -> None:
        self._shown: list[tuple[float, str, bool]] = []

    def add(self, text: str, now_s: float, warning: bool = False) -> None:
        """Show a sentence from now on, longer if it is a warning; an equal one is not shown twice."""
        self._shown = [toast for toast in self._shown if toast[1] != text][-2:]
        self._shown.append((now_s + TOAST_S * (2 if warning else 1), text, warning))

    def replace(self, beginning: str, rest: str, now_s: float) -> None:
        """Show a sentence in the place of any that begins alike: a value that is being turned up and down."""
        self._shown = [toast for toast in self._shown if not toast[1].startswith(beginning)]
        self.add(beginning + rest, now_s)

    def clear(self) -> None:
        """Take all messages away."""
        self._shown.clear()

    def texts(self, now_s: float) -> list[str]:
        """Return the messages on the screen at this moment."""
        self._shown = [toast for toast in self._shown if toast[0] > now_s]
        return [text for _, text, _ in self._shown]

    def is_fading(self, now_s: float) -> bool:
        """Whether the picture changes by itself because of a message coming to its end."""
        return any(0.0 < end_s - now_s < FADE_S for end_s, _, _ in self._shown)

    def draw(self, target: pygame.Surface, look: Theme, now_s: float, area: pygame.Rect) -> None:
        """Draw the messages upward from the bottom of an area; older ones that do not fit are left out."""
        self.texts(now_s)
        bottom_px = area.bottom - look.px(1)
        for i, (end_s, text, warning) in enumerate(reversed(self._shown)):
            panel = self._panel(look, text, warning, area.width - look.px(2))
            bottom_px -= panel.get_height() + look.px(1)
            if i and bottom_px < area.top:
                return
            panel.set_alpha(round(255 * min(1.0, (end_s - now_s) / FADE_S)))
            # Where room is scarce the margins go first.
            y = min(max(area.top, bottom_px), max(0, area.bottom - panel.get_height()))
            target.blit(panel, (area.centerx - panel.get_width() // 2, y))

    def _panel(self, look: Theme, text: str, warning: bool, room_px: int) -> pygame.Surface:
        pad = look.px(1.5)
        lines = look.wrap(text, max(1, min(room_px - 3 * pad, look.px(WISHED))), 15)
        rendered = [look.text(line, 15) for line in lines] or [look.text(" ", 15)]
        width = max(line.get_width() for line in rendered) + 2 * pad + look.px(1)
        height = sum(line.get_height() for line in rendered) + 2 * look.px(1)
        panel = look.panel(width, height).copy()
        edge = theme.SIGNAL_RED if warning else theme.AMBER
        panel.fill(edge, (pad - look.px(0.5), look.px(1), max(2, look.px(0.375)), height - 2 * look.px(1)))
        y = look.px(1)
        for line in rendered:
            panel.blit(line, (pad + look.px(1), y))
            y += line.get_height()
        return panel


def message_area(window: pygame.Rect, taken: Sequence[pygame.Rect], unit_px: float) -> pygame.Rect:
    """Return the room that nothing takes: as low as there is a good one, and there as wide as is wished.

    Args:
        window: All there is.
        taken: What has to stay readable.
        unit_px: Size of a grid unit.
    """
    least = LEAST * unit_px, STRIP * unit_px

    def worth(area: pygame.Rect) -> tuple[float, ...]:
        width = min(float(area.width), WISHED * unit_px)
        if area.width >= least[0] and area.height >= least[1]:
            return 1.0, float(area.bottom), width, float(area.width), float(area.height)
        return 0.0, min(width, least[0]) * min(float(area.height), least[1])

    return max(_free(window, taken), key=worth, default=window)


def _free(window: pygame.Rect, taken: Sequence[pygame.Rect]) -> Iterator[pygame.Rect]:
    """Yield the rectangles between the edges of what is taken."""
    edges = {window.left, window.right, *(x for place in taken for x in (place.left, place.right))}
    across = sorted(x for x in edges if window.left <= x <= window.right)
    for i, left in enumerate(across):
        for right in across[i + 1 :]:
            column = pygame.Rect(left, window.top, right - left, window.height)
            top = window.top
            in_the_way = sorted((p for p in taken if column.colliderect(p)), key=lambda place: place.top)
            for place in [*in_the_way, pygame.Rect(left, window.bottom, 0, 0)]:
                if place.top > top:
                    yield pygame.Rect(left, top, right - left, place.top - top)
                top = max(top, place.bottom)


def draw_job(target: pygame.Surface, look: Theme, name: str, percent: int | None) -> pygame.Rect:
    """Draw a job's name and its bar, without a bar where it does not say how far it is; return where they lie."""
    text = (
        f"{name[:1].upper()}{name[1:]} ..."
        if percent is None
        else f"{name[:1].upper()}{name[1:]}, {percent} %"
    )
    label = look.text(text, 14)
    pad, bar_px = look.px(1.5), max(2, look.px(0.5))
    width = max(label.get_width(), look.px(16)) + 2 * pad
    height = label.get_height() + look.px(1) + (bar_px + look.px(0.75) if percent is not None else 0)
    place = pygame.Rect((target.get_width() - width) // 2, look.px(2), width, height)
    target.blit(look.panel(*place.size), place)
    target.blit(label, (place.left + pad, place.top + look.px(0.5)))
    if percent is not None:
        track = pygame.Rect(place.left + pad, place.bottom - bar_px - look.px(0.75), width - 2 * pad, bar_px)
        target.fill(theme.INK_RAISED, track)
        target.fill(theme.AMBER, (*track.topleft, track.width * percent // 100, bar_px))
    return place
