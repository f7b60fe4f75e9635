"""A menu: a title, some sentences, a few lines to pick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pygame
from numpy.typing import NDArray

from client.input.actions import Step
from client.ui import theme
from client.ui.picture import enlarge
from client.ui.theme import Theme
from client.ui.toasts import STRIP

ROW = 4.5
"""Height of a line, grid units."""
PICTURE_ROW = 9.0
"""Of a line where lines have pictures."""


def frame_surface(frame: NDArray[np.uint8]) -> pygame.Surface:
    """Return a frame, [H, W, 3] RGB, as a picture to draw."""
    height, width = frame.shape[:2]
    return pygame.image.frombuffer(np.ascontiguousarray(frame).data, (width, height), "RGB")


def picture_surface(picture: NDArray[np.uint8]) -> pygame.Surface:
    """Return a picture of the walk, BGRA [H, W, 4], as a picture to draw; it must be opaque."""
    height, width = picture.shape[:2]
    surface = pygame.image.frombuffer(np.ascontiguousarray(picture).data, (width, height), "BGRA")
    # Without blending, drawing it is a plain copy.
    surface.set_alpha(None)
    return surface


@dataclass(frozen=True)
class Choice:
    """One line of a menu."""

    key: str
    """Names it to the program."""
    label: str
    value: str = ""
    """A setting's present value, changed with left and right."""
    fixed: bool = False
    """Whether left and right leave the value alone."""
    warning: bool = False
    """Whether something is wrong with it."""
    note: str = ""
    """What there is to know of it, shown while it is chosen."""
    picture: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)
    """Shown small before the label, [H, W, 3] RGB."""
    deletable: bool = False
    """Whether the key that deletes asks for the line's deletion."""


