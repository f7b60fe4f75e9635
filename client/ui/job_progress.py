"""What is being written, and how far it is, at the top of whatever screen is on."""

from __future__ import annotations

import pygame

from client.ui import theme
from client.ui.theme import Theme


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
