"""The card over a walk: the pause with its settings, or what went wrong; lines in, choices out."""

from __future__ import annotations

import pygame

from client.bindings import action_of_button
from client.menu import CardMenu
from client.navigation import Step
from client.pause_card import adjust, pause_card
from client.shell import Shell, step_of
from client.start_screen import problem_card
from client.theme import Theme


class WalkCard:
    """One card at a time, or none."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._card: CardMenu | None = None
        self.broken = False
        """Whether the walk cannot go on by itself."""

    @property
    def is_open(self) -> bool:
        return self._card is not None

    def pause(self) -> None:
        """Show the pause."""
        self._card = pause_card(self._shell.settings)

    def explain(self, error: Exception) -> None:
        """Say what ended the walk; only a reset or another world leads on."""
        self.broken = True
        self._card = problem_card("The walk cannot go on", error)

    def close(self) -> None:
        self._card, self.broken = None, False

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        if self._card is not None:
            self._card.draw(target, look)

    def handle(self, event: pygame.event.Event) -> str | None:
        """Answer an event; return the line that was picked, `resume` for leaving the card."""
        card = self._card
        if card is None:
            return None
        step = self._step(event, card)
        if step in (Step.UP, Step.DOWN):
            card.move(1 if step is Step.DOWN else -1)
        elif step in (Step.LEFT, Step.RIGHT):
            self._adjust(card, 1 if step is Step.RIGHT else -1)
        elif step in (Step.BACK, Step.MENU):
            return "resume"
        elif step is Step.ACCEPT and not self._adjust(card, 1):
            return card.key
        return None

    def _step(self, event: pygame.event.Event, card: CardMenu) -> Step | None:
        if event.type == pygame.MOUSEMOTION and (index := card.at(event.pos)) is not None:
            card.chosen = index
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            return Step.ACCEPT if card.at(event.pos) is not None else None
        if not self.broken and self._is_pause(event):
            return Step.MENU
        return step_of(event)

    def _is_pause(self, event: pygame.event.Event) -> bool:
        if event.type == pygame.KEYDOWN:
            return self._shell.bindings.action(event.scancode) == "pause"
        return event.type == pygame.CONTROLLERBUTTONDOWN and action_of_button(event.button) == "pause"

    def _adjust(self, card: CardMenu, direction: int) -> bool:
        """Move the chosen line's value; say whether it has one."""
        if not card.choices[card.chosen].value:
            return False
        settings = adjust(self._shell.settings, card.key, direction)
        self._shell.apply_settings(settings)
        self._card = pause_card(settings, card.chosen)
        return True
