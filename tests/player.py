"""A player for tests: real events into the real application, on a driver that shows nothing, and a gamepad."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest

import holodeck
from client.app import App
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from client.setup.settings import Settings
from client.ui.app_context import AppContext
from client.ui.window import Window
from engine.files.world import World, WorldInfo, write_world

PATIENCE_S = 60.0
WIDTH, HEIGHT = 40, 24
"""Small enough to be drawn at once, so that the tests wait for nothing."""


def make_world(folder: Path, place_name: str) -> Path:
    """Write a world file for a holodeck place."""
    place = holodeck.get_place(place_name)
    intrinsics = np.array([WIDTH * 0.6, WIDTH * 0.6, WIDTH / 2, HEIGHT / 2], np.float32)
    world = World(
        WorldInfo(name=place_name, title=place.title, licence="Apache-2.0", model="0" * 64, place=place_name),
        np.zeros((4, 3, 5), np.float32),
        place.render(place.spawn, intrinsics, WIDTH, HEIGHT),
        np.zeros((1, 4), np.float32),
        np.ones(1, np.float32),
        intrinsics,
        place.spawn,
    )
    write_world(folder / f"{place_name}.world", world)
    return folder / f"{place_name}.world"


class Player:
    """A player at an application that shows its window nowhere."""

    def __init__(self, options: PlayOptions, folders: list[Path], pictures_dir: Path) -> None:
        self.window = Window(640, 384, unseen=True)
        self.context = AppContext(options, self.window, Settings(), pictures_dir, folders, time.perf_counter)
        self.app = App(self.context)

    @property
    def walk(self) -> WalkScreen:
        assert isinstance(self.app.screen, WalkScreen)
        return self.app.screen

    def wait(self, done: Callable[[], bool], what: str) -> None:
        deadline_s = time.perf_counter() + PATIENCE_S
        while not done():
            assert time.perf_counter() < deadline_s, f"waited in vain for {what}"
            self.app.turn()
            time.sleep(0.002)

    def wait_for(self, screen: type[object]) -> None:
        self.wait(lambda: isinstance(self.app.screen, screen), screen.__name__)

    def key(self, scancode: int, down: bool | None = None) -> None:
        """Press and release a key, or only one of the two."""
        key = key_of(scancode)
        for event_type in (pygame.KEYDOWN, pygame.KEYUP):
            if down is None or down == (event_type == pygame.KEYDOWN):
                pygame.event.post(pygame.event.Event(event_type, key=key, scancode=scancode, mod=0))
        self.app.turn()

    def post(self, event_type: int, **fields: Any) -> None:
        pygame.event.post(pygame.event.Event(event_type, **fields))
        self.app.turn()

    def wait_for_files(self) -> None:
        self.wait(lambda: self.context.jobs.current is None, "files to be written")

    def frames_go_by(self, number: int) -> None:
        start = self.walk.walk.frame.index
        self.wait(lambda: self.walk.walk.frame.index >= start + number, f"{number} frames")

    def close(self) -> None:
        self.app.screen.leave()
        self.context.jobs.finish()
        self.window.close()


def key_of(scancode: int) -> int:
    """Return the key symbol of a US keyboard's scancode, for the keys these tests press."""
    named = {
        pygame.KSCAN_RETURN: pygame.K_RETURN,
        pygame.KSCAN_ESCAPE: pygame.K_ESCAPE,
        pygame.KSCAN_RIGHT: pygame.K_RIGHT,
        pygame.KSCAN_LEFT: pygame.K_LEFT,
        pygame.KSCAN_DOWN: pygame.K_DOWN,
        pygame.KSCAN_UP: pygame.K_UP,
    }
    return named.get(scancode, pygame.K_UNKNOWN)


class VirtualPad:
    """A gamepad that SDL makes up: from its joystick layer on everything is as with a device."""

    def __init__(self) -> None:
        self._sdl = _loaded_sdl()
        self._sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        self._index = -1
        self._device: ctypes.c_void_p | None = None

    def plug_in(self) -> None:
        """Appear as a new device, with the axes and buttons of a game controller."""
        game_controller, num_axes, num_buttons, num_hats = 1, 6, 21, 0
        self._index = self._sdl.SDL_JoystickAttachVirtual(game_controller, num_axes, num_buttons, num_hats)
        assert self._index >= 0
        self._device = ctypes.c_void_p(self._sdl.SDL_JoystickOpen(self._index))

    def pull_out(self) -> None:
        """Be gone, whatever is held."""
        if self._device is not None:
            self._sdl.SDL_JoystickClose(self._device)
            self._sdl.SDL_JoystickDetachVirtual(self._index)
            self._device = None

    def push(self, axis: int, value: float) -> None:
        """Hold a stick in [-1, 1], or a trigger, which rests at -1."""
        assert self._device is not None
        self._sdl.SDL_JoystickSetVirtualAxis(self._device, axis, ctypes.c_int16(round(value * 32767)))

    def hold(self, button: int, down: bool = True) -> None:
        assert self._device is not None
        self._sdl.SDL_JoystickSetVirtualButton(self._device, button, int(down))


def _loaded_sdl() -> ctypes.CDLL:
    """Return the SDL that pygame runs on; a second copy would know nothing of its window."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux says which SDL library pygame has loaded")
    files = {line.split()[-1] for line in maps.read_text().splitlines() if "SDL2" in line}
    for file in sorted(files):
        library = ctypes.CDLL(file)
        if hasattr(library, "SDL_JoystickAttachVirtual"):
            return library
    pytest.skip("this SDL has no virtual gamepads")
