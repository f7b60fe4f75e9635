"""The cards over a screen: the pause, the settings, the keys, or what went wrong; events in, choices out."""

from __future__ import annotations

import pygame

from client.input.actions import Step
from client.input.bindings import action_of_button
from client.screens.keys_card import KeysCard
from client.screens.menu import CardMenu, problem_card
from client.screens.settings_card import adjust, defaults, pause_card, settings_card
from client.setup.settings import Settings
from client.ui.shell import Shell, step_of
from client.ui.theme import Theme

PRESSED = "pressed:"
"""Begins what is returned for a key that moves in no menu, but stands for an action."""


class Deck:
    """Cards one upon another; the last opened is the one that is seen and answers."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._cards: list[CardMenu] = []
        self.broken = False
        """Whether the walk below cannot go on by itself."""

    @property
    def is_open(self) -> bool:
        return bool(self._cards)

    @property
    def card(self) -> CardMenu | None:
        """The card that is seen."""
        return self._cards[-1] if self._cards else None

    def pause(self) -> None:
        """Show the pause."""
        self._cards = [pause_card(self._shell.key_of)]

    def show(self, card: CardMenu) -> None:
        """Lay a card on top."""
        self._cards.append(card)

    def replace(self, card: CardMenu) -> None:
        """Put a card in the place of the one that is seen."""
        self._cards[-1] = card

    def open_keys(self) -> None:
        """Show the keys."""
        self._cards.append(KeysCard(self._shell.bindings))

    def open_settings(self) -> None:
        """Show the settings."""
        self._cards.append(settings_card(self._shell.settings))

    def explain(self, title: str, error: Exception, again: bool = True) -> None:
        """Say what went wrong; only a new beginning or another world leads on."""
        self.broken = True
        self._shell.captures_keys = False
        self._cards = [problem_card(title, error, again)]

    def close(self) -> None:
        """Take all cards away, and keep what was set on them."""
        self._cards, self.broken = [], False
        self._shell.captures_keys = False
        self._shell.keep_settings()

    def taken(self) -> list[pygame.Rect]:
        """Return where the card lies that is seen."""
        return [self._cards[-1].place] if self._cards else []

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        if self._cards:
            self._cards[-1].draw(target, look)

    def handle(self, event: pygame.event.Event) -> str | None:
        """Answer an event.

        Returns:
            The line that was picked, `resume` for leaving the last card, or PRESSED and the action of any other key.
        """
        card = self.card
        if card is None:
            return None
        if isinstance(card, KeysCard) and self._capture(event, card):
            return None
        step = self._step(event, card)
        if step in (Step.UP, Step.DOWN):
            card.move(1 if step is Step.DOWN else -1)
        elif step in (Step.LEFT, Step.RIGHT):
            self._adjust(card, 1 if step is Step.RIGHT else -1)
        elif step in (Step.BACK, Step.MENU):
            return self._back(step)
        elif step is Step.ACCEPT:
            return self._accept(card)
        elif not self.broken and (name := self.action_of(event)) is not None:
            return f"{PRESSED}{name}"
        return None

    def _step(self, event: pygame.event.Event, card: CardMenu) -> Step | None:
        if event.type == pygame.MOUSEMOTION and (index := card.at(event.pos)) is not None:
            card.chosen = index
        if event.type == pygame.MOUSEWHEEL and event.y:
            return Step.UP if event.y > 0 else Step.DOWN
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            index = card.at(event.pos)
            if index is None:
                return None
            # The pointer may rest where it was when the card came up: what is clicked counts, not what was chosen.
            card.chosen = index
            return Step.ACCEPT
        # What moves in menus does so first: whoever put the pause on Enter could undo it nowhere.
        step = step_of(event)
        return Step.MENU if step is None and not self.broken and self.action_of(event) == "pause" else step

    def action_of(self, event: pygame.event.Event) -> str | None:
        """Return the action an event asks for in a walk."""
        if event.type == pygame.KEYDOWN:
            return self._shell.bindings.action(event.scancode)
        return action_of_button(event.button) if event.type == pygame.CONTROLLERBUTTONDOWN else None

    def _back(self, step: Step) -> str | None:
        """Go back by one card; the pause key leaves all of them."""
        if step is Step.MENU or len(self._cards) == 1:
            return "resume"
        self._cards.pop()
        return None

    def _accept(self, card: CardMenu) -> str | None:
        if isinstance(card, KeysCard) and card.on_action:
            self._show_keys(card.wait())
        elif isinstance(card, KeysCard) and card.key == "default_keys":
            self._bind(card.reset())
        elif card.key == "settings":
            self.open_settings()
        elif card.key == "keys":
            self.open_keys()
        elif card.key == "defaults":
            self._apply_settings(card, defaults(self._shell.settings))
        elif card.key == "back":
            return self._back(Step.BACK)
        elif not self._adjust(card, 1):
            return card.key
        return None

    def _adjust(self, card: CardMenu, direction: int) -> bool:
        """Move the chosen line's value; say whether it has one."""
        choice = card.choices[card.chosen]
        if not choice.value or choice.fixed:
            return False
        self._apply_settings(card, adjust(self._shell.settings, card.key, direction))
        return True

    def _apply_settings(self, card: CardMenu, settings: Settings) -> None:
        self._shell.apply_settings(settings)
        self._cards[-1] = settings_card(settings, card.chosen)

    def _capture(self, event: pygame.event.Event, card: KeysCard) -> bool:
        """Take the key a line waits for, or free a line's keys; say whether the event is dealt with."""
        if card.waiting:
            if event.type == pygame.KEYDOWN:
                self._bind(card.take(event.scancode))
            elif step_of(event) is Step.BACK or event.type == pygame.MOUSEBUTTONDOWN:
                self._show_keys(KeysCard(card.bindings, card.chosen))
            return True
        deletes = event.type == pygame.KEYDOWN and event.key in (pygame.K_DELETE, pygame.K_BACKSPACE)
        if deletes and card.on_action:
            self._bind(card.clear())
        return deletes

    def _bind(self, card: KeysCard) -> None:
        changed = card.bindings.changed
        self._shell.apply_settings(self._shell.settings.model_copy(update={"keys": changed}))
        self._show_keys(card)

    def _show_keys(self, card: KeysCard) -> None:
        self._cards[-1] = card
        self._shell.captures_keys = card.waiting
