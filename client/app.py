"""The window's loop: events in, one screen at a time, pictures out at display rate and only when they change."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pygame

from client.input.gamepads import STICK_STEP
from client.screens.opening import Opened, check_options
from client.screens.problem_screen import ProblemScreen
from client.screens.start_screen import LoadingScreen, StartScreen
from client.screens.walk_screen import WalkScreen
from client.setup.catalog import world_cards
from client.setup.folders import pictures_dir, settings_file, world_folders
from client.setup.options import PlayOptions
from client.setup.settings import load_settings, save_settings
from client.ui.picture import stay_on_one_thread
from client.ui.shell import Screen, Shell
from client.ui.toasts import message_area
from client.ui.window import Window

DISPLAY_FPS = 60
_CLIENT_MS_WEIGHT = 0.1


def run(
    options: PlayOptions, environ: Mapping[str, str] | None = None, home: Path | None = None
) -> list[str]:
    """Open the window and stay until the player leaves.

    Args:
        options: What the command line asked for.
        environ: The process's environment; names the platform's folders and drivers.
        home: The player's home folder.

    Returns:
        What could not be saved at the end, one sentence each.

    Raises:
        BackendUnavailable: There is no display.
        ValueError, EngineError: What was asked for cannot be opened.
    """
    problems: list[str] = []
    environ = os.environ if environ is None else environ
    home = Path.home() if home is None else home
    pictures = pictures_dir(environ, home)
    folders = world_folders(options.world, pictures)
    check_options(options, folders)
    file = settings_file(environ, home)
    settings, complaint = load_settings(file)
    window = Window(
        settings.window_width, settings.window_height, options.fullscreen, "SDL_VIDEODRIVER" in environ
    )
    try:
        save = partial(save_settings, file)
        shell = Shell(options, window, settings, pictures, folders, time.perf_counter, save)
        if complaint:
            shell.toasts.add(complaint, shell.clock(), warning=True)
        App(shell).loop()
        width, height = window.windowed_size
        settings = shell.settings.model_copy(update={"window_width": width, "window_height": height})
        try:
            save_settings(file, settings)
        except ValueError as error:
            problems.append(f"the settings were not kept: {error}")
    finally:
        window.close()
    return problems + [str(error) for error in shell.chores.finish()]


class App:
    """The loop and the way between the screens."""

    def __init__(self, shell: Shell) -> None:
        stay_on_one_thread()
        self._shell = shell
        self._texts: list[str] = []
        self._screen = self._first_screen()

    @property
    def screen(self) -> Screen:
        """The screen that is on."""
        return self._screen

    def loop(self) -> None:
        """Run until the player leaves; whatever ends it, the screen gives back what it holds."""
        ticker = pygame.time.Clock()
        try:
            while self._shell.running:
                self.turn()
                ticker.tick(DISPLAY_FPS)
        finally:
            self._screen.leave()

    def turn(self) -> None:
        """Go once around the loop; a screen that fails gives way to one that says so, and the window stays."""
        try:
            self._turn()
        except Exception as error:
            if isinstance(self._screen, ProblemScreen):
                raise
            traceback.print_exception(error)
            self._rescue(error)

    def _rescue(self, error: Exception) -> None:
        # What it held may be what failed.
        with suppress(Exception):
            self._screen.leave()
        self._shell.take_next()
        self._screen = ProblemScreen(self._shell, error, self._start)
        self.draw(self._shell.clock())

    def _turn(self) -> None:
        """Go once around the loop; the picture is only drawn anew if something in it changed."""
        began_s, work_s = self._shell.clock(), time.thread_time()
        toasts = self._shell.toasts
        redraw = self._pump(began_s)
        redraw |= self._shell.chores.update()
        redraw |= self._screen.update(began_s)
        redraw |= self._follow()
        texts = toasts.texts(began_s)
        if redraw or texts != self._texts or toasts.is_fading(began_s):
            self._texts = texts
            self.draw(began_s)
            work_ms = 1e3 * (time.thread_time() - work_s)
            self._shell.client_ms += _CLIENT_MS_WEIGHT * (work_ms - self._shell.client_ms)

    def draw(self, now_s: float) -> None:
        """Draw the screen and the messages over it, and show them."""
        window = self._shell.window
        look, toasts = self._shell.look, self._shell.toasts
        self._screen.draw(window.surface, now_s)
        if toasts.texts(now_s):
            area = message_area(window.surface.get_rect(), self._screen.taken(), look.px(1))
            toasts.draw(window.surface, look, now_s, area)
        window.show()
        self._screen.note_shown(self._shell.clock())

    def open(self, options: PlayOptions) -> None:
        """Leave what is on and open a world."""
        self._shell.show(partial(self._open, options))

    def _pump(self, now_s: float) -> bool:
        """Deal with all events; say whether there was one that may change the picture."""
        changed = False
        for event in pygame.event.get():
            changed = True
            if not self._handle(event, now_s):
                self._screen.handle(event, now_s)
        return changed

    def _handle(self, event: pygame.event.Event, now_s: float) -> bool:
        """Deal with what means the same on every screen; say whether that was it."""
        shell = self._shell
        if event.type == pygame.QUIT:
            shell.quit()
            return True
        if event.type == pygame.KEYDOWN and event.key == pygame.K_q and event.mod & pygame.KMOD_CTRL:
            shell.quit()
            return True
        if event.type == pygame.KEYDOWN:
            shell.note_key(event.scancode, event.key)
            if shell.captures_keys:
                return False
        if event.type == pygame.KEYDOWN and shell.bindings.action(event.scancode) == "full_screen":
            shell.window.toggle_fullscreen()
            shell.note_size()
            return True
        if event.type in (pygame.VIDEORESIZE, pygame.WINDOWSIZECHANGED):
            shell.window.note_resize()
            shell.note_size()
            return True
        if event.type in (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED):
            shell.focused = event.type == pygame.WINDOWFOCUSGAINED
            shell.release_controls()
            return False
        if (step := shell.pads.stick_step(event)) is not None:
            self._screen.handle(pygame.event.Event(STICK_STEP, step=step), now_s)
        if message := shell.pads.handle(event):
            shell.toasts.add(message, now_s)
        return False

    def _follow(self) -> bool:
        """Go to the next screen if one was asked for."""
        make = self._shell.take_next()
        if make is None:
            return False
        self._screen.leave()
        self._screen = make()
        return True

    def _first_screen(self) -> Screen:
        options = self._shell.options
        if options.world is None and options.replay is None:
            return self._start()
        self._shell.cards = world_cards(self._shell.folders, options.backend)
        return self._open(options)

    def _start(self, chosen: str | None = None) -> Screen:
        return StartScreen(self._shell, self._open, chosen)

    def _open(self, options: PlayOptions) -> Screen:
        return LoadingScreen(self._shell, options, self._walk, partial(self._start, options.world))

    def _walk(self, options: PlayOptions, opened: Opened) -> Screen:
        # What is recorded or replayed belongs to the first walk; those after it are free.
        self._shell.options = replace(
            self._shell.options, record=None, record_latents=False, trace=None, replay=None
        )
        return WalkScreen(self._shell, options, opened, self._open, self._start)
