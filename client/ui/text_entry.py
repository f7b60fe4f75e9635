"""One line of text to type or, with a gamepad, to dial letter by letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto

import pygame

from client.input.actions import Step
from client.ui import theme
from client.ui.app_context import step_of
from client.ui.theme import Theme

LETTERS = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-,.'"
"""What up and down go through, around the ends."""
HINT = "Type, or dial with up and down. Enter or A takes it, Esc or B leaves it, X deletes a letter."


_EDITING = (
    *(pygame.K_BACKSPACE, pygame.K_DELETE, pygame.K_LEFT, pygame.K_RIGHT),
    *(pygame.K_HOME, pygame.K_END, pygame.K_UP, pygame.K_DOWN),
)


class Answer(Enum):
    """How an entry ended."""

    TAKEN = auto()
    LEFT = auto()


class TextEntry:
    """A line being edited."""

    def __init__(self, title: str, text: str, max_chars: int) -> None:
        self.title = title
        self.text = text
        self.problem = ""
        """Why the text was not taken, shown until it changes."""
        self._max_chars = max_chars
        self._cursor = len(text)
        self._is_fresh = True
        """Whether nothing was changed yet: what is typed first takes the place of the whole text."""
        self.place = pygame.Rect(0, 0, 0, 0)
        """Where it lies, as drawn last."""

    def handle(self, event: pygame.event.Event) -> Answer | None:
        """Answer an event; say how the entry ended, if it did."""
        before = self.text
        answer = None
        if event.type == pygame.TEXTINPUT:
            self._insert(event.text)
            self._is_fresh = False
        elif event.type == pygame.KEYDOWN:
            answer = self._press(event.key)
            self._is_fresh &= event.key not in _EDITING
        elif (step := step_of(event)) is not None:
            self._is_fresh = False
            answer = self._step(step)
        if self.text != before:
            self.problem = ""
        return answer

    def _press(self, key: int) -> Answer | None:
        if key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            return Answer.TAKEN
        if key == pygame.K_ESCAPE:
            return Answer.LEFT
        edits: Mapping[int, Callable[[], None]] = {
            pygame.K_BACKSPACE: self._erase_before,
            pygame.K_DELETE: self._erase_after,
            pygame.K_LEFT: lambda: self._go(self._cursor - 1),
            pygame.K_RIGHT: lambda: self._go(self._cursor + 1),
            pygame.K_HOME: lambda: self._go(0),
            pygame.K_END: lambda: self._go(len(self.text)),
            pygame.K_UP: lambda: self._dial(-1),
            pygame.K_DOWN: lambda: self._dial(1),
        }
        if key in edits:
            edits[key]()
        return None

    def _step(self, step: Step) -> Answer | None:
        """Answer a gamepad."""
        if step in (Step.ACCEPT, Step.MENU):
            return Answer.TAKEN
        if step is Step.BACK:
            return Answer.LEFT
        if step in (Step.LEFT, Step.RIGHT):
            self._go(self._cursor + (1 if step is Step.RIGHT else -1))
        elif step in (Step.UP, Step.DOWN):
            self._dial(1 if step is Step.DOWN else -1)
        elif step is Step.DELETE:
            self._erase_before()
        return None

    def _go(self, cursor: int) -> None:
        self._cursor = max(0, min(len(self.text), cursor))

    def _insert(self, text: str) -> None:
        if self._is_fresh:
            self._erase_all()
        text = "".join(c for c in text if c.isprintable())[: self._max_chars - len(self.text)]
        self.text = self.text[: self._cursor] + text + self.text[self._cursor :]
        self._cursor += len(text)

    def _erase_all(self) -> None:
        self.text, self._cursor = "", 0

    def _erase_before(self) -> None:
        if self._is_fresh:
            self._erase_all()
        elif self._cursor:
            self._cursor -= 1
            self._erase_after()

    def _erase_after(self) -> None:
        self.text = self.text[: self._cursor] + self.text[self._cursor + 1 :]

    def _dial(self, direction: int) -> None:
        """Change the letter behind the cursor; at the end a new one begins."""
        if self._cursor == len(self.text):
            if len(self.text) < self._max_chars:
                self.text += LETTERS[1] if direction > 0 else LETTERS[-1]
            return
        place = LETTERS.find(self.text[self._cursor])
        letter = LETTERS[(place + direction) % len(LETTERS)]
        self.text = self.text[: self._cursor] + letter + self.text[self._cursor + 1 :]

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        """Draw the entry over a darkened picture."""
        look.shade(target)
        pad, edge = look.px(3), look.px(1)
        width = min(look.px(64), target.get_width() - 2 * edge)
        lines = look.wrap(self.problem or HINT, width - 2 * pad, 14)
        height = look.px(18) + len(lines) * look.px(2.5)
        left, top = (target.get_width() - width) // 2, max(edge, (target.get_height() - height) // 2)
        rim = max(1, look.px(0.25))
        self.place = pygame.Rect(left - rim, top - rim, width + 2 * rim, height + 2 * rim)
        target.blit(look.panel(*self.place.size, theme.INK_RAISED, 255, 1.75), self.place)
        target.blit(look.panel(width, height, alpha=255, radius=1.5), (left, top))
        title = look.clipped(self.title, width - 2 * pad, 24, bold=True)
        target.blit(look.text(title, 24, bold=True), (left + pad, top + look.px(2)))
        field = pygame.Rect(left + pad, top + look.px(7.5), width - 2 * pad, look.px(5))
        self._draw_field(target, look, field)
        colour = theme.SIGNAL_RED if self.problem else theme.PAPER_DIM
        for i, line in enumerate(lines):
            place = (left + pad, field.bottom + look.px(1.5) + i * look.px(2.5))
            target.blit(look.text(line, 14, colour=colour), place)

    def _draw_field(self, target: pygame.Surface, look: Theme, field: pygame.Rect) -> None:
        target.blit(look.panel(*field.size, theme.INK_RAISED, 255, 0.75), field)
        font, pad = look.font(18), look.px(1)
        caret_px = font.size(self.text[: self._cursor])[0]
        # A text wider than the field is moved so that the cursor is in it.
        shift = max(0, caret_px - (field.width - 3 * pad))
        target.set_clip(field.inflate(-2 * pad, 0))
        label = look.text(self.text or " ", 18)
        x, y = field.left + pad - shift, field.centery - label.get_height() // 2
        if self._is_fresh:
            target.fill(theme.AMBER, (x, y, label.get_width(), label.get_height()))
            label = look.text(self.text or " ", 18, colour=theme.INK)
        target.blit(label, (x, y))
        under = font.size(self.text[self._cursor : self._cursor + 1] or "n")[0]
        mark = (x + caret_px, y + label.get_height(), max(2, under), max(2, look.px(0.375)))
        target.fill(theme.AMBER, mark)
        target.set_clip(None)