class Menu:
    """A menu in the middle of the window; lines that do not fit are reached by moving to them."""

    def __init__(
        self, title: str, choices: Sequence[Choice], text: str = "", warning: bool = False, chosen: int = 0
    ) -> None:
        self.title = title
        self.text = text
        self.choices = list(choices)
        self.chosen = chosen
        self._warning = warning
        self._notes = [choice.note for choice in choices if choice.note]
        self._row = PICTURE_ROW if any(choice.picture is not None for choice in choices) else ROW
        self._pictures: dict[tuple[int, int], pygame.Surface] = {}
        self._visible = 1
        self._top = 0
        self._places: list[tuple[int, pygame.Rect]] = []
        self.place = pygame.Rect(0, 0, 0, 0)
        """Where it lies, as drawn last."""

    @property
    def key(self) -> str:
        """Name of the chosen line."""
        return self.choices[self.chosen].key

    def move(self, dy: int) -> None:
        """Choose the next line, around the ends."""
        self.chosen = (self.chosen + dy) % len(self.choices)

    def jump(self, step: Step) -> bool:
        """Choose the first or last line, or one a page away; say whether the step is one of these."""
        last = len(self.choices) - 1
        page = max(1, self._visible - 1)
        aims = {
            Step.FIRST: 0,
            Step.LAST: last,
            Step.PAGE_UP: max(0, self.chosen - page),
            Step.PAGE_DOWN: min(last, self.chosen + page),
        }
        self.chosen = aims.get(step, self.chosen)
        return step in aims

    def at(self, position: tuple[int, int]) -> int | None:
        """Return the index of the line under the mouse, as drawn last."""
        for index, place in self._places:
            if place.collidepoint(position):
                return index
        return None

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        """Draw the menu over a darkened picture; below it there is room for a message."""
        look.shade(target)
        pad, row_px, edge = look.px(3), look.px(self._row), look.px(1)
        width = min(look.px(64), target.get_width() - 2 * edge)
        lines = look.wrap(self.choices[self.chosen].note or self.text, width - 2 * pad, 16)
        # The longest note has room, so that the lines below stay where they are.
        notes = [look.wrap(text, width - 2 * pad, 16) for text in (self.text, *self._notes)]
        num_lines, line_px = max(map(len, notes)), look.px(3)
        head_px = pad + look.px(5) + (num_lines * line_px + look.px(1.5) if num_lines else 0)
        room = target.get_height() - edge - look.px(STRIP)
        visible = max(1, min(len(self.choices), (room - head_px - pad) // row_px))
        self._visible = visible
        self._top = max(self.chosen - visible + 1, min(self._top, self.chosen, len(self.choices) - visible))
        height = head_px + row_px * visible + look.px(2)
        left = (target.get_width() - width) // 2
        top = max(edge, min((target.get_height() - height) // 2, room + edge - height))
        # A rim, since what is behind may be as dark as the menu.
        rim = max(1, look.px(0.25))
        self.place = pygame.Rect(left - rim, top - rim, width + 2 * rim, height + 2 * rim)
        target.blit(look.panel(*self.place.size, theme.INK_RAISED, 255, 1.75), self.place)
        target.blit(look.panel(width, height, alpha=255, radius=1.5), (left, top))
        title = look.clipped(self.title, width - 2 * pad, 26, bold=True)
        target.blit(look.text(title, 26, bold=True), (left + pad, top + look.px(2)))
        if self._warning:
            mark = (left + pad, top + look.px(6.25), look.px(4), max(2, look.px(0.375)))
            target.fill(theme.SIGNAL_RED, mark)
        for i, line in enumerate(lines):
            place = (left + pad, top + pad + look.px(5) + i * line_px)
            target.blit(look.text(line, 16, colour=theme.PAPER if self._warning else theme.PAPER_DIM), place)
        area = pygame.Rect(left + edge, top + head_px, width - 2 * edge, row_px * visible)
        self._draw_choices(target, look, area, visible)

    def _draw_choices(self, target: pygame.Surface, look: Theme, area: pygame.Rect, visible: int) -> None:
        bar_px = look.px(0.5) if visible < len(self.choices) else 0
        row_px = area.height // visible
        self._places = []
        for i in range(visible):
            place = pygame.Rect(area.left, area.top + i * row_px, area.width - 2 * bar_px, row_px)
            self._places.append((self._top + i, place))
            self._draw_choice(target, look, self._top + i, place)
        if bar_px:
            track = pygame.Rect(area.right - bar_px, area.top, bar_px, area.height)
            target.fill(theme.INK_RAISED, track)
            top = track.top + track.height * self._top // len(self.choices)
            height = max(1, track.height * visible // len(self.choices))
            target.fill(theme.PAPER_DIM, (track.left, top, bar_px, height))

    def _draw_choice(self, target: pygame.Surface, look: Theme, index: int, place: pygame.Rect) -> None:
        choice, is_chosen = self.choices[index], index == self.chosen
        if is_chosen:
            target.blit(look.panel(*place.size, theme.AMBER, 255), place)
        colour = theme.INK if is_chosen else theme.SIGNAL_RED if choice.warning else theme.PAPER
        pad = look.px(2)
        turns = is_chosen and not choice.fixed
        value = f"< {choice.value} >" if choice.value and turns else choice.value
        value = look.clipped(value, place.width // 2, 17)
        if choice.picture is not None:
            self._draw_with_picture(target, look, index, place, colour)
            return
        left = place.left + pad
        room = place.right - pad - left - (look.font(17).size(value)[0] + pad if value else 0)
        label = look.text(look.clipped(choice.label, room, 17, is_chosen), 17, is_chosen, colour)
        middle = place.centery - label.get_height() // 2
        target.blit(label, (left, middle))
        if value:
            shown = look.text(value, 17, colour=colour)
            target.blit(shown, (place.right - pad - shown.get_width(), middle))

    def _draw_with_picture(
        self, target: pygame.Surface, look: Theme, index: int, place: pygame.Rect, colour: theme.Colour
    ) -> None:
        """Draw a line's picture, and beside it the label above the value."""
        choice, is_chosen, pad = self.choices[index], index == self.chosen, look.px(2)
        picture = self._picture(index, place.height - look.px(1))
        target.blit(picture, (place.left + look.px(0.75), place.top + look.px(0.5)))
        left = place.left + pad + picture.get_width()
        room = place.right - pad - left
        label = look.text(look.clipped(choice.label, room, 17, is_chosen), 17, is_chosen, colour)
        value = look.text(look.clipped(choice.value, room, 14), 14, colour=colour)
        top = place.centery - (label.get_height() + value.get_height()) // 2
        target.blit(label, (left, top))
        target.blit(value, (left, top + label.get_height()))

    def _picture(self, index: int, height: int) -> pygame.Surface:
        """Return a line's picture at a height, made once."""
        if (index, height) not in self._pictures:
            frame = self.choices[index].picture
            assert frame is not None
            width = max(1, round(height * frame.shape[1] / frame.shape[0]))
            self._pictures[index, height] = frame_surface(enlarge(frame, width, height, "smooth"))
        return self._pictures[index, height]
