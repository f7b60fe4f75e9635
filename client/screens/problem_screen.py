"""What is shown where a screen failed: what happened, and the ways on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pygame

from client.screens.deck import Deck
from client.ui import theme
from client.ui.shell import Screen, Shell


class ProblemScreen(Screen):
    """The last resort: it needs nothing but the window."""

    def __init__(self, shell: Shell, error: Exception, choose: Callable[[], Screen]) -> None:
        """Explain an error.

        Args:
            shell: What all screens share.
            error: What ended the screen before.
            choose: Makes the start screen.
        """
        self._shell = shell
        self._choose = choose
        self.deck = Deck(shell)
        self.deck.explain("Something went wrong", error, again=False)
        shell.release_controls()

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        key = self.deck.handle(event)
        if key == "quit":
            self._shell.quit()
        elif key is not None:
            self._shell.show(self._choose)

    def update(self, now_s: float) -> bool:
        return False

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        target.fill(theme.INK)
        self.deck.draw(target, self._shell.look)

    def taken(self) -> Sequence[pygame.Rect]:
        return self.deck.taken()

    def leave(self) -> None:
        """Nothing is held."""
