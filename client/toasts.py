"""Passing messages: short sentences that come up at the bottom and go by themselves."""

from __future__ import annotations

import pygame

from client import theme
from client.theme import Theme

TOAST_S = 4.0
FADE_S = 0.4


class Toasts:
    """Short messages that come up at the bottom and go by themselves."""

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

    def draw(self, target: pygame.Surface, look: Theme, now_s: float, bottom_px: int) -> None:
        """Draw the messages upward from a height."""
        self.texts(now_s)
        for end_s, text, warning in reversed(self._shown):
            card = self._card(look, text, warning, target.get_width() - look.px(4))
            card.set_alpha(round(255 * min(1.0, (end_s - now_s) / FADE_S)))
            bottom_px -= card.get_height() + look.px(1)
            target.blit(card, ((target.get_width() - card.get_width()) // 2, bottom_px))

    def _card(self, look: Theme, text: str, warning: bool, room_px: int) -> pygame.Surface:
        pad = look.px(1.5)
        lines = look.wrap(text, max(1, min(room_px - 3 * pad, look.px(80))), 15)
        rendered = [look.text(line, 15) for line in lines] or [look.text(" ", 15)]
        width = max(line.get_width() for line in rendered) + 2 * pad + look.px(1)
        height = sum(line.get_height() for line in rendered) + 2 * look.px(1)
        card = look.panel(width, height).copy()
        edge = theme.SIGNAL_RED if warning else theme.AMBER
        card.fill(edge, (pad - look.px(0.5), look.px(1), max(2, look.px(0.375)), height - 2 * look.px(1)))
        y = look.px(1)
        for line in rendered:
            card.blit(line, (pad + look.px(1), y))
            y += line.get_height()
        return card
