"""The help: all keys over a darkened world."""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from client import theme
from client.theme import Theme

HELP: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Move",
        (
            ("W A S D", "walk, step aside"),
            ("Space E", "rise, and fly"),
            ("C Q", "sink, and fly"),
            ("Shift", "run"),
            ("F", "walk or fly"),
        ),
    ),
    (
        "Look",
        (
            ("Click", "take the mouse"),
            ("Mouse", "look around"),
            ("Arrows", "look around"),
            ("Z X V", "lean left, right, level"),
            ("F2", "instant look on or off"),
        ),
    ),
    (
        "World",
        (
            ("Backspace", "start again"),
            ("N", "next world"),
            ("Page Up Down", "other worlds"),
            ("P", "pause"),
            ("Esc", "free the mouse, menu"),
        ),
    ),
    (
        "Keep",
        (
            ("F10", "record"),
            ("F12", "screenshot"),
            ("F3", "figures"),
            ("F11", "full screen"),
            ("Ctrl Q", "quit"),
        ),
    ),
)
"""The help, by group: keys and what they do. Letters name positions on a US keyboard."""

PAD_HELP = (
    "Gamepad: sticks walk and look, triggers sink and rise, shoulders lean, A runs, Y levels, Start pauses."
)


def draw_help(target: pygame.Surface, look: Theme) -> None:
    """Draw all keys over a darkened world."""
    look.shade(target)
    size = 15
    columns = 2 if target.get_width() >= look.px(84) else 1
    rows = len(HELP[0][1])
    column_px = min(look.px(46), (target.get_width() - look.px(8)) // columns)
    row_px = look.px(3.5)
    group_px = look.px(4) + rows * row_px + look.px(2)
    width = columns * column_px + look.px(4)
    note = look.wrap(PAD_HELP, width - look.px(6), 13)
    note_px = len(note) * look.px(2.5)
    height = look.px(9) + group_px * (len(HELP) // columns) + note_px + look.px(3)
    left, top = (target.get_width() - width) // 2, max(0, (target.get_height() - height) // 2)
    target.blit(look.panel(width, height), (left, top))
    target.blit(look.text("Keys", 24, bold=True), (left + look.px(3), top + look.px(3)))
    for i, (title, entries) in enumerate(HELP):
        x = left + look.px(3) + (i % columns) * column_px
        y = top + look.px(9) + (i // columns) * group_px
        target.blit(look.text(title, size, bold=True, colour=theme.AMBER), (x, y))
        _draw_keys(target, look, x, y + look.px(4), row_px, entries)
    y = top + height - note_px - look.px(3)
    for line in note:
        target.blit(look.text(line, 13, colour=theme.PAPER_DIM), (left + look.px(3), y))
        y += look.px(2.5)


def _draw_keys(
    target: pygame.Surface, look: Theme, x: int, y: int, row_px: int, entries: Sequence[tuple[str, str]]
) -> None:
    for keys, meaning in entries:
        cap = look.text(keys, 14, bold=True)
        cap_size = cap.get_width() + look.px(1.5), look.px(2.75)
        target.blit(look.panel(*cap_size, theme.INK_RAISED, 255, 0.5), (x, y))
        target.blit(cap, (x + look.px(0.75), y + (cap_size[1] - cap.get_height()) // 2))
        label = look.text(meaning, 15)
        target.blit(label, (x + look.px(16), y + (cap_size[1] - label.get_height()) // 2))
        y += row_px
