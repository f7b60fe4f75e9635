"""The start screen: choosing a world, an engine, settings and keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pygame

from client.input.actions import Step
from client.playback.saves import SavedEntry, list_saves
from client.screens.menu_stack import MenuStack
from client.screens.own_worlds import OwnWorldMenus
from client.screens.saved_walks import SAVED, SavedWalks, world_of
from client.screens.world_menu import WorldMenu
from client.setup.catalog import TITLES, EngineChoice, index_of
from client.setup.folders import SAVES
from client.setup.options import PlayOptions
from client.ui.app_context import AppContext, Screen, step_of
from client.ui.menu import Choice, Menu

ENGINES = "Engines"
_MOVES = {Step.UP: (0, -1), Step.DOWN: (0, 1), Step.LEFT: (-1, 0), Step.RIGHT: (1, 0)}


class StartScreen(Screen):
    """The worlds as pictures, with the engine and the settings below them."""

    def __init__(
        self, app: AppContext, walk: Callable[[PlayOptions], Screen], chosen: str | None = None
    ) -> None:
        self._app = app
        self._walk = walk
        self._menus = MenuStack(app)
        self._own = OwnWorldMenus(app, self._menus, self._list_again)
        self._saves = SavedWalks(app, self._menus, self._go_on)
        self._surveyed = False
        app.release_controls()
        app.window.set_title()
        # A world begun in a walk may still be on its way to the disk.
        self._chosen = chosen
        self._menu = self._make_menu(chosen)

    @property
    def button(self) -> str | None:
        """Name of the chosen button, None while a world is chosen."""
        return self._menu.key

    def _make_menu(self, chosen: str | None) -> WorldMenu:
        app = self._app
        worlds = app.list_worlds()
        engine = TITLES[app.options.backend]
        self._saved = next(list_saves(app.pictures_dir / SAVES), None)
        saved_in = None if self._saved is None else world_of(self._saved, worlds)
        buttons = [
            Choice(
                "engine", "Engine", engine, note="What makes the pictures: see what this machine can run."
            ),
            Choice("settings", "Settings", note="Speeds, the mouse, what is shown."),
            Choice("keys", "Keys", note="See all keys, and give them other actions."),
            Choice("quit", "Quit", note="Leave Flaneur. Esc does so too."),
        ]
        if self._saved is not None:
            note = "Every walk that was saved: go on with one, or delete it."
            buttons.insert(0, Choice(SAVED, "Saved walks", note=note))
        if saved_in is not None:
            note = "Go on with the walk that was saved last."
            buttons.insert(0, Choice("continue", "Continue", saved_in.title, note=note))
        return WorldMenu(worlds, buttons, index_of(worlds, chosen))

    def _list_again(self, chosen: str | None) -> None:
        """Show the worlds that there are now; without a certain one the choice stays where it is."""
        before = self._menu
        self._menu = self._make_menu(chosen)
        if chosen is None:
            self._menu.chosen = max(0, min(before.chosen, len(self._menu.worlds) - 1))

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        if self._own.entry is not None:
            self._own.handle(event)
            return
        if self._menus.is_open:
            self._take_line(self._menus.handle(event), now_s)
            return
        if event.type == pygame.MOUSEMOTION:
            self._menu.point(event.pos)
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1 and self._menu.point(event.pos):
            self._accept(now_s)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 3 and self._menu.point(event.pos):
            if (world := self._menu.world) is not None:
                self._own.offer(world)
        elif event.type == pygame.MOUSEWHEEL and event.y:
            self._menu.move(0, 1 if event.y < 0 else -1)
        self._take(step_of(event), now_s)

    def _take(self, step: Step | None, now_s: float) -> None:
        if step in _MOVES:
            self._menu.move(*_MOVES[step])
        elif step is not None and self._menu.jump(step):
            return
        elif step in (Step.RENAME, Step.DELETE) and (world := self._menu.world) is not None:
            self._own.begin(step, world)
        elif step in (Step.ACCEPT, Step.MENU):
            self._accept(now_s)
        elif step is Step.BACK:
            self._app.quit()

    def _accept(self, now_s: float) -> None:
        key = self._menu.key
        if key is None:
            self._start(now_s)
        elif key == "continue":
            self._continue()
        elif key == SAVED:
            self._saves.open()
        elif key == "engine":
            self._menus.show(self._engine_menu())
        elif key == "settings":
            self._menus.open_settings()
        elif key == "keys":
            self._menus.open_keys()
        else:
            self._app.quit()

    def _continue(self) -> None:
        """Go on with the walk that was saved last."""
        if self._saved is not None:
            self._go_on(self._saved)

    def _go_on(self, entry: SavedEntry) -> None:
        """Open the world of a saved walk, and that walk."""
        world = world_of(entry, self._app.worlds)
        if world is None:
            self._app.say(f"The world {entry.info.world} that it was saved in is not here.", warning=True)
            return
        options = replace(self._app.options, world=world.name, replay=None, saved=entry.path)
        if options.backend == "auto" and entry.info.backend == "holodeck":
            options = replace(options, backend="holodeck")
        self._app.show(lambda: self._walk(options))

    def _engine_menu(self) -> Menu:
        choices = self._app.survey().choices
        self._surveyed = choices is not None
        return engine_menu(choices, self._app.options.backend)

    def _take_line(self, key: str | None, now_s: float) -> None:
        """Deal with the line of a menu that was picked."""
        if key == "resume":
            self._menus.close()
        elif key is not None and not (self._own.take(key) or self._saves.take(key)):
            self._choose_engine(key, now_s)

    def _choose_engine(self, backend: str, now_s: float) -> None:
        choices = self._app.survey().choices or ()
        choice = next((choice for choice in choices if choice.backend == backend), None)
        if choice is None:
            return
        if not choice.available:
            self._app.toasts.add(choice.detail, now_s, warning=True)
            return
        options = self._app.options
        # A bundle that was named belongs to the engine it was named with.
        engine = None if choice.backend == "holodeck" else options.engine
        weights = options.weights if choice.backend in ("auto", "torch") else None
        if options.weights is not None and weights is None:
            engine = None
        self._app.options = replace(options, backend=choice.backend, engine=engine, weights=weights)
        name = self._menu.worlds[self._menu.chosen].name if self._menu.worlds else None
        self._menu = self._make_menu(name)
        self._menu.button = [button.key for button in self._menu.buttons].index("engine")
        self._menus.close()

    def _start(self, now_s: float) -> None:
        if not self._menu.worlds:
            return
        menu = self._menu.worlds[self._menu.chosen]
        if menu.problem:
            self._app.toasts.add(menu.problem, now_s, warning=True)
            return
        options = replace(self._app.options, world=menu.name, replay=None)
        self._app.show(lambda: self._walk(options))

    def update(self, now_s: float) -> bool:
        if self._app.worlds_changed:
            world = self._menu.world
            self._list_again(self._chosen or (None if world is None else world.name))
            return True
        menu = self._menus.top
        if menu is not None and menu.title == ENGINES and not self._surveyed:
            chosen = menu.chosen
            answered = self._engine_menu()
            if self._surveyed:
                self._menus.replace(answered)
                answered.chosen = min(chosen, len(answered.choices) - 1)
            return self._surveyed
        return False

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        self._menu.draw(target, self._app.look, self._app.toasts.texts(now_s) == [])
        self._menus.draw(target, self._app.look)
        self._own.draw(target, self._app.look)

    def taken(self) -> Sequence[pygame.Rect]:
        if self._own.entry is not None:
            return [self._own.entry.place]
        return self._menus.taken() or self._menu.taken

    def leave(self) -> None:
        self._app.captures_keys = False


def engine_menu(choices: Sequence[EngineChoice] | None, backend: str) -> Menu:
    """Return the menu of the engines; while this machine has not answered, a menu that says so."""
    if choices is None:
        text = "Asking this machine what it can run."
        return Menu(ENGINES, [Choice("resume", "Back")], text)
    lines = [
        Choice(
            choice.backend, choice.title, _state(choice, backend), True, not choice.available, choice.detail
        )
        for choice in choices
    ]
    chosen = next((i for i, choice in enumerate(choices) if choice.backend == backend), 0)
    return Menu(ENGINES, [*lines, Choice("resume", "Back", note="Leave the engine as it is.")], chosen=chosen)


def _state(choice: EngineChoice, backend: str) -> str:
    if choice.backend == backend:
        return "chosen"
    return "" if choice.available else "not here"
