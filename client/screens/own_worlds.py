"""The player's own worlds on the start screen: renamed and deleted, with the keyboard, a gamepad or the mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pygame

from client.input.actions import Step
from client.screens.menu_stack import MenuStack
from client.setup.catalog import WorldChoice
from client.ui.app_context import AppContext
from client.ui.menu import Choice, Menu
from client.ui.text_entry import Answer, TextEntry
from client.ui.theme import Theme
from engine.files.own_worlds import MAX_NAME_CHARS, delete_world, rename_world

_KEEP, _RENAME, _DELETE, _DELETE_NOW = "keep", "own:rename", "own:delete", "own:delete_now"


class OwnWorldMenus:
    """What can be done with a world of the player's own, one at a time."""

    def __init__(self, app: AppContext, menus: MenuStack, changed: Callable[[str | None], None]) -> None:
        """Answer for the start screen.

        Args:
            menus: The start screen's, on which questions are put.
            changed: Told after a change which world to choose by its path, None for no certain one.
        """
        self._app = app
        self._menus = menus
        self._changed = changed
        self._world: WorldChoice | None = None
        self.entry: TextEntry | None = None
        """The name being edited, if one is."""

    def begin(self, step: Step, world: WorldChoice) -> None:
        """Rename or delete a world; one that is shipped says that it cannot be."""
        if not world.own:
            self._app.say(f"{world.title} is shipped with Flaneur; only worlds of your own can be changed.")
            return
        self._world = world
        if step is Step.RENAME:
            self._rename()
        else:
            self._ask()

    def offer(self, world: WorldChoice) -> None:
        """Show what can be done with a world of the player's own."""
        if world.own:
            self._world = world
            lines = [Choice(_RENAME, "Rename"), Choice(_DELETE, "Delete"), Choice(_KEEP, "Back")]
            self._menus.show(Menu(world.title, lines))

    def take(self, key: str) -> bool:
        """Deal with a line that was picked; say whether it was one of these menus."""
        if key == _RENAME:
            self._menus.close()
            self._rename()
        elif key == _DELETE:
            self._menus.back()
            self._ask()
        elif key == _DELETE_NOW:
            self._menus.close()
            self._delete()
        elif key == _KEEP:
            self._menus.close()
        else:
            return False
        return True

    def handle(self, event: pygame.event.Event) -> None:
        """Answer an event while a name is being edited."""
        assert self.entry is not None
        answer = self.entry.handle(event)
        if answer is Answer.LEFT:
            self._end()
        elif answer is Answer.TAKEN and self._world is not None:
            old = self._world.title
            try:
                path = rename_world(Path(self._world.name), self.entry.text, self._app.folders)
            except ValueError as error:
                text = str(error)
                self.entry.problem = f"{text[:1].upper()}{text[1:]}."
                return
            self._end()
            self._changed(str(path))
            self._app.say(f"{old} is called {path.stem} now.")

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        if self.entry is not None:
            self.entry.draw(target, look)

    def _rename(self) -> None:
        assert self._world is not None
        self.entry = TextEntry("Rename this world", self._world.title, MAX_NAME_CHARS)
        # Letters are wanted for themselves while a name is typed.
        self._app.captures_keys = True

    def _end(self) -> None:
        self.entry = None
        self._app.captures_keys = False

    def _ask(self) -> None:
        assert self._world is not None
        text = (
            f"{self._world.title}. The file is deleted for good. What was recorded and saved in it stays, "
            "and cannot be played without it."
        )
        lines = [Choice(_KEEP, "Keep it"), Choice(_DELETE_NOW, "Delete it")]
        self._menus.show(Menu("Delete this world?", lines, text))

    def _delete(self) -> None:
        assert self._world is not None
        try:
            delete_world(Path(self._world.name))
        except ValueError as error:
            self._app.warn(error)
            return
        self._changed(None)
        self._app.say(f"{self._world.title} is deleted.")
