"""The two screens before a walk: choosing a world, and seeing it open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pygame

from client.input.actions import Step
from client.screens.deck import Deck
from client.screens.loading import draw_loading
from client.screens.menu import CardMenu, Choice, frame_surface, problem_card
from client.screens.opening import Opened, Opening, open_walk
from client.screens.world_menu import WorldMenu
from client.setup.catalog import index_of, world_cards
from client.setup.engines import TITLES, EngineChoice
from client.setup.options import PlayOptions
from client.ui import theme
from client.ui.picture import crop_to, enlarge
from client.ui.shell import Screen, Shell, step_of
from engine.files.world import World

ENGINES = "Engines"
_MOVES = {Step.UP: (0, -1), Step.DOWN: (0, 1), Step.LEFT: (-1, 0), Step.RIGHT: (1, 0)}


class StartScreen(Screen):
    """The worlds as pictures, with the engine and the settings below them."""

    def __init__(
        self, shell: Shell, walk: Callable[[PlayOptions], Screen], chosen: str | None = None
    ) -> None:
        self._shell = shell
        self._walk = walk
        self._deck = Deck(shell)
        self._surveyed = False
        shell.release_controls()
        shell.window.set_title()
        self._menu = self._make_menu(chosen)

    @property
    def button(self) -> str | None:
        """Name of the chosen button, None while a world is chosen."""
        return self._menu.key

    def _make_menu(self, chosen: str | None) -> WorldMenu:
        shell = self._shell
        shell.cards = world_cards(shell.folders, shell.options.backend)
        engine = TITLES[shell.options.backend]
        buttons = [
            Choice(
                "engine", "Engine", engine, note="What makes the pictures: see what this machine can run."
            ),
            Choice("settings", "Settings", note="Speeds, the mouse, what is shown."),
            Choice("keys", "Keys", note="See all keys, and give them other actions."),
            Choice("quit", "Quit", note="Leave Flaneur. Esc does so too."),
        ]
        return WorldMenu(shell.cards, buttons, index_of(shell.cards, chosen))

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        if self._deck.is_open:
            self._take_line(self._deck.handle(event), now_s)
            return
        if event.type == pygame.MOUSEMOTION:
            self._menu.point(event.pos)
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1 and self._menu.point(event.pos):
            self._accept(now_s)
        elif event.type == pygame.MOUSEWHEEL and event.y:
            self._menu.move(0, 1 if event.y < 0 else -1)
        self._take(step_of(event), now_s)

    def _take(self, step: Step | None, now_s: float) -> None:
        if step in _MOVES:
            self._menu.move(*_MOVES[step])
        elif step in (Step.ACCEPT, Step.MENU):
            self._accept(now_s)
        elif step is Step.BACK:
            self._shell.quit()

    def _accept(self, now_s: float) -> None:
        key = self._menu.key
        if key is None:
            self._start(now_s)
        elif key == "engine":
            self._deck.show(self._engine_card())
        elif key == "settings":
            self._deck.open_settings()
        elif key == "keys":
            self._deck.open_keys()
        else:
            self._shell.quit()

    def _engine_card(self) -> CardMenu:
        choices = self._shell.survey().choices
        self._surveyed = choices is not None
        return engine_card(choices, self._shell.options.backend)

    def _take_line(self, key: str | None, now_s: float) -> None:
        """Deal with the line of a card that was picked."""
        if key == "resume":
            self._deck.close()
        elif key is not None:
            self._choose_engine(key, now_s)

    def _choose_engine(self, backend: str, now_s: float) -> None:
        choices = self._shell.survey().choices or ()
        choice = next((choice for choice in choices if choice.backend == backend), None)
        if choice is None:
            return
        if not choice.available:
            self._shell.toasts.add(choice.detail, now_s, warning=True)
            return
        options = self._shell.options
        # A bundle that was named belongs to the engine it was named with.
        engine = None if choice.backend == "holodeck" else options.engine
        self._shell.options = replace(options, backend=choice.backend, engine=engine)
        name = self._menu.cards[self._menu.chosen].name if self._menu.cards else None
        self._menu = self._make_menu(name)
        self._menu.button = 0
        self._deck.close()

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
        card = self._deck.card
        if card is not None and card.title == ENGINES and not self._surveyed:
            chosen = card.chosen
            answered = self._engine_card()
            if self._surveyed:
                self._deck.replace(answered)
                answered.chosen = min(chosen, len(answered.choices) - 1)
            return self._surveyed
        return False

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        self._menu.draw(target, self._shell.look, self._shell.toasts.texts(now_s) == [])
        self._deck.draw(target, self._shell.look)

    def taken(self) -> Sequence[pygame.Rect]:
        return self._deck.taken() or self._menu.taken

    def leave(self) -> None:
        """Nothing is held."""


def engine_card(choices: Sequence[EngineChoice] | None, backend: str) -> CardMenu:
    """Return the card of the engines; while this machine has not answered, a card that says so."""
    if choices is None:
        text = "Asking this machine what it can run."
        return CardMenu(ENGINES, [Choice("resume", "Back")], text)
    lines = [
        Choice(
            choice.backend, choice.title, _state(choice, backend), True, not choice.available, choice.detail
        )
        for choice in choices
    ]
    card = CardMenu(ENGINES, [*lines, Choice("resume", "Back", note="Leave the engine as it is.")])
    card.chosen = next((i for i, choice in enumerate(choices) if choice.backend == backend), 0)
    return card


def _state(choice: EngineChoice, backend: str) -> str:
    if choice.backend == backend:
        return "chosen"
    return "" if choice.available else "not here"


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
        self._place = pygame.Rect(0, 0, 0, 0)
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
            self._shell.opened_s[options.backend] = self._opening.stages.elapsed_s(now_s)
            self._shell.show(lambda: self._ready(options, opened))
        return True

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        world, look = self._opening.world, self._shell.look
        if self.problem is not None:
            target.fill(theme.INK)
            self._draw_backdrop(target)
            self.problem.draw(target, look)
            return
        title = world.title if world is not None else "Opening"
        expected_s = self._shell.opened_s.get(self._options.backend)
        stages, backdrop = self._opening.stages, self._draw_backdrop
        self._place = draw_loading(target, look, title, stages, now_s, backdrop, expected_s)

    def taken(self) -> Sequence[pygame.Rect]:
        return [self._place if self.problem is None else self.problem.place]

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
