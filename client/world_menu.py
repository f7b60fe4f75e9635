"""The worlds as pictures, to be chosen from with arrows, stick or mouse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pygame
from numpy.typing import NDArray

from client import theme
from client.menu import frame_surface
from client.picture import crop_to, enlarge
from client.theme import Theme

CAPTION = 8.0
"""Height of the text under a world's picture, grid units: a title and two lines."""


@dataclass(frozen=True, eq=False)
class WorldCard:
    """A world as the start screen shows it."""

    name: str
    title: str
    note: str
    """What makes its pictures."""
    picture: NDArray[np.uint8] | None
    """First frame, [H, W, 3]; None where it cannot be read."""
    problem: str = ""
    """Why it cannot be played, in one sentence."""


class WorldMenu:
    """The start screen: choose with arrows, stick or mouse."""

    def __init__(self, cards: Sequence[WorldCard], footer: str, chosen: int = 0) -> None:
        self.cards = list(cards)
        self.footer = footer
        self.chosen = min(chosen, max(0, len(self.cards) - 1))
        self._columns = 1
        self._top_row = 0
        self._places: list[tuple[int, pygame.Rect]] = []
        self._pictures: dict[tuple[int, int, int], pygame.Surface] = {}

    def move(self, dx: int, dy: int) -> None:
        """Choose a neighbour; at an edge the choice stays."""
        if self.cards:
            wished = self.chosen + dx + dy * self._columns
            if 0 <= wished < len(self.cards):
                self.chosen = wished

    def at(self, position: tuple[int, int]) -> int | None:
        """Return the index of the card under the mouse, as drawn last."""
        for index, place in self._places:
            if place.collidepoint(position):
                return index
        return None

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        """Draw the screen; cards that do not fit are reached by moving to them."""
        target.fill(theme.INK)
        width, height = target.get_size()
        margin = look.px(5)
        title = look.text("Flaneur", 40, bold=True)
        target.blit(title, (margin, look.px(3)))
        subtitle = look.text(
            "Choose a world. The picture is its first frame; the rest is dreamed, softly.",
            18,
            colour=theme.PAPER_DIM,
        )
        baseline = look.px(3) + title.get_height() - subtitle.get_height() - look.px(0.75)
        if width > margin * 2 + title.get_width() + subtitle.get_width() + look.px(3):
            target.blit(subtitle, (margin + title.get_width() + look.px(3), baseline))
        room = pygame.Rect(margin, look.px(11), width - 2 * margin, height - look.px(17))
        self._lay_out(look, room)
        target.set_clip(room.inflate(look.px(2), look.px(1)))
        for index, place in self._places:
            self._draw_card(target, look, index, place)
        target.set_clip(None)
        footer = look.clipped(self.footer, width - 2 * margin, 14)
        target.blit(look.text(footer, 14, colour=theme.PAPER_DIM), (margin, height - look.px(4)))
        if not self.cards:
            message = "No worlds are installed; name a .world file on the command line."
            target.blit(look.text(look.clipped(message, room.width)), room.topleft)

    def _lay_out(self, look: Theme, room: pygame.Rect) -> None:
        """Put the cards on a grid that shows as many as can be read."""
        gap, caption = look.px(3), look.px(CAPTION)
        self._columns = max(1, min(3, room.width // look.px(38)))
        card_width = (room.width - gap * (self._columns - 1)) // self._columns
        rows = math.ceil(len(self.cards) / self._columns)
        card_height = round(card_width * 0.6) + caption
        if rows == 2 and 2 * card_height + gap > room.height >= look.px(50):
            card_height = (room.height - gap) // 2
        pitch = card_height + gap
        visible = max(1, (room.height + gap) // pitch)
        row = self.chosen // self._columns
        self._top_row = max(row - visible + 1, min(self._top_row, row))
        self._places = []
        for index in range(len(self.cards)):
            i, j = divmod(index, self._columns)
            top = room.top + (i - self._top_row) * pitch
            if room.top <= top < room.bottom:
                self._places.append(
                    (index, pygame.Rect(room.left + j * (card_width + gap), top, card_width, card_height))
                )

    def _draw_card(self, target: pygame.Surface, look: Theme, index: int, place: pygame.Rect) -> None:
        card = self.cards[index]
        is_chosen = index == self.chosen
        if is_chosen:
            rim = place.inflate(look.px(1), look.px(1))
            target.blit(look.panel(*rim.size, theme.AMBER, 255, 1.5), rim)
        target.blit(look.panel(*place.size, theme.INK_RAISED, 255), place)
        picture_area = pygame.Rect(*place.topleft, place.width, place.height - look.px(CAPTION))
        target.blit(self._picture(look, index, picture_area.size), picture_area)
        text_left, text_width = place.left + look.px(2), place.width - look.px(4)
        title = look.text(look.clipped(card.title, text_width, 17, bold=True), 17, bold=True)
        target.blit(title, (text_left, picture_area.bottom + look.px(0.75)))
        colour = theme.SIGNAL_RED if card.problem else theme.PAPER_DIM
        for i, line in enumerate(two_lines(look, card.problem or card.note, text_width)):
            top = picture_area.bottom + look.px(3.25 + 2.0 * i)
            target.blit(look.text(line, 13, colour=colour), (text_left, top))

    def _picture(self, look: Theme, index: int, size: tuple[int, int]) -> pygame.Surface:
        key = (index, *size)
        if key not in self._pictures:
            # Kept for one layout: a window being dragged would leave one for each size on its way.
            self._pictures = {k: v for k, v in self._pictures.items() if k[1:] == size}
            self._pictures[key] = self._make_picture(look, self.cards[index].picture, size)
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


def two_lines(look: Theme, text: str, width_px: int) -> list[str]:
    """Break a note into at most two lines, with dots where it goes on."""
    lines = look.wrap(text, width_px, 13)
    if len(lines) > 2:
        return [lines[0], look.clipped(f"{lines[1]} {lines[2]}", width_px, 13)]
    return lines
