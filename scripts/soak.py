"""Plays at random for a while and measures what the program still holds afterwards.

    python scripts/soak.py [--minutes 10] [--seed 0] [--backend auto] [--json]

Ten thousand seeded events a minute go to the real application on a driver that shows nothing: keys, mouse,
gamepad buttons, resizing, losing the focus, whatever screen is on. Threads, open files and memory are measured on
the start screen, after a warm-up and at equal distances to the end. Exits with 1 if a screen failed or something leaked.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {"SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pygame

from client.app import App
from client.input.actions import ACTIONS
from client.input.controls import MOVING
from client.playback.resource_usage import ResourceUsage, release_memory, resource_usage
from client.screens.loading_screen import LoadingScreen
from client.screens.menu_stack import ProblemScreen
from client.screens.walk_screen import WalkScreen
from client.setup.folders import OWN_WORLDS
from client.setup.options import PlayOptions
from client.setup.settings import Settings
from client.ui.app_context import AppContext
from client.ui.window import Window
from engine.errors import EngineError
from engine.files.recording import read_recording
from engine.files.world import SUFFIX, find_made_in
from engine.machine.assets import worlds_dir

EVENTS_A_MINUTE = 10_000
TURNS_A_SECOND = 60
WARM_UP = 0.25
"""Share of the time after which what is held counts as what is needed."""
NUM_MEASURED = 6
MOST_GROWTH_MB = 64.0
"""Growth from then on that is no leak: caches of texts and pictures, and what the allocator keeps."""
SWEEP_EVERY_S = 15.0
"""Photos and recordings are removed so often, or a soak would fill the disk."""
PATIENCE = 0.98
"""Share of the events that are no more than mouse motion while a world is opened, so that some are."""
MENU_KEYS = (
    *(pygame.K_UP, pygame.K_DOWN, pygame.K_LEFT, pygame.K_RIGHT, pygame.K_RETURN, pygame.K_ESCAPE),
    *(pygame.K_HOME, pygame.K_END, pygame.K_PAGEUP, pygame.K_PAGEDOWN, pygame.K_TAB),
    *(pygame.K_F2, pygame.K_DELETE, pygame.K_BACKSPACE),
)
REPLAYS_A_MINUTE = 2.0
"""How often the newest recording is replayed."""
REST_S = 60.0
"""Longest wait for threads to end before what is left counts."""
SIZES = ((1280, 768), (640, 384), (320, 192), (1, 1), (1600, 90), (90, 900))


@dataclass
class Report:
    """What a soak found."""

    seed: int
    seconds: float
    """Of playing; opening, measuring and closing not counted."""
    backend: str
    events: int = 0
    turns: int = 0
    slowest_turn_ms: float = 0.0
    slowest_turn: str = ""
    """The screens before and after it."""
    quits_undone: int = 0
    screens: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What screens that failed said."""
    held: list[ResourceUsage] = field(default_factory=list)
    """Measured on the start screen at equal distances; the first after the warm-up."""

    @property
    def growth_mb(self) -> float:
        """Growth between the two halves of what was measured, by their medians: one measurement means little."""
        memory_mb = [held.memory_bytes / 2**20 for held in self.held]
        half = (len(memory_mb) + 1) // 2
        return median(memory_mb[-half:]) - median(memory_mb[:half])

    @property
    def leaks(self) -> list[str]:
        """What is held at the end and was not after the warm-up."""
        return what_leaked(self.held[0], self.held[-1], self.growth_mb)


def what_leaked(before: ResourceUsage, after: ResourceUsage, growth_mb: float) -> list[str]:
    """Say what is held after a run and was not before it."""
    found: list[str] = []
    if after.num_threads > before.num_threads:
        found.append(f"threads: {before.num_threads} became {after.num_threads}")
    if (after.num_handles or 0) > (before.num_handles or 0):
        found.append(f"open files: {before.num_handles} became {after.num_handles}")
    if growth_mb > MOST_GROWTH_MB:
        found.append(f"memory grew by {growth_mb:.1f} MB")
    return found


