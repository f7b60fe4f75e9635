"""The two screens before a walk: choosing a world, and seeing it open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pygame

from client.catalog import index_of, world_cards
from client.loading import draw_loading
from client.menu import CardMenu, frame_surface, problem_card
from client.navigation import Step
from client.opening import Opened, Opening, open_walk
from client.options import PlayOptions
from client.picture import crop_to, enlarge
from client.shell import Screen, Shell, step_of
from client.world_menu import WorldMenu
from engine.world import World

_MOVES = {Step.UP: (0, -1), Step.DOWN: (0, 1), Step.LEFT: (-1, 0), Step.RIGHT: (1, 0)}
FOOTER = "Arrows choose    Enter walks    F11 full screen    Esc quits"


class StartScreen(Screen):
    """The worlds as pictures."""

    def __init__(
        self, shell: Shell, walk: Callable[[PlayOptions], Screen], chosen: str | None = None
    ) -> None:
        self._shell = shell
        self._walk = walk
        shell.release_controls()
        shell.window.set_title()
        shell.cards = world_cards(shell.folders, shell.options.backend)
        self._menu = WorldMenu(shell.cards, FOOTER, index_of(shell.cards, chosen))

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        if event.type == pygame.MOUSEMOTION and (index := self._menu.at(event.pos)) is not None:
            self._menu.chosen = index
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            if (index := self._menu.at(event.pos)) is not None:
                self._menu.chosen = index
                self._start(now_s)
        elif event.type == pygame.MOUSEWHEEL:
            self._menu.move(0, -event.y)
        self._take(step_of(event), now_s)

    def _take(self, step: Step | None, now_s: float) -> None:
        if step in _MOVES:
            self._menu.move(*_MOVES[step])
        elif step in (Step.ACCEPT, Step.MENU):
            self._start(now_s)
        elif step is Step.BACK:
            self._shell.quit()

    def _start(self, now_s: float) -> None:
        if not self._menu.cards:
            return
        card = self._menu.cards[self._menu.chosen]
        if card.problem:
            self._shell.toasts.add(card.problem, now_s, warning=True)
            return
        options = replace(self._shell.options, world=card.name, replay=None)
        self._shell.show(lambda: self._walk(options))

    def update(self, now_s: float) -> bool:
        return False

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        self._menu.draw(target, self._shell.look)

    def leave(self) -> None:
        """Nothing is held."""


class LoadingScreen(Screen):
    """A world that is being opened; says why if it cannot be."""

    def __init__(
        self,
        shell: Shell,
        options: PlayOptions,
        ready: Callable[[PlayOptions, Opened], Screen],
        back: Callable[[], Screen],
    ) -> None:
        """Begin to open.

        Args:
            shell: What all screens share.
            options: What to open.
            ready: Makes the screen that follows.
            back: Makes the screen to return to.
        """
        self._shell = shell
        self._options = options
        self._ready = ready
        self._back = back
        self.problem: CardMenu | None = None
        """What went wrong, once something has."""
        self._backdrop: pygame.Surface | None = None
        folders = list(shell.folders)
        shell.release_controls()
        self._opening = Opening(lambda say, seen: open_walk(options, folders, say, seen), shell.clock)

    @property
    def world(self) -> World | None:
        """The world being opened, as soon as it is read."""
        return self._opening.world

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        step = step_of(event)
        if self.problem is None:
            if step is Step.BACK:
                self._shell.show(self._back)
            return
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            index = self.problem.at(event.pos)
            if index is not None:
                self.problem.chosen = index
                step = Step.ACCEPT
        if step in (Step.UP, Step.DOWN):
            self.problem.move(1 if step is Step.DOWN else -1)
        elif step is Step.BACK:
            self._shell.show(self._back)
        elif step is Step.ACCEPT:
            self._choose(self.problem.key)

    def _choose(self, key: str) -> None:
        if key == "again":
            options, ready, back, shell = self._options, self._ready, self._back, self._shell
            shell.show(lambda: LoadingScreen(shell, options, ready, back))
        elif key == "worlds":
            self._shell.show(self._back)
        else:
            self._shell.quit()

    def update(self, now_s: float) -> bool:
        if self.problem is not None:
            return False
        try:
            opened = self._opening.poll()
        except Exception as error:
            self.problem = problem_card("This world cannot be opened", error)
            return True
        if opened is not None:
            options = self._options
            self._shell.show(lambda: self._ready(options, opened))
        return True

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        world = self._opening.world
        title = world.title if world is not None else "Opening"
        draw_loading(target, self._shell.look, title, self._opening.stages, now_s, self._draw_backdrop)
        if self.problem is not None:
            self.problem.draw(target, self._shell.look)

    def _draw_backdrop(self, target: pygame.Surface) -> None:
        world = self._opening.world
        if world is None:
            return
        width, height = target.get_size()
        if self._backdrop is None or self._backdrop.get_size() != (width, height):
            picture = enlarge(crop_to(world.first_frame, width / height), width, height)
            self._backdrop = frame_surface(picture).convert()
        target.blit(self._backdrop, (0, 0))

    def leave(self) -> None:
        self._opening.abandon()
