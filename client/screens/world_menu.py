"""The worlds as pictures, and a row of buttons below them; chosen with arrows, stick or mouse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pygame
from numpy.typing import NDArray

from client.input.actions import Step
from client.screens.world_grid import CAPTION, WorldGrid
from client.setup.catalog import WorldChoice
from client.ui import theme
from client.ui.menu import Choice, frame_surface
from client.ui.picture import crop_to, enlarge
from client.ui.theme import Theme

SUBTITLE = "Choose a world. The picture is its first frame; the model generates the rest."

_LINE = 2.5
"""Height of a line of the note, grid units."""
_MAX_LINES = 4
OWN_HEADING = "Your own worlds"
_OWN_HINT = "F2 or Y renames it, Delete or X deletes it."
HINT = "Arrows or stick choose, Enter or A walks, Esc or B quits"


class WorldMenu:
    """The start screen: the chosen world is described below the pictures."""

    def __init__(self, worlds: Sequence[WorldChoice], buttons: Sequence[Choice], chosen: int = 0) -> None:
        """Show worlds; those of the player's own come last, below a heading."""
        self.worlds = list(worlds)
        self.buttons = list(buttons)
        self.chosen = min(chosen, max(0, len(self.worlds) - 1))
        self.button: int | None = None if self.worlds else 0
        """Index of the button that is chosen instead of a world."""
        self._num_shipped = sum(not world.own for world in self.worlds)
        self._grid = WorldGrid(self._num_shipped, len(self.worlds))
        self._places: list[tuple[int, pygame.Rect]] = []
        self._button_places: list[pygame.Rect] = []
        self.taken: list[pygame.Rect] = []
        """What no message may cover, as drawn last: all but the heading's right."""
        self._pictures: dict[tuple[int, int, int], pygame.Surface] = {}

    @property
    def key(self) -> str | None:
        """Name of the chosen button, None while a world is chosen."""
        return None if self.button is None else self.buttons[self.button].key

    @property
    def world(self) -> WorldChoice | None:
        """The world that is chosen; None while a button is, or where there is none."""
        return self.worlds[self.chosen] if self.worlds and self.button is None else None

    def move(self, dx: int, dy: int) -> None:
        """Choose a neighbour; at an edge the choice stays. The buttons are below the last worlds."""
        if self.button is not None:
            self.button = max(0, min(len(self.buttons) - 1, self.button + dx))
            if dy < 0 and self.worlds:
                self.button = None
        elif (wished := self._grid.neighbour(self.chosen, dx, dy)) is not None:
            self.chosen = wished
        elif dy > 0:
            self.button = 0

    def jump(self, step: Step) -> bool:
        """Choose the first or the last, one a page away, or the next thing in turn; say whether the step is one of these."""
        if step in (Step.FIRST, Step.LAST):
            if self.button is None:
                self.chosen = 0 if step is Step.FIRST else max(0, len(self.worlds) - 1)
            else:
                self.button = 0 if step is Step.FIRST else len(self.buttons) - 1
        elif step in (Step.PAGE_UP, Step.PAGE_DOWN):
            direction = -1 if step is Step.PAGE_UP else 1
            for _ in range(max(1, self._grid.num_visible)):
                wished = self._grid.neighbour(self.chosen, 0, direction)
                self.chosen = self.chosen if wished is None else wished
        elif step in (Step.NEXT, Step.PREVIOUS):
            stops = [*([None] if self.worlds else []), *range(len(self.buttons))]
            self.button = stops[(stops.index(self.button) + (1 if step is Step.NEXT else -1)) % len(stops)]
        else:
            return False
        return True

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
        self._grid.lay_out(look, room, self.chosen)
        self._places = self._grid.places
        target.set_clip(room.inflate(look.px(2), look.px(1)))
        if (heading := self._grid.heading) is not None:
            target.blit(look.text(OWN_HEADING, 16, bold=True, colour=theme.AMBER), heading)
        for index, place in self._places:
            self._draw_world(target, look, index, place)
        target.set_clip(None)
        self._grid.draw_bar(target, look, room)
        note = pygame.Rect(margin, room.bottom + look.px(1.5), room.width, foot_px - look.px(8))
        self._draw_note(target, look, note)
        self._draw_buttons(target, look, margin, height - look.px(6))

    def _num_note_lines(self, look: Theme, width: int) -> int:
        """Return how many lines the longest note takes, so that nothing moves while one chooses."""
        notes = [_note(world) for world in self.worlds] + [button.note for button in self.buttons]
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
            note = _note(world)
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


def _note(world: WorldChoice) -> str:
    """Return all there is to say of a world."""
    return " ".join(part for part in (world.problem or world.note, _OWN_HINT if world.own else "") if part)
