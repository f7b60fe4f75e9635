"""The worlds as pictures, and a row of buttons below them; chosen with arrows, stick or mouse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pygame
from numpy.typing import NDArray

from client.setup.catalog import WorldChoice
from client.ui import theme
from client.ui.menu import Choice, frame_surface
from client.ui.picture import crop_to, enlarge
from client.ui.theme import Theme

CAPTION = 6.5
"""Height of the text under a world's picture, grid units: its title and its model."""
SUBTITLE = "Choose a world. The picture is its first frame; the model generates the rest."

_LINE = 2.5
"""Height of a line of the note, grid units."""
_MAX_LINES = 4
HINT = "Arrows or stick choose, Enter or A walks, Esc or B quits"


class WorldMenu:
    """The start screen: the chosen world is described below the pictures."""

    def __init__(self, worlds: Sequence[WorldChoice], buttons: Sequence[Choice], chosen: int = 0) -> None:
        self.worlds = list(worlds)
        self.buttons = list(buttons)
        self.chosen = min(chosen, max(0, len(self.worlds) - 1))
        self.button: int | None = None if self.worlds else 0
        """Index of the button that is chosen instead of a world."""
        self._columns = 1
        self._top_row = 0
        self._places: list[tuple[int, pygame.Rect]] = []
        self._button_places: list[pygame.Rect] = []
        self.taken: list[pygame.Rect] = []
        """What no message may cover, as drawn last: all but the heading's right."""
        self._pictures: dict[tuple[int, int, int], pygame.Surface] = {}

    @property
    def key(self) -> str | None:
        """Name of the chosen button, None while a world is chosen."""
        return None if self.button is None else self.buttons[self.button].key

    def move(self, dx: int, dy: int) -> None:
        """Choose a neighbour; at an edge the choice stays. The buttons are below the last worlds."""
        if self.button is not None:
            self.button = max(0, min(len(self.buttons) - 1, self.button + dx))
            if dy < 0 and self.worlds:
                self.button = None
            return
        wished = self.chosen + dx + dy * self._columns
        if 0 <= wished < len(self.worlds):
            self.chosen = wished
        elif dy > 0:
            last_row = (len(self.worlds) - 1) // self._columns
            on_last_row = self.chosen // self._columns == last_row
            self.chosen, self.button = (self.chosen, 0) if on_last_row else (len(self.worlds) - 1, None)

    def point(self, position: tuple[int, int]) -> bool:
        """Choose what is under the mouse, as drawn last; say whether anything is."""
        for index, place in self._places:
            if place.collidepoint(position):
                self.chosen, self.button = index, None
                return True
        for index, place in enumerate(self._button_places):
            if place.collidepoint(position):
                self.button = index
                return True
        return False

    def draw(self, target: pygame.Surface, look: Theme, with_subtitle: bool = True) -> None:
        """Draw the screen; worlds that do not fit are reached by moving to them. Messages may take the subtitle's place."""
        target.fill(theme.INK)
        width, height = target.get_size()
        margin = min(look.px(5), width // 20)
        head_px = self._draw_heading(target, look, margin, with_subtitle)
        foot_px = look.px(8) + look.px(_LINE) * self._num_note_lines(look, width - 2 * margin)
        room = pygame.Rect(margin, head_px, width - 2 * margin, max(1, height - head_px - foot_px))
        self._lay_out(look, room)
        target.set_clip(room.inflate(look.px(2), look.px(1)))
        for index, place in self._places:
            self._draw_world(target, look, index, place)
        target.set_clip(None)
        note = pygame.Rect(margin, room.bottom + look.px(1.5), room.width, foot_px - look.px(8))
        self._draw_note(target, look, note)
        self._draw_buttons(target, look, margin, height - look.px(6))

    def _num_note_lines(self, look: Theme, width: int) -> int:
        """Return how many lines the longest note takes, so that nothing moves while one chooses."""
        notes = [world.problem or world.note for world in self.worlds] + [
            button.note for button in self.buttons
        ]
        return min(_MAX_LINES, max(1, *(len(look.wrap(note, width, 15)) for note in notes)))

    def _draw_heading(self, target: pygame.Surface, look: Theme, margin: int, with_subtitle: bool) -> int:
        """Draw the name and what to do; return the height that is taken."""
        width = target.get_width()
        title = look.text("Flaneur", 40, bold=True)
        target.blit(title, (margin, look.px(3)))
        head_px = look.px(11)
        self.taken = [
            pygame.Rect(0, 0, margin + title.get_width(), head_px),
            pygame.Rect(0, head_px, width, target.get_height()),
        ]
        subtitle = look.text(SUBTITLE, 18, colour=theme.PAPER_DIM)
        left = margin + title.get_width() + look.px(3)
        if with_subtitle and left + subtitle.get_width() + margin <= width:
            baseline = look.px(3) + title.get_height() - subtitle.get_height() - look.px(0.75)
            target.blit(subtitle, (left, baseline))
        return head_px

    def _lay_out(self, look: Theme, room: pygame.Rect) -> None:
        """Put the worlds on a grid that shows as many as can be read."""
        gap, caption = look.px(3), look.px(CAPTION)
        most = max(1, min(3, room.width // look.px(38)))
        # As few columns as still show every world, for the largest pictures.
        self._columns = next((n for n in range(1, most) if self._fits(look, room, n)), most)
        card_width = (room.width - gap * (self._columns - 1)) // self._columns
        rows = math.ceil(len(self.worlds) / self._columns)
        card_height = min(round(card_width * 0.6) + caption, max(room.height, 2 * caption))
        if rows >= 2 and 2 * card_height + gap > room.height >= look.px(44):
            card_height = (room.height - gap) // 2
        pitch = card_height + gap
        visible = max(1, (room.height + gap) // pitch)
        row = self.chosen // self._columns
        self._top_row = max(row - visible + 1, min(self._top_row, row))
        self._places = []
        for index in range(len(self.worlds)):
            i, j = divmod(index, self._columns)
            top = room.top + (i - self._top_row) * pitch
            if room.top <= top < room.bottom:
                self._places.append(
                    (index, pygame.Rect(room.left + j * (card_width + gap), top, card_width, card_height))
                )

    def _fits(self, look: Theme, room: pygame.Rect, columns: int) -> bool:
        gap = look.px(3)
        width = (room.width - gap * (columns - 1)) // columns
        rows = math.ceil(len(self.worlds) / columns)
        return rows * (round(width * 0.6) + look.px(CAPTION) + gap) - gap <= room.height

    def _draw_world(self, target: pygame.Surface, look: Theme, index: int, place: pygame.Rect) -> None:
        world = self.worlds[index]
        if index == self.chosen:
            rim = place.inflate(look.px(1), look.px(1))
            colour = theme.AMBER if self.button is None else theme.PAPER_DIM
            target.blit(look.panel(*rim.size, colour, 255, 1.5), rim)
        target.blit(look.panel(*place.size, theme.INK_RAISED, 255), place)
        area = pygame.Rect(*place.topleft, place.width, max(1, place.height - look.px(CAPTION)))
        target.blit(self._picture(look, index, area.size), area)
        left, width = place.left + look.px(2), place.width - look.px(4)
        title = look.text(look.clipped(world.title, width, 17, bold=True), 17, bold=True)
        target.blit(title, (left, area.bottom + look.px(0.75)))
        colour = theme.SIGNAL_RED if world.problem else theme.PAPER_DIM
        model = look.clipped("cannot be opened" if world.problem else world.model, width, 13)
        target.blit(look.text(model, 13, colour=colour), (left, area.bottom + look.px(3.5)))

    def _draw_note(self, target: pygame.Surface, look: Theme, area: pygame.Rect) -> None:
        """Say all there is to say of the chosen world, or of the chosen button."""
        if not self.worlds:
            note, colour = "No worlds are installed; name a .world file on the command line.", theme.PAPER
        elif self.button is not None and self.buttons[self.button].note:
            note, colour = self.buttons[self.button].note, theme.PAPER
        else:
            world = self.worlds[self.chosen]
            note = world.problem or world.note
            colour = theme.SIGNAL_RED if world.problem else theme.PAPER
        line_px = look.px(_LINE)
        for i, line in enumerate(look.wrap(note, area.width, 15)[: max(1, area.height // line_px)]):
            target.blit(look.text(line, 15, colour=colour), (area.left, area.top + i * line_px))

    def _draw_buttons(self, target: pygame.Surface, look: Theme, left: int, top: int) -> None:
        self._button_places = []
        height, pad = look.px(4), look.px(1.5)
        right = target.get_width() - left
        for index, button in enumerate(self.buttons):
            text = f"{button.label}: {button.value}" if button.value else button.label
            is_chosen = index == self.button
            text = look.clipped(text, max(1, right - left - 2 * pad), 15, bold=is_chosen)
            label = look.text(text, 15, bold=is_chosen, colour=theme.INK if is_chosen else theme.PAPER)
            place = pygame.Rect(left, top, label.get_width() + 2 * pad, height)
            colour = theme.AMBER if is_chosen else theme.INK_RAISED
            target.blit(look.panel(*place.size, colour, 255), place)
            target.blit(label, (place.left + pad, place.centery - label.get_height() // 2))
            self._button_places.append(place)
            left = place.right + look.px(1)
        num_hidden = len(self.worlds) - len(self._places)
        more = f"{num_hidden} more worlds. " if num_hidden > 1 else "1 more world. " if num_hidden else ""
        hint = look.text(more + HINT, 14, colour=theme.PAPER_DIM)
        if left + look.px(2) + hint.get_width() <= right:
            target.blit(hint, (right - hint.get_width(), top + (height - hint.get_height()) // 2))

    def _picture(self, look: Theme, index: int, size: tuple[int, int]) -> pygame.Surface:
        key = (index, *size)
        if key not in self._pictures:
            # Kept for one layout: a window being dragged would leave one for each size on its way.
            self._pictures = {k: v for k, v in self._pictures.items() if k[1:] == size}
            self._pictures[key] = self._make_picture(look, self.worlds[index].picture, size)
        return self._pictures[key]

    def _make_picture(
        self, look: Theme, picture: NDArray[np.uint8] | None, size: tuple[int, int]
    ) -> pygame.Surface:
        width, height = max(1, size[0]), max(1, size[1])
        if picture is None:
            return look.panel(width, height, theme.INK, 255)
        filled = crop_to(picture, width / height)
        surface = frame_surface(enlarge(filled, width, height))
        return theme.round_picture(surface, look.px(1))
