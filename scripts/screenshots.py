"""Takes the screenshots of the documentation from the current build.

    python scripts/screenshots.py [--worlds FOLDER] [--backend BACKEND] [-o docs/screenshots]

Drives the real application with real events on a driver that shows nothing, so it needs no display.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import pygame

from client.app import App
from client.screens.loading_screen import LoadingScreen
from client.screens.start_screen import StartScreen
from client.screens.walk_screen import WalkScreen
from client.setup.folders import OWN_WORLDS
from client.setup.options import PlayOptions
from client.setup.settings import Settings
from client.ui.app_context import AppContext
from client.ui.window import Window
from engine.machine.assets import worlds_dir

SIZE = (1024, 640)
PATIENCE_S = 120.0


class Photographer:
    """An application, the hands on it, and the folder its pictures go to."""

    def __init__(self, options: PlayOptions, folders: list[Path], out: Path, size: tuple[int, int]) -> None:
        self._out = out
        self._scratch = tempfile.TemporaryDirectory()
        self.window = Window(*size, unseen=True)
        # The dummy driver has a small desktop; a picture for the docs has the size asked for.
        pygame.display.set_mode(size, pygame.RESIZABLE)
        pictures = Path(self._scratch.name)
        folders = [*folders, pictures / OWN_WORLDS]
        self.context = AppContext(options, self.window, Settings(), pictures, folders, time.perf_counter)
        self.app = App(self.context)

    def wait(self, done: Callable[[], bool]) -> None:
        deadline_s = time.perf_counter() + PATIENCE_S
        while not done():
            if time.perf_counter() > deadline_s:
                raise TimeoutError("the application did not come so far")
            self.app.turn()
            time.sleep(0.005)

    def key(self, scancode: int, key: int = pygame.K_UNKNOWN, down: bool | None = None) -> None:
        for event_type in (pygame.KEYDOWN, pygame.KEYUP):
            if down is None or down == (event_type == pygame.KEYDOWN):
                pygame.event.post(pygame.event.Event(event_type, key=key, scancode=scancode, mod=0))
        self.app.turn()

    def menu(self, *keys: int) -> None:
        """Press keys as a menu reads them."""
        for key in keys:
            self.key(0, key)

    def start_key(self) -> str | None:
        """Return which button of the start screen is chosen."""
        assert isinstance(self.app.screen, StartScreen)
        return self.app.screen.button

    def has_problem(self) -> bool:
        """Say whether the loading screen explains why it goes no further."""
        return isinstance(self.app.screen, LoadingScreen) and self.app.screen.problem is not None

    def walk(self, seconds: float, *scancodes: int) -> None:
        """Hold keys for a length of the walk, whatever time it takes to make."""
        screen = self.app.screen
        assert isinstance(screen, WalkScreen)
        end = screen.walk.frame.index + round(seconds * screen.walk.session.fps)
        for scancode in scancodes:
            self.key(scancode, down=True)
        self.wait(lambda: screen.walk.frame.index >= end)
        for scancode in scancodes:
            self.key(scancode, down=False)

    def hold(self, seconds: float, scancode: int, name: str) -> None:
        """Hold a key for a time and save what the window shows before it is let go."""
        self.key(scancode, down=True)
        end_s = time.perf_counter() + seconds
        self.wait(lambda: time.perf_counter() >= end_s)
        self.take(name)
        self.key(scancode, down=False)

    def is_walking(self) -> bool:
        return isinstance(self.app.screen, WalkScreen)

    def opening_world(self) -> bool:
        """Say whether the loading screen knows the world by now."""
        return isinstance(self.app.screen, LoadingScreen) and self.app.screen.world is not None

    def open(self, options: PlayOptions) -> None:
        """Go to another world, or replay a walk."""
        self.app.open(options)
        self.wait(lambda: isinstance(self.app.screen, LoadingScreen))
        self.wait(self.is_walking)

    def pick(self, line: str) -> None:
        """Pick a line of the pause by its name."""
        screen = self.app.screen
        assert isinstance(screen, WalkScreen)
        self.wait(lambda: self.context.jobs.current is None)
        self.key(pygame.KSCAN_P)
        menu = screen.menu
        assert menu is not None
        menu.chosen = [choice.key for choice in menu.choices].index(line)
        self.menu(pygame.K_RETURN)

    def clear_messages(self) -> None:
        """Wait until no message is on the screen."""
        self.wait(lambda: not self.context.toasts.texts(time.perf_counter()))

    def take(self, name: str) -> None:
        """Save what the window shows."""
        self.app.draw(time.perf_counter())
        picture = pygame.surfarray.array3d(self.window.surface).swapaxes(0, 1)
        self._out.mkdir(parents=True, exist_ok=True)
        file = self._out / f"{name}.png"
        cv2.imwrite(str(file), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(f"{file}  {file.stat().st_size >> 10} KB")

    def close(self) -> None:
        self.app.screen.leave()
        self.window.close()
        self._scratch.cleanup()


def take_menus(photographer: Photographer) -> None:
    """The start screen, and the cards that its buttons open."""
    photographer.take("start")
    while photographer.start_key() is None:
        photographer.menu(pygame.K_DOWN)
    photographer.menu(pygame.K_RETURN)
    photographer.context.survey().join(PATIENCE_S)
    photographer.app.turn()
    photographer.menu(pygame.K_DOWN)
    photographer.take("engines")
    for name in ("settings", "keys"):
        photographer.menu(pygame.K_ESCAPE, pygame.K_RIGHT, pygame.K_RETURN)
        photographer.take(name)
    photographer.menu(pygame.K_ESCAPE, pygame.K_UP, pygame.K_UP)


def take_walk(photographer: Photographer) -> None:
    """From the start screen through a walk with everything that can lie over it."""
    context = photographer.context
    photographer.menu(pygame.K_RETURN)
    photographer.wait(lambda: isinstance(photographer.app.screen, LoadingScreen))
    photographer.wait(lambda: photographer.opening_world() or photographer.is_walking())
    if not photographer.is_walking():
        photographer.take("loading")
    photographer.wait(photographer.is_walking)
    photographer.walk(1.5, pygame.KSCAN_W)
    photographer.walk(0.5, pygame.KSCAN_RIGHT)
    photographer.clear_messages()
    photographer.take("walk")
    photographer.key(pygame.KSCAN_F3)
    photographer.key(pygame.KSCAN_M)
    photographer.key(pygame.KSCAN_H)
    photographer.walk(2.0, pygame.KSCAN_LEFT, pygame.KSCAN_W)
    photographer.walk(1.0, pygame.KSCAN_D)
    photographer.key(pygame.KSCAN_W, down=True)
    photographer.key(pygame.KSCAN_LEFT, down=True)
    photographer.walk(1.0)
    photographer.take("figures")
    photographer.key(pygame.KSCAN_W, down=False)
    photographer.key(pygame.KSCAN_LEFT, down=False)
    photographer.key(pygame.KSCAN_F1)
    photographer.take("help")
    photographer.key(pygame.KSCAN_ESCAPE)
    photographer.key(pygame.KSCAN_P)
    photographer.take("pause")
    photographer.key(pygame.KSCAN_P)
    for scancode in (pygame.KSCAN_F3, pygame.KSCAN_M, pygame.KSCAN_H):
        photographer.key(scancode)
    photographer.hold(1.0, pygame.KSCAN_R, "rewind")
    photographer.walk(1.0)
    photographer.clear_messages()
    photographer.key(pygame.KSCAN_F10)
    photographer.walk(1.0, pygame.KSCAN_E, pygame.KSCAN_X)
    photographer.take("recording")
    photographer.key(pygame.KSCAN_F10)
    recording = next(context.pictures_dir.rglob("*.flaneur"))
    options = PlayOptions(replay=recording, world=context.worlds[0].name, backend=context.options.backend)
    context.toasts.clear()
    photographer.open(options)
    photographer.walk(2.5)
    photographer.take("replay")


def take_kept(photographer: Photographer) -> None:
    """A world that was begun in a walk, the list of saved walks, and the start screen with both."""
    options = PlayOptions(
        world=photographer.context.worlds[0].name, backend=photographer.context.options.backend
    )
    photographer.open(options)
    photographer.walk(1.5, pygame.KSCAN_W)
    photographer.key(pygame.KSCAN_F5)
    photographer.walk(1.0, pygame.KSCAN_LEFT)
    photographer.key(pygame.KSCAN_F5)
    photographer.key(pygame.KSCAN_F6)
    photographer.walk(0.5)
    photographer.pick("worlds")
    photographer.wait(lambda: isinstance(photographer.app.screen, StartScreen))
    photographer.context.toasts.clear()
    photographer.take("own-worlds")
    photographer.open(options)
    photographer.walk(0.5)
    photographer.pick("saved")
    photographer.context.toasts.clear()
    photographer.take("saved")


def take_problem(photographer: Photographer) -> None:
    """What is said of a world that is not there any more."""
    missing = PlayOptions(world=str(photographer.context.pictures_dir / "gone.world"))
    photographer.app.open(missing)
    photographer.wait(photographer.has_problem)
    photographer.take("problem")


def take_worlds(photographer: Photographer) -> None:
    """A little way into each world."""
    for card in list(photographer.context.worlds):
        options = PlayOptions(world=card.name, backend=photographer.context.options.backend)
        photographer.open(options)
        photographer.walk(1.0, pygame.KSCAN_W)
        photographer.context.toasts.clear()
        photographer.take(f"world-{Path(card.name).stem}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worlds", type=Path, default=worlds_dir(), help="folder of world files")
    parser.add_argument("--backend", default="auto", choices=["auto", "onnxruntime", "holodeck"])
    parser.add_argument("--each-world", action="store_true", help="also take a picture in each world")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/screenshots"))
    arguments = parser.parse_args()
    options = PlayOptions(backend=arguments.backend)
    photographer = Photographer(options, [arguments.worlds], arguments.out, SIZE)
    try:
        take_menus(photographer)
        take_walk(photographer)
        take_kept(photographer)
        take_problem(photographer)
        if arguments.each_world:
            take_worlds(photographer)
    finally:
        photographer.close()


if __name__ == "__main__":
    main()
