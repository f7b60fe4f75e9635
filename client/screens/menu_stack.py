"""The menus over a screen: the pause, the settings, the keys, or what went wrong; events in, choices out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pygame

from client.input.actions import Step
from client.input.bindings import action_of_button
from client.screens.menus import (
    RESET_KEYS,
    RESET_SETTINGS,
    KeysMenu,
    adjust,
    defaults,
    pause_menu,
    problem_menu,
    reset_menu,
    settings_menu,
)
from client.setup.settings import Settings
from client.ui import theme
from client.ui.app_context import AppContext, Screen, step_of
from client.ui.menu import Menu
from client.ui.theme import Theme

PRESSED = "pressed:"
"""Begins what is returned for a key that moves in no menu, but stands for an action."""
DELETE = "delete:"
"""Begins what is returned for a line that is to be deleted."""
_MOVES = {Step.UP: -1, Step.PREVIOUS: -1, Step.DOWN: 1, Step.NEXT: 1}


class MenuStack:
    """Menus one upon another; the last opened is the one that is seen and answers."""

    def __init__(self, app: AppContext) -> None:
        self._app = app
        self._stack: list[Menu] = []
        self.broken = False
        """Whether the walk below cannot go on by itself."""

    @property
    def is_open(self) -> bool:
        return bool(self._stack)

    @property
    def top(self) -> Menu | None:
        """The menu that is seen."""
        return self._stack[-1] if self._stack else None

    def pause(self) -> None:
        """Show the pause."""
        self._stack = [pause_menu(self._app.key_of)]

    def show(self, menu: Menu) -> None:
        """Lay a menu on top."""
        self._stack.append(menu)

    def replace(self, menu: Menu) -> None:
        """Put a menu in the place of the one that is seen."""
        self._stack[-1] = menu

    def open_keys(self) -> None:
        """Show the keys."""
        self._stack.append(KeysMenu(self._app.bindings))

    def open_settings(self) -> None:
        """Show the settings."""
        self._stack.append(settings_menu(self._app.settings))

    def explain(self, title: str, error: Exception, again: bool = True) -> None:
        """Say what went wrong; only a new beginning or another world leads on."""
        self.broken = True
        self._app.captures_keys = False
        self._stack = [problem_menu(title, error, again)]

    def back(self) -> None:
        """Take the menu away that is seen."""
        self._stack.pop()

    def close(self) -> None:
        """Take all menus away, and keep what was set on them."""
        self._stack, self.broken = [], False
        self._app.captures_keys = False
        self._app.keep_settings()

    def taken(self) -> list[pygame.Rect]:
        """Return where the menu lies that is seen."""
        return [self._stack[-1].place] if self._stack else []

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        if self._stack:
            self._stack[-1].draw(target, look)

    def handle(self, event: pygame.event.Event) -> str | None:
        """Answer an event.

        Returns:
            The line that was picked, `resume` for leaving the last menu, DELETE and the line that is to be deleted,
            or PRESSED and the action of any other key.
        """
        menu = self.top
        if menu is None:
            return None
        if isinstance(menu, KeysMenu) and self._capture(event, menu):
            return None
        step = self._step(event, menu)
        if step in _MOVES:
            menu.move(_MOVES[step])
        elif step is not None and menu.jump(step):
            return None
        elif step is Step.DELETE and menu.choices[menu.chosen].deletable:
            return f"{DELETE}{menu.key}"
        elif step in (Step.LEFT, Step.RIGHT):
            self._adjust(menu, 1 if step is Step.RIGHT else -1)
        elif step in (Step.BACK, Step.MENU):
            return self._back(step)
        elif step is Step.ACCEPT:
            return self._accept(menu)
        elif not self.broken and (name := self.action_of(event)) is not None:
            return f"{PRESSED}{name}"
        return None

    def _step(self, event: pygame.event.Event, menu: Menu) -> Step | None:
        if event.type == pygame.MOUSEMOTION and (index := menu.at(event.pos)) is not None:
            menu.chosen = index
        if event.type == pygame.MOUSEWHEEL and event.y:
            return Step.UP if event.y > 0 else Step.DOWN
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            index = menu.at(event.pos)
            if index is None:
                return None
            # The pointer may rest where it was when the menu came up: what is clicked counts, not what was chosen.
            menu.chosen = index
            return Step.ACCEPT
        # What moves in menus does so first: whoever put the pause on Enter could undo it nowhere.
        step = step_of(event)
        return Step.MENU if step is None and not self.broken and self.action_of(event) == "pause" else step

    def action_of(self, event: pygame.event.Event) -> str | None:
        """Return the action an event asks for in a walk."""
        if event.type == pygame.KEYDOWN:
            return self._app.bindings.action(event.scancode)
        return action_of_button(event.button) if event.type == pygame.CONTROLLERBUTTONDOWN else None

    def _back(self, step: Step) -> str | None:
        """Go back by one menu; the pause key leaves all of them."""
        if step is Step.MENU or len(self._stack) == 1:
            return "resume"
        self._stack.pop()
        return None

    def _accept(self, menu: Menu) -> str | None:
        if isinstance(menu, KeysMenu) and menu.on_action:
            self._show_keys(menu.wait())
        elif menu.key == "settings":
            self.open_settings()
        elif menu.key == "keys":
            self.open_keys()
        elif menu.key in ("defaults", "default_keys"):
            self._stack.append(reset_menu(menu.key))
        elif menu.key in (RESET_SETTINGS, RESET_KEYS):
            self._reset(menu.key)
        elif menu.key == "back":
            return self._back(Step.BACK)
        elif not self._adjust(menu, 1):
            return menu.key
        return None

    def _reset(self, key: str) -> None:
        """Set everything of the menu below the question back to what it was at first."""
        self._stack.pop()
        below = self._stack[-1]
        if isinstance(below, KeysMenu) and key == RESET_KEYS:
            self._bind(below.reset())
        else:
            self._apply_settings(below, defaults(self._app.settings))

    def _adjust(self, menu: Menu, direction: int) -> bool:
        """Move the chosen line's value; say whether it has one."""
        choice = menu.choices[menu.chosen]
        if not choice.value or choice.fixed:
            return False
        self._apply_settings(menu, adjust(self._app.settings, menu.key, direction))
        return True

    def _apply_settings(self, menu: Menu, settings: Settings) -> None:
        self._app.apply_settings(settings)
        self._stack[-1] = settings_menu(settings, menu.chosen)

    def _capture(self, event: pygame.event.Event, menu: KeysMenu) -> bool:
        """Take the key a line waits for, or free a line's keys; say whether the event is dealt with."""
        if menu.waiting:
            if event.type == pygame.KEYDOWN:
                self._bind(menu.take(event.scancode))
            elif step_of(event) is Step.BACK or event.type == pygame.MOUSEBUTTONDOWN:
                self._show_keys(KeysMenu(menu.bindings, menu.chosen))
            return True
        deletes = event.type == pygame.KEYDOWN and event.key in (pygame.K_DELETE, pygame.K_BACKSPACE)
        if deletes and menu.on_action:
            self._bind(menu.clear())
        return deletes

    def _bind(self, menu: KeysMenu) -> None:
        changed = menu.bindings.changed
        self._app.apply_settings(self._app.settings.model_copy(update={"keys": changed}))
        self._show_keys(menu)

    def _show_keys(self, menu: KeysMenu) -> None:
        self._stack[-1] = menu
        self._app.captures_keys = menu.waiting


class ProblemScreen(Screen):
    """The last resort: it needs nothing but the window."""

    def __init__(self, app: AppContext, error: Exception, choose: Callable[[], Screen]) -> None:
        """Explain an error.

        Args:
            app: What all screens share.
            error: What ended the screen before.
            choose: Makes the start screen.
        """
        self._app = app
        self._choose = choose
        self.menus = MenuStack(app)
        self.menus.explain("Something went wrong", error, again=False)
        app.release_controls()

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        key = self.menus.handle(event)
        if key == "quit":
            self._app.quit()
        elif key is not None:
            self._app.show(self._choose)

    def update(self, now_s: float) -> bool:
        return False

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        target.fill(theme.INK)
        self.menus.draw(target, self._app.look)

    def taken(self) -> Sequence[pygame.Rect]:
        return self.menus.taken()

    def leave(self) -> None:
        """Nothing is held."""
