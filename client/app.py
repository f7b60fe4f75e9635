"""The window's loop: events in, one screen at a time, pictures out at display rate and only when they change."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pygame

from client.input.gamepads import STICK_STEP
from client.screens.loading_screen import LoadingScreen
from client.screens.menu_stack import ProblemScreen
from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.setup.folders import pictures_dir, settings_file, world_folders
from client.setup.opening import Opened, check_options
from client.setup.options import PlayOptions
from client.setup.settings import load_settings, save_settings
from client.ui.app_context import AppContext, Screen
from client.ui.picture import stay_on_one_thread
from client.ui.toasts import draw_job, message_area
from client.ui.window import Window

DISPLAY_FPS = 60
FINISHING_FPS = 10
"""While the last files are written, whose progress is all that changes."""
_CLIENT_MS_WEIGHT = 0.1


def run(options: PlayOptions) -> list[str]:
    """Open the window and stay until the player leaves.

    Args:
        options: What the command line asked for.

    Returns:
        What could not be saved at the end, one sentence each.

    Raises:
        BackendUnavailable: There is no display.
        ValueError, EngineError: What was asked for cannot be opened.
    """
    problems: list[str] = []
    pictures = pictures_dir()
    folders = world_folders(options.world, pictures)
    check_options(options, folders)
    file = settings_file()
    settings, complaint = load_settings(file)
    window = Window(
        settings.window_width, settings.window_height, options.fullscreen, "SDL_VIDEODRIVER" in os.environ
    )
    try:
        save = partial(save_settings, file)
        context = AppContext(options, window, settings, pictures, folders, time.perf_counter, save)
        if complaint:
            context.say(complaint, warning=True)
        App(context).loop()
        width, height = window.windowed_size
        settings = context.settings.model_copy(update={"window_width": width, "window_height": height})
        try:
            save_settings(file, settings)
        except ValueError as error:
            problems.append(f"the settings were not kept: {error}")
        context.sound.close()
    finally:
        window.close()
    return problems + [str(error) for error in context.jobs.finish()]


class App:
    """The loop and the way between the screens."""

    def __init__(self, context: AppContext) -> None:
        stay_on_one_thread()
        self._context = context
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
            while self._context.running:
                self.turn()
                ticker.tick(DISPLAY_FPS)
            while self._context.jobs.is_busy and not self._is_hurried():
                self.draw(self._context.clock())
                ticker.tick(FINISHING_FPS)
        finally:
            self._screen.leave()

    def _is_hurried(self) -> bool:
        """Whether the player, who has left already, wants the window gone before all files are written."""
        leaving = pygame.QUIT, pygame.KEYDOWN
        return any(event.type in leaving for event in pygame.event.get())

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
        self._context.take_next()
        self._screen = ProblemScreen(self._context, error, self._start)
        self.draw(self._context.clock())

    def _turn(self) -> None:
        """Go once around the loop; the picture is only drawn anew if something in it changed."""
        began_s, work_s = self._context.clock(), time.thread_time()
        toasts = self._context.toasts
        redraw = self._pump(began_s)
        redraw |= self._context.jobs.update()
        redraw |= self._screen.update(began_s)
        redraw |= self._follow()
        texts = toasts.texts(began_s)
        if redraw or texts != self._texts or toasts.is_fading(began_s):
            self._texts = texts
            self.draw(began_s)
            work_ms = 1e3 * (time.thread_time() - work_s)
            self._context.client_ms += _CLIENT_MS_WEIGHT * (work_ms - self._context.client_ms)

    def draw(self, now_s: float) -> None:
        """Draw the screen and the messages over it, and show them."""
        window = self._context.window
        look, toasts = self._context.look, self._context.toasts
        self._screen.draw(window.surface, now_s)
        taken = list(self._screen.taken())
        if (progress := self._context.jobs.progress) is not None:
            taken.append(draw_job(window.surface, look, *progress))
        if toasts.texts(now_s):
            area = message_area(window.surface.get_rect(), taken, look.px(1))
            toasts.draw(window.surface, look, now_s, area)
        window.show()
        self._screen.note_shown(self._context.clock())

    def open(self, options: PlayOptions) -> None:
        """Leave what is on and open a world."""
        self._context.show(partial(self._open, options))

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
        context = self._context
        if event.type == pygame.QUIT:
            context.quit()
            return True
        if event.type == pygame.KEYDOWN and event.key == pygame.K_q and event.mod & pygame.KMOD_CTRL:
            context.quit()
            return True
        if event.type == pygame.KEYDOWN:
            context.note_key(event.scancode, event.key)
            if context.captures_keys:
                return False
        if event.type == pygame.KEYDOWN and context.bindings.action(event.scancode) == "full_screen":
            context.window.toggle_fullscreen()
            context.note_size()
            return True
        if event.type in (pygame.VIDEORESIZE, pygame.WINDOWSIZECHANGED):
            context.window.note_resize()
            context.note_size()
            return True
        if event.type in (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED):
            context.focused = event.type == pygame.WINDOWFOCUSGAINED
            context.release_controls()
            return False
        if (step := context.pads.stick_step(event)) is not None:
            self._screen.handle(pygame.event.Event(STICK_STEP, step=step), now_s)
        if message := context.pads.handle(event):
            context.toasts.add(message, now_s)
        return False

    def _follow(self) -> bool:
        """Go to the next screen if one was asked for."""
        make = self._context.take_next()
        if make is None:
            return False
        self._screen.leave()
        self._screen = make()
        return True

    def _first_screen(self) -> Screen:
        options = self._context.options
        if options.world is None and options.replay is None:
            return self._start()
        self._context.list_worlds()
        return self._open(options)

    def _start(self, chosen: str | None = None) -> Screen:
        return StartScreen(self._context, self._open, chosen)

    def _open(self, options: PlayOptions) -> Screen:
        return LoadingScreen(self._context, options, self._walk, partial(self._start, options.world))

    def _walk(self, options: PlayOptions, opened: Opened) -> Screen:
        # What is recorded or replayed belongs to the first walk; those after it are free.
        self._context.options = replace(
            self._context.options, record=None, record_latents=False, trace=None, replay=None
        )
        return WalkScreen(self._context, options, opened, self._open, self._start)
