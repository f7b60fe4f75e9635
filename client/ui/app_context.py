"""What all screens share: the window, its look, the devices, the settings, and the way from one screen to the next."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pygame

from client.input.actions import Step
from client.input.bindings import DEFAULT_BINDINGS, Bindings, letter_of
from client.input.controls import Intent, KeyboardState, MouseLook, read_intent
from client.input.gamepads import STICK_STEP, Gamepads, step_of_button
from client.input.relative_pointer import RelativePointer
from client.playback.background_jobs import BackgroundJobs
from client.setup.catalog import EngineSurvey, WorldChoice, world_choices
from client.setup.folders import OWN_WORLDS
from client.setup.options import PlayOptions
from client.setup.settings import Settings
from client.ui.sound import Sound
from client.ui.theme import Theme, scale_for
from client.ui.toasts import Toasts
from client.ui.window import Window
from engine.machine.assets import assets_dir

_KEY_STEPS = {
    pygame.K_UP: Step.UP,
    pygame.K_DOWN: Step.DOWN,
    pygame.K_LEFT: Step.LEFT,
    pygame.K_RIGHT: Step.RIGHT,
    pygame.K_RETURN: Step.ACCEPT,
    pygame.K_KP_ENTER: Step.ACCEPT,
    pygame.K_SPACE: Step.ACCEPT,
    pygame.K_ESCAPE: Step.BACK,
    pygame.K_HOME: Step.FIRST,
    pygame.K_END: Step.LAST,
    pygame.K_PAGEUP: Step.PAGE_UP,
    pygame.K_PAGEDOWN: Step.PAGE_DOWN,
    pygame.K_TAB: Step.NEXT,
    pygame.K_F2: Step.RENAME,
    pygame.K_DELETE: Step.DELETE,
}


def step_of(event: pygame.event.Event) -> Step | None:
    """Return the menu step an event stands for, from a keyboard or a gamepad."""
    if event.type == pygame.KEYDOWN:
        step = _KEY_STEPS.get(event.key)
        return Step.PREVIOUS if step is Step.NEXT and event.mod & pygame.KMOD_SHIFT else step
    if event.type == pygame.CONTROLLERBUTTONDOWN:
        return step_of_button(event.button)
    if event.type == STICK_STEP:
        return event.step
    return None


class Screen(ABC):
    """One thing the window can be busy with."""

    @abstractmethod
    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        """Answer one event."""

    @abstractmethod
    def update(self, now_s: float) -> bool:
        """Let time pass; say whether the picture changed by it."""

    @abstractmethod
    def draw(self, target: pygame.Surface, now_s: float) -> None:
        """Draw everything."""

    def taken(self) -> Sequence[pygame.Rect]:
        """Return what no message may cover, as drawn last."""
        return ()

    def note_shown(self, now_s: float) -> None:  # noqa: B027
        """Note that what was drawn last is on the display."""

    @abstractmethod
    def leave(self) -> None:
        """Give back what the screen holds; another one follows, or the end."""


class AppContext:
    """The one instance of everything there is one of."""

    def __init__(
        self,
        options: PlayOptions,
        window: Window,
        settings: Settings,
        pictures_dir: Path,
        folders: Sequence[Path],
        clock: Callable[[], float],
        save: Callable[[Settings], None] | None = None,
    ) -> None:
        """Begin with nothing held and no screen.

        Args:
            options: What the command line asked for.
            window: The open window.
            settings: What the player set in sessions before.
            pictures_dir: Where photos and recordings go.
            folders: Where worlds are looked for by name.
            clock: Reads seconds that only go forward.
            save: Writes the settings to the disk; a ValueError says why it cannot.
        """
        self._save = save
        self._kept = settings
        self.options = options
        self.window = window
        self.settings = settings
        self.pictures_dir = pictures_dir
        self.folders = list(folders)
        self.clock = clock
        self.worlds: list[WorldChoice] = []
        """Those there are, as listed last."""
        self.worlds_changed = False
        """Whether there are others by now; set once a world was written."""
        self.toasts = Toasts()
        self.jobs = BackgroundJobs()
        self.pads = Gamepads()
        self.sound = Sound()
        self.bindings = DEFAULT_BINDINGS
        """What keys do, as the player set them."""
        self.captures_keys = False
        """Whether the next key is wanted for itself, and not for what it does."""
        self.keyboard = KeyboardState(self.bindings)
        self.mouse = MouseLook(0.0)
        self.pointer = RelativePointer()
        self.client_ms = 0.0
        """Processor time of the client thread for a picture, lately."""
        self.running = True
        self.mouse_grabbed = False
        self.focused = True
        """Whether the window has the keyboard; without it gamepads are not its player's either."""
        self._survey: EngineSurvey | None = None
        self._next: Callable[[], Screen] | None = None
        self.opened_s: dict[str, float] = {}
        """How long a world took to open, by engine, the last time."""
        self.apply_settings(settings)

    def list_worlds(self) -> list[WorldChoice]:
        """List the worlds anew, those of the player's own last."""
        self.worlds_changed = False
        self.worlds = world_choices(self.folders, self.options.backend, self.pictures_dir / OWN_WORLDS)
        return self.worlds

    def note_size(self) -> None:
        """Choose the size of the interface for the window's."""
        scale = scale_for(*self.window.size) * self.settings.text_size
        if not hasattr(self, "look") or self.look.scale != scale:
            self.look = Theme(scale, assets_dir() / "fonts")

    def apply_settings(self, settings: Settings) -> None:
        self.settings = settings
        self.note_size()
        self.sound.switch(settings.sound)
        self.mouse.sensitivity_rad_px = math.radians(settings.mouse_deg_px)
        self.mouse.invert_y = settings.invert_y
        if settings.keys != self.bindings.changed:
            self.bindings = Bindings.changed_by(settings.keys, self.bindings.labels)
            self.keyboard.bind(self.bindings)

    def read_intent(self) -> Intent:
        """Return what all devices ask for now; the mouse's motion is spent."""
        pads = self.pads.states() if self.focused else []
        return read_intent(self.keyboard, self.mouse, pads, dead_zone=self.settings.dead_zone)

    def keep_settings(self) -> None:
        """Write the settings to the disk where they have changed; say so if the disk does not take them."""
        if self._save is None or self.settings == self._kept:
            return
        self._kept = self.settings
        try:
            self._save(self.settings)
        except ValueError as error:
            self.say(f"These settings last only until you quit: {error}.", warning=True)

    def say(self, text: str, warning: bool = False) -> None:
        """Show a message from now on."""
        self.toasts.add(text, self.clock(), warning)

    def warn(self, error: Exception) -> None:
        """Show an error's sentence as a warning."""
        sentence = str(error)
        self.say(f"{sentence[:1].upper()}{sentence[1:]}.", warning=True)

    def survey(self) -> EngineSurvey:
        """Return what this machine says of each engine; it is asked the first time."""
        if self._survey is None:
            self._survey = EngineSurvey()
        return self._survey

    def note_key(self, scancode: int, key: int) -> None:
        """Learn what the player's keyboard has on a key, from the symbol it reports."""
        letter = letter_of(key)
        if letter and self.bindings.labels.get(scancode) != letter:
            self.bindings = replace(self.bindings, labels={**self.bindings.labels, scancode: letter})

    def key_of(self, action: str) -> str:
        """Return the name of the first key that asks for an action, for sentences."""
        keys = self.bindings.keys[action]
        return self.bindings.label(keys[0]) if keys else "(no key)"

    def grab_mouse(self, grabbed: bool) -> None:
        """Look with the mouse, or give the pointer back."""
        if grabbed != self.mouse_grabbed:
            self.mouse_grabbed = grabbed
            # Before the grab, which may move the pointer.
            self.pointer.grab(self.window.pointer_position())
            self.window.grab_mouse(grabbed)
            self.mouse.forget()

    def release_controls(self) -> None:
        """Let go of every key and of the mouse: their releases may never be seen here."""
        self.keyboard.release_all()
        self.mouse.forget()
        self.grab_mouse(False)

    def show(self, make: Callable[[], Screen]) -> None:
        """Leave this screen and make the next, once the current event is dealt with."""
        self._next = make

    def take_next(self) -> Callable[[], Screen] | None:
        """Return what makes the next screen, once."""
        make, self._next = self._next, None
        return make

    def quit(self) -> None:
        self.running = False
