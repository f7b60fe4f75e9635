"""Where the pictures of worlds lie: a grid of rows, those of the player's own below a heading, scrolled by rows."""

from __future__ import annotations

import pygame

from client.ui import theme
from client.ui.theme import Theme

CAPTION = 6.5
"""Height of the text under a world's picture, grid units: its title and its model."""
_HEADING = 3.5
"""Height of the heading above the player's own worlds, grid units."""


class WorldGrid:
    """The grid as laid out last."""

    def __init__(self, num_shipped: int, num_worlds: int) -> None:
        """Begin with one column; worlds from `num_shipped` on are the player's own."""
        self._num_shipped = num_shipped
        self._num_worlds = num_worlds
        self._rows = self._rows_of(1)
        self._top_row = 0
        self.num_visible = 1
        """Rows that are seen whole."""
        self.places: list[tuple[int, pygame.Rect]] = []
        """Index and place of each world that is seen."""
        self.heading: tuple[int, int] | None = None
        """Left top of the heading above the player's own worlds, where it is seen."""

    def _rows_of(self, columns: int) -> list[range]:
        """Return the worlds of each row; the player's own begin a new one."""
        parts = (range(self._num_shipped), range(self._num_shipped, self._num_worlds))
        return [part[i : i + columns] for part in parts for i in range(0, len(part), columns)]

    def _row_of(self, index: int) -> int:
        return next(i for i, row in enumerate(self._rows) if index in row)

    def neighbour(self, index: int, dx: int, dy: int) -> int | None:
        """Return the world beside one, or above or below it; None at an edge."""
        if dx:
            return index + dx if 0 <= index + dx < self._num_worlds else None
        number = self._row_of(index)
        if not 0 <= number + dy < len(self._rows):
            return None
        row = self._rows[number + dy]
        return row[min(index - self._rows[number].start, len(row) - 1)]

    def lay_out(self, look: Theme, room: pygame.Rect, chosen: int) -> None:
        """Put the worlds on rows that show as many as can be read, and the chosen one among them."""
        gap, caption = look.px(3), look.px(CAPTION)
        most = max(1, min(3, room.width // look.px(38)))
        # As few columns as still show every world, for the largest pictures.
        columns = next((n for n in range(1, most) if self._fits(look, room, n)), most)
        self._rows = self._rows_of(columns)
        width = (room.width - gap * (columns - 1)) // columns
        height = min(round(width * 0.6) + caption, max(room.height, 2 * caption))
        between = gap + (look.px(_HEADING) if self._has_own else 0)
        if len(self._rows) >= 2 and 2 * height + between > room.height >= look.px(44):
            height = (room.height - between) // 2
        tops = self._tops(look, height + gap)
        row = self._row_of(chosen) if self._num_worlds else 0
        self._top_row = min(self._top_row, row)
        while self._top_row < row and tops[row] + height - self._first_px(tops, look) > room.height:
            self._top_row += 1
        shift = room.top - self._first_px(tops, look)
        self.places = []
        self.heading = None
        for number, (indices, top) in enumerate(zip(self._rows, tops, strict=True)):
            y = top + shift
            if number < self._top_row or y >= room.bottom:
                continue
            if self._begins_own(number):
                self.heading = room.left, y - look.px(_HEADING)
            for j, index in enumerate(indices):
                place = pygame.Rect(room.left + j * (width + gap), y, width, height)
                self.places.append((index, place))
        self.num_visible = sum(
            room.top <= top + shift <= room.bottom - height for top in tops[self._top_row :]
        )

    @property
    def _has_own(self) -> bool:
        return self._num_shipped < self._num_worlds

    def _begins_own(self, number: int) -> bool:
        return self._rows[number].start == self._num_shipped

    def _tops(self, look: Theme, pitch: int) -> list[int]:
        """Return the top of each row in pixels, counted from that of the first; headings push rows down."""
        tops, y = [], 0
        for number in range(len(self._rows)):
            y += look.px(_HEADING) if self._begins_own(number) else 0
            tops.append(y)
            y += pitch
        return tops

    def _first_px(self, tops: list[int], look: Theme) -> int:
        """Return what lies at the room's top: the first row that is seen, with its heading."""
        if not tops:
            return 0
        return tops[self._top_row] - (look.px(_HEADING) if self._begins_own(self._top_row) else 0)

    def _fits(self, look: Theme, room: pygame.Rect, columns: int) -> bool:
        gap = look.px(3)
        width = (room.width - gap * (columns - 1)) // columns
        headings = look.px(_HEADING) if self._has_own else 0
        rows = len(self._rows_of(columns))
        return rows * (round(width * 0.6) + look.px(CAPTION) + gap) - gap + headings <= room.height

    def draw_bar(self, target: pygame.Surface, look: Theme, room: pygame.Rect) -> None:
        """Draw a scrollbar at the right where there are more rows than are seen."""
        if self.num_visible >= len(self._rows):
            return
        bar_px = max(2, look.px(0.5))
        track = pygame.Rect(room.right + look.px(1), room.top, bar_px, room.height)
        target.fill(theme.INK_RAISED, track)
        top = track.top + track.height * self._top_row // len(self._rows)
        height = max(2, track.height * max(1, self.num_visible) // len(self._rows))
        target.fill(theme.PAPER_DIM, (track.left, top, bar_px, height))
