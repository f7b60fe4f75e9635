"""What is held on keys and sticks, drawn at the lower left."""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from client.input.bindings import Bindings
from client.input.controls import Intent
from client.ui import theme
from client.ui.theme import Theme

_SIZE = 12
AXES = (
    ("forward", "back", "ahead"),
    ("strafe", "left", "right"),
    ("rise", "sink", "rise"),
    ("yaw", "look left", "look right"),
    ("pitch", "look down", "look up"),
    ("roll", "lean left", "lean right"),
)
"""The six axes of an intent: name, its negative and its positive side."""


def draw_held(
    target: pygame.Surface,
    look: Theme,
    intent: Intent,
    held: Sequence[int],
    bindings: Bindings,
    bottom_px: int,
) -> list[pygame.Rect]:
    """Draw what is asked for at the lower left, the six axes and the keys that are held.

    Returns:
        Where it lies; nothing where there is no room for it.
    """
    pad, bar_px = look.px(1.5), look.px(12)
    row_px = max(look.px(2.25), look.font(_SIZE).get_height())
    side_px = max(look.font(_SIZE).size(side)[0] for _, *sides in AXES for side in sides) + look.px(0.75)
    width = 2 * pad + 2 * side_px + bar_px
    height = 2 * pad + (len(AXES) + 1) * row_px + look.px(1)
    if height > bottom_px or width + look.px(4) > target.get_width():
        return []
    left, top = look.px(2), bottom_px - height
    target.blit(look.panel(width, height), (left, top))
    y = top + pad
    for name, *sides in AXES:
        bar = pygame.Rect(left + pad + side_px, y, bar_px, row_px)
        _draw_axis(target, look, bar, getattr(intent, name), sides)
        y += row_px
    names = [bindings.label(scancode) for scancode in held]
    names += ["running"] * intent.run + ["levelling"] * intent.level
    text = look.clipped("  ".join(names) or "no key held", width - 2 * pad, 13)
    colour = theme.AMBER if names else theme.PAPER_DIM
    target.blit(look.text(text, 13, colour=colour), (left + pad, y + look.px(1)))
    return [pygame.Rect(left, top, width, height)]


def _draw_axis(
    target: pygame.Surface, look: Theme, area: pygame.Rect, value: float, sides: Sequence[str]
) -> None:
    """Draw one axis as a bar from the middle, with its two sides named beside it."""
    bar = pygame.Rect(area.left, area.centery - look.px(0.5), area.width, look.px(1))
    target.fill(theme.INK_RAISED, bar)
    length = round(abs(value) * bar.width / 2)
    start = bar.centerx if value > 0 else bar.centerx - length
    target.fill(theme.AMBER, (start, bar.top, length, bar.height))
    target.fill(theme.PAPER_DIM, (bar.centerx, bar.top, 1, bar.height))
    low = look.text(sides[0], _SIZE, colour=theme.PAPER if value < 0 else theme.PAPER_DIM)
    high = look.text(sides[1], _SIZE, colour=theme.PAPER if value > 0 else theme.PAPER_DIM)
    target.blit(low, (bar.left - look.px(0.75) - low.get_width(), area.top))
    target.blit(high, (bar.right + look.px(0.75), area.top))