class Soak:
    """An application, and hands on it that know nothing of what they do."""

    def __init__(self, seed: int, worlds: Path, backend: str, scratch: Path) -> None:
        self._chance = random.Random(seed)
        self._scratch = scratch
        self._window = Window(640, 384, unseen=True)
        options = PlayOptions(backend=backend)  # type: ignore[arg-type]
        folders = [worlds, scratch / OWN_WORLDS]
        self._worlds = worlds
        self._context = AppContext(options, self._window, Settings(), scratch, folders, time.perf_counter)
        self._app = App(self._context)
        self._report = Report(seed, 0.0, backend)
        self._screens: Counter[str] = Counter()
        self._swept_s = 0.0
        self._last_screen = 0
        moving = [scancode for action in ACTIONS if action.name in MOVING for scancode in action.keys]
        self._moving = moving

    def run(self, seconds: float) -> Report:
        """Play, measuring after the warm-up and at the end."""
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RETURN, scancode=0, mod=0))
        self._play(WARM_UP * seconds)
        self._report.held.append(self._measure())
        for _ in range(NUM_MEASURED - 1):
            self._play((1 - WARM_UP) * seconds / (NUM_MEASURED - 1))
            self._report.held.append(self._measure())
        self._report.seconds = seconds
        self._report.screens = dict(self._screens)
        return self._report

    def close(self) -> None:
        self._app.screen.leave()
        self._context.jobs.finish()
        self._window.close()

    def _play(self, seconds: float) -> None:
        start_s, events_before = time.perf_counter(), self._report.events
        while (now_s := time.perf_counter()) < start_s + seconds:
            due = events_before + int((now_s - start_s) * EVENTS_A_MINUTE / 60)
            while self._report.events < due:
                self._post()
                self._report.events += 1
            self._turn()
            if now_s - self._swept_s > SWEEP_EVERY_S:
                self._sweep()
            time.sleep(max(0.0, 1 / TURNS_A_SECOND - (time.perf_counter() - now_s)))

    def _turn(self) -> None:
        began_s, before = time.perf_counter(), type(self._app.screen).__name__
        self._app.turn()
        turn_ms = 1e3 * (time.perf_counter() - began_s)
        if turn_ms > self._report.slowest_turn_ms:
            self._report.slowest_turn_ms = round(turn_ms, 1)
            self._report.slowest_turn = f"{before} to {type(self._app.screen).__name__}"
        self._report.turns += 1
        screen = self._app.screen
        # By its id: a reference would keep what the screen holds.
        if id(screen) != self._last_screen:
            self._last_screen = id(screen)
            self._screens[type(screen).__name__] += 1
        self._note_problem()
        if not self._context.running:
            self._context.running = True
            self._report.quits_undone += 1

    def _note_problem(self) -> None:
        screen = self._app.screen
        menus = screen.menus if isinstance(screen, ProblemScreen) else None
        menus = screen._menus if isinstance(screen, WalkScreen) and screen._menus.broken else menus
        menu = menus.top if menus is not None else None
        menu = screen.problem if isinstance(screen, LoadingScreen) else menu
        if menu is not None and (not self._report.problems or self._report.problems[-1] != menu.text):
            self._report.problems.append(menu.text)

    def _post(self) -> None:
        """Post one event, most of them such as a player could make."""
        chance = self._chance
        kind = chance.random()
        if isinstance(self._app.screen, LoadingScreen) and kind < PATIENCE:
            kind = 0.75
        if kind < 0.45:
            self._post_key(chance.choice(self._moving), pygame.K_UNKNOWN)
        elif kind < 0.60:
            self._post_key(chance.randrange(4, 232), pygame.K_UNKNOWN)
        elif kind < 0.63:
            self._post_key(0, chance.choice(MENU_KEYS))
        elif kind < 0.64:
            self._event(pygame.TEXTINPUT, text=chance.choice("ab /.-"))
        elif kind < 0.64 + REPLAYS_A_MINUTE / EVENTS_A_MINUTE:
            self._replay()
        elif kind < 0.85:
            rel = chance.randrange(-60, 60), chance.randrange(-40, 40)
            pos = chance.randrange(640), chance.randrange(384)
            self._event(pygame.MOUSEMOTION, rel=rel, pos=pos, buttons=(0, 0, 0))
        elif kind < 0.90:
            pos = chance.randrange(640), chance.randrange(384)
            self._event(pygame.MOUSEBUTTONDOWN, button=chance.randrange(1, 4), pos=pos)
        elif kind < 0.93:
            self._event(pygame.MOUSEWHEEL, x=0, y=chance.choice((-1, 1)))
        elif kind < 0.97:
            self._event(pygame.CONTROLLERBUTTONDOWN, button=chance.randrange(15), instance_id=0)
        elif kind < 0.995:
            self._event(
                chance.choice((pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED, pygame.WINDOWEXPOSED))
            )
        else:
            size = chance.choice(SIZES)
            if not self._window.fullscreen:
                pygame.display.set_mode(size, pygame.RESIZABLE)
            self._event(pygame.VIDEORESIZE, size=size, w=size[0], h=size[1])

    def _replay(self) -> None:
        """Replay the newest recording of a shipped world, if there is one."""
        file = self._scratch / ".replay.flaneur"
        for path in sorted(self._scratch.glob("[!.]*.flaneur"), reverse=True):
            shutil.copyfile(path, file)
            with suppress(ValueError, EngineError):
                header = read_recording(file).header
                if find_made_in(header.world, header.world_sha256, [self._worlds]) is not None:
                    backend = self._context.options.backend
                    self._app.open(PlayOptions(replay=file, backend=backend))
                    return

    def _post_key(self, scancode: int, key: int) -> None:
        event_type = pygame.KEYDOWN if self._chance.random() < 0.5 else pygame.KEYUP
        self._event(event_type, key=key, scancode=scancode, mod=0)

    def _event(self, event_type: int, **fields: Any) -> None:
        pygame.event.post(pygame.event.Event(event_type, **fields))

    def _sweep(self) -> None:
        """Remove the files of finished recordings and of photos; worlds stay, since nobody takes them from under a player."""
        self._swept_s = time.perf_counter()
        screen = self._app.screen
        recording = screen.walk.recorder.path if isinstance(screen, WalkScreen) else None
        for file in self._scratch.rglob("*"):
            kept = file.name.startswith(".") or file.suffix == SUFFIX
            if file.is_file() and file != recording and not kept:
                file.unlink(missing_ok=True)

    def _measure(self) -> ResourceUsage:
        pygame.event.clear()
        return measure_at_rest(self._context, self._app)


def measure_at_rest(context: AppContext, app: App) -> ResourceUsage:
    """Go back to the start screen, where nothing of a walk should be held, and measure."""
    context.show(app._start)
    app.turn()
    context.survey().join(REST_S)
    deadline_s = time.perf_counter() + REST_S
    gc.collect()
    # Threads of a walk that was being opened when it was left end by themselves, and those of files when they are done.
    while resource_usage().num_threads > 1 and time.perf_counter() < deadline_s:
        app.turn()
        time.sleep(0.05)
    gc.collect()
    release_memory()
    return resource_usage()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", type=Path, default=worlds_dir(), help="folder of world files")
    parser.add_argument("--backend", default="auto", choices=["auto", "onnxruntime", "holodeck"])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        soak = Soak(arguments.seed, arguments.worlds, arguments.backend, Path(scratch))
        try:
            report = soak.run(60 * arguments.minutes)
        finally:
            soak.close()
    found = asdict(report) | {"growth_mb": round(report.growth_mb, 1), "leaks": report.leaks}
    print(json.dumps(found) if arguments.json else "\n".join(f"{k:16} {v}" for k, v in found.items()))
    return 1 if report.problems or report.leaks else 0


if __name__ == "__main__":
    sys.exit(main())
