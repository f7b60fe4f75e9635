"""The help: all keys over a darkened world, on as many pages as the window needs."""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from client.input.bindings import Bindings, HelpGroup, help_groups
from client.ui import theme
from client.ui.theme import Theme
from client.ui.toasts import STRIP

ROW = 3.25
"""Height of a line, grid units."""
COLUMN = 40
"""Width of a column, grid units."""
MAX_COLUMNS = 3


class HelpPanel:
    """The help, closed at first; asking again turns the page, and closes it after the last."""

    def __init__(self) -> None:
        self._page = 0
        self._num_pages = 1
        self.is_open = False
        self.place = pygame.Rect(0, 0, 0, 0)
        """Where it lies, as drawn last."""

    def turn(self) -> None:
        """Open the help, turn its page, or close it."""
        self._page = self._page + 1 if self.is_open else 0
        self.is_open = self._page < self._num_pages

    def close(self) -> None:
        self.is_open = False

    def draw(self, target: pygame.Surface, look: Theme, bindings: Bindings) -> None:
        """Draw the page over a darkened world; below it there is room for a message."""
        look.shade(target)
        width, height = target.get_size()
        num_columns = max(1, min(MAX_COLUMNS, (width - look.px(4)) // look.px(COLUMN)))
        room = pygame.Rect(0, 0, width, height - look.px(STRIP))
        num_rows = max(2, int((room.height - look.px(12)) / look.px(ROW)))
        pages = lay_out(help_groups(bindings), num_columns, num_rows)
        self._num_pages = len(pages)
        self._page = min(self._page, len(pages) - 1)
        more = f"Keys, {self._page + 1} of {len(pages)}" if len(pages) > 1 else "Keys"
        again = next((bindings.label(key) for key in bindings.keys["help"]), "the help's key")
        hint = f"{again} turns the page, Esc closes" if len(pages) > 1 else "Esc closes"
        self.place = _draw_page(target, look, room, (more, hint), pages[self._page])


def lay_out(groups: Sequence[HelpGroup], num_columns: int, num_rows: int) -> list[list[list[HelpGroup]]]:
    """Spread groups over pages of columns; a group takes a heading, its lines and a gap, and is cut where it must.

    Returns:
        Pages of columns of groups, the columns of a page of nearly equal height.
    """
    room = max(1, num_rows - 1)
    parts = [
        (title, lines[i : i + room]) for title, lines in groups for i in range(0, max(1, len(lines)), room)
    ]
    tallest = max(len(lines) for _, lines in parts) + 1
    for capacity in range(tallest, num_rows + 1):
        columns = _fill(parts, capacity)
        if len(columns) <= num_columns:
            return [columns]
    columns = _fill(parts, num_rows)
    return [columns[i : i + num_columns] for i in range(0, len(columns), num_columns)]


def _fill(groups: Sequence[HelpGroup], capacity: int) -> list[list[HelpGroup]]:
    columns: list[list[HelpGroup]] = []
    used = capacity
    for group in groups:
        rows = len(group[1]) + 1
        if used + 1 + rows > capacity:
            columns.append([])
            used = -1
        columns[-1].append(group)
        used += 1 + rows
    return columns


def _draw_page(
    target: pygame.Surface,
    look: Theme,
    room: pygame.Rect,
    heading: tuple[str, str],
    columns: Sequence[Sequence[HelpGroup]],
) -> pygame.Rect:
    """Draw a page in the middle of the window where that is above the room's bottom; return where it lies."""
    row_px = look.px(ROW)
    column_px = min(look.px(COLUMN), (target.get_width() - look.px(4)) // len(columns))
    rows = max(sum(len(lines) + 2 for _, lines in column) - 1 for column in columns)
    width, height = len(columns) * column_px + look.px(3), rows * row_px + look.px(11)
    left = (target.get_width() - width) // 2
    top = max(0, min((target.get_height() - height) // 2, room.bottom - height))
    target.blit(look.panel(width, height, alpha=244, radius=1.5), (left, top))
    title, hint = look.text(heading[0], 24, bold=True), look.text(heading[1], 13, colour=theme.PAPER_DIM)
    target.blit(title, (left + look.px(3), top + look.px(2.5)))
    if title.get_width() + hint.get_width() + look.px(8) <= width:
        target.blit(hint, (left + width - look.px(3) - hint.get_width(), top + look.px(3.75)))
    for i, column in enumerate(columns):
        x, y = left + look.px(3) + i * column_px, top + look.px(8)
        for title, lines in column:
            target.blit(look.text(title, 15, bold=True, colour=theme.AMBER), (x, y))
            _draw_lines(target, look, x, y + row_px, column_px - look.px(2), lines)
            y += (len(lines) + 2) * row_px
    return pygame.Rect(left, top, width, height)


def _draw_lines(
    target: pygame.Surface, look: Theme, x: int, y: int, width: int, lines: Sequence[tuple[str, str]]
) -> None:
    cap_px = look.px(15)
    for keys, meaning in lines:
        cap = look.text(look.clipped(keys, cap_px, 14, bold=True), 14, bold=True)
        cap_size = cap.get_width() + look.px(1.5), look.px(2.75)
        target.blit(look.panel(*cap_size, theme.INK_RAISED, 255, 0.5), (x, y))
        target.blit(cap, (x + look.px(0.75), y + (cap_size[1] - cap.get_height()) // 2))
        label = look.text(look.clipped(meaning, width - cap_px - look.px(2), 15), 15)
        target.blit(label, (x + cap_px + look.px(2), y + (cap_size[1] - label.get_height()) // 2))
        y += look.px(ROW)
