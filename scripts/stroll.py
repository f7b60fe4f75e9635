"""Plays calmly for half an hour, as a player would, and measures every minute what the program holds.

    python scripts/stroll.py [--minutes 30] [--world town] [--seed 0] [--backend auto] [--json]

Real events go to the real application on a driver that shows nothing: walking, looking, standing, with a recording on
all the time; saves, loads, rewinds, branches, clips, photos, pauses and new worlds now and then. The start screen is
measured before and after. Exits with 1 if the walk broke, a recording is not whole, or something leaked.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pygame

from client.app import App
from client.playback.resource_usage import ResourceUsage, resource_usage
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from client.setup.settings import Settings
from client.ui.app_context import AppContext
from client.ui.window import Window
from engine.errors import EngineError
from engine.files.recording import SUFFIX, read_recording
from engine.machine.assets import worlds_dir
from scripts.soak import TURNS_A_SECOND, measure_at_rest, what_leaked

KEYS = {
    "save": pygame.KSCAN_F5,
    "load": pygame.KSCAN_F9,
    "clip": pygame.KSCAN_F8,
    "photo": pygame.KSCAN_F12,
    "new world": pygame.KSCAN_F6,
    "other branch": pygame.KSCAN_B,
    "figures": pygame.KSCAN_F3,
    "map": pygame.KSCAN_M,
    "next world": pygame.KSCAN_N,
}
EVERY_S = {
    "save": 50.0,
    "load": 130.0,
    "rewind": 70.0,
    "other branch": 170.0,
    "clip": 200.0,
    "photo": 45.0,
    "pause": 150.0,
    "figures": 90.0,
    "map": 110.0,
    "new world": 290.0,
    "next world": 610.0,
}
"""How often each is done, on average."""
STROLLS = (
    (pygame.KSCAN_W,),
    (pygame.KSCAN_W, pygame.KSCAN_LEFT),
    (pygame.KSCAN_W, pygame.KSCAN_RIGHT),
    (pygame.KSCAN_W, pygame.KSCAN_LSHIFT),
    (pygame.KSCAN_A,),
    (pygame.KSCAN_D,),
    (pygame.KSCAN_S,),
    (pygame.KSCAN_E,),
    (pygame.KSCAN_C,),
    (pygame.KSCAN_X, pygame.KSCAN_V),
    (),
    (),
)
"""Keys that are held together for some seconds."""
JUDGED = 1 / 3
"""Share of the walk, at its end, that is held against what came before it."""


@dataclass
class Report:
    """What a stroll found."""

    seed: int
    minutes: float
    world: str
    backend: str
    done: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    recordings: int = 0
    recorded_chunks: int = 0
    problems: list[str] = field(default_factory=list)
    at_rest: list[ResourceUsage] = field(default_factory=list)
    """On the start screen, after a first minute and after the last."""
    each_minute: list[ResourceUsage] = field(default_factory=list)
    """In the middle of the walk."""
    past_bytes: list[int] = field(default_factory=list)
    """What the moments to go back to took of it; they have a bound of their own."""

    @property
    def growth_mb(self) -> float:
        """How much more was held at most toward the end than before, but for what the past took then.

        The most, since a new world empties the past and another one is opened with less: both say nothing of leaks.
        """
        memory_bytes = [held.memory_bytes for held in self.each_minute]
        return (_gain(memory_bytes) - max(0, _gain(self.past_bytes))) / 2**20

    @property
    def leaks(self) -> list[str]:
        return what_leaked(self.at_rest[0], self.at_rest[-1], self.growth_mb)


def _gain(values: Sequence[int]) -> int:
    """Return by how much the largest of the last values exceeds the largest before them."""
    begin = len(values) - round(JUDGED * len(values))
    return max(values[begin:]) - max(values[:begin]) if values[begin:] else 0


class Stroll:
    """An application, and calm hands on it."""

    def __init__(self, world: str, seed: int, backend: str, scratch: Path) -> None:
        self._chance = random.Random(seed)
        self._scratch = scratch
        self._window = Window(640, 384, unseen=True)
        options = PlayOptions(world=world, backend=backend)  # type: ignore[arg-type]
        self._context = AppContext(
            options, self._window, Settings(), scratch, [worlds_dir(), scratch / "worlds"], time.perf_counter
        )
        self._app = App(self._context)
        self._options = options
        self._held: tuple[int, ...] = ()
        self._done: Counter[str] = Counter()
        self._report = Report(seed, 0.0, world, backend)
        self._last_frame = 0
        self._hands = self._play_on()

    def run(self, minutes: float) -> Report:
        """Play, and measure each minute."""
        self._play(60.0 * min(1.0, minutes))
        self._report.at_rest.append(self._rest())
        self._app.open(self._options)
        whole, rest = divmod(minutes, 1.0)
        for _ in range(int(whole)):
            self._play(60.0)
            self._report.each_minute.append(resource_usage())
            self._report.past_bytes.append(self._past_bytes())
        self._play(60.0 * rest)
        self._report.at_rest.append(self._rest())
        self._report.minutes = minutes
        self._report.done = dict(self._done)
        self._check_recordings()
        return self._report

    def close(self) -> None:
        self._app.screen.leave()
        self._context.jobs.finish()
        self._window.close()

    def _play(self, seconds: float) -> None:
        end_s = time.perf_counter() + seconds
        while (now_s := time.perf_counter()) < end_s:
            next(self._hands)
            self._app.turn()
            self._note()
            time.sleep(max(0.0, 1 / TURNS_A_SECOND - (time.perf_counter() - now_s)))
        self._hold(())

    def _play_on(self) -> Iterator[None]:
        """Do what a player does, a little in each turn."""
        next_s = {name: self._soon(name) for name in EVERY_S}
        while True:
            self._hold(self._chance.choice(STROLLS))
            until_s = time.perf_counter() + self._chance.uniform(1.0, 7.0)
            while time.perf_counter() < until_s:
                if self._chance.random() < 0.1:
                    rel = round(self._chance.gauss(0, 9)), round(self._chance.gauss(0, 4))
                    pygame.event.post(
                        pygame.event.Event(pygame.MOUSEMOTION, rel=rel, pos=(9, 9), buttons=(0, 0, 0))
                    )
                yield
            for name in [name for name, at_s in next_s.items() if at_s < time.perf_counter()]:
                next_s[name] = self._soon(name)
                yield from self._do(name)
            # Nothing is kept of the screen in here: it would hold a walk that was left.
            if self._is_walking() and not self._is_recording():
                yield from self._do("record")
            if self._is_walking() and not self._context.mouse_grabbed:
                pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(9, 9)))
                yield

    def _is_walking(self) -> bool:
        return isinstance(self._app.screen, WalkScreen)

    def _is_recording(self) -> bool:
        screen = self._app.screen
        return isinstance(screen, WalkScreen) and screen.walk.recorder.path is not None

    def _past_bytes(self) -> int:
        screen = self._app.screen
        return screen.walk.history.num_bytes if isinstance(screen, WalkScreen) else 0

    def _do(self, name: str) -> Iterator[None]:
        """Do one thing that is done now and then."""
        self._done[name] += 1
        if name == "rewind":
            self._key(pygame.KSCAN_R, True)
            yield from self._wait(self._chance.uniform(0.1, 2.5))
            self._key(pygame.KSCAN_R, False)
        elif name == "pause":
            self._hold(())
            yield from self._tap(pygame.KSCAN_P)
            yield from self._wait(self._chance.uniform(1.0, 5.0))
            yield from self._tap(pygame.KSCAN_P)
        elif name == "record":
            yield from self._tap(pygame.KSCAN_F10)
        else:
            yield from self._tap(KEYS[name])

    def _wait(self, seconds: float) -> Iterator[None]:
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            yield

    def _tap(self, scancode: int) -> Iterator[None]:
        self._key(scancode, True)
        yield
        self._key(scancode, False)
        yield

    def _soon(self, name: str) -> float:
        return time.perf_counter() + EVERY_S[name] * self._chance.uniform(0.5, 1.5)

    def _hold(self, keys: tuple[int, ...]) -> None:
        for scancode in self._held:
            self._key(scancode, False)
        for scancode in keys:
            self._key(scancode, True)
        self._held = keys

    def _key(self, scancode: int, down: bool) -> None:
        kind = pygame.KEYDOWN if down else pygame.KEYUP
        pygame.event.post(pygame.event.Event(kind, key=pygame.K_UNKNOWN, scancode=scancode, mod=0))

    def _note(self) -> None:
        """Note new frames, and what the screen says has gone wrong."""
        screen = self._app.screen
        if not isinstance(screen, WalkScreen):
            return
        index = screen.walk.frame.index
        self._report.frames += index != self._last_frame
        self._last_frame = index
        menu = screen._menus.top if screen._menus.broken else None
        if menu is not None and menu.text not in self._report.problems:
            self._report.problems.append(menu.text)

    def _rest(self) -> ResourceUsage:
        pygame.event.clear()
        return measure_at_rest(self._context, self._app)

    def _check_recordings(self) -> None:
        """Read every recording that was made: each must be whole."""
        self._context.jobs.finish()
        for file in sorted(self._scratch.rglob(f"*{SUFFIX}")):
            try:
                recording = read_recording(file)
            except (EngineError, ValueError) as error:
                self._report.problems.append(str(error))
                continue
            self._report.recordings += 1
            self._report.recorded_chunks += len(recording.chunks)
            if not recording.complete:
                self._report.problems.append(f"{file.name} is not whole")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--world", default="town")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto", choices=["auto", "onnxruntime", "holodeck"])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        stroll = Stroll(arguments.world, arguments.seed, arguments.backend, Path(scratch))
        try:
            report = stroll.run(arguments.minutes)
        finally:
            stroll.close()
    found: dict[str, Any] = asdict(report) | {"growth_mb": round(report.growth_mb, 1), "leaks": report.leaks}
    print(json.dumps(found) if arguments.json else "\n".join(f"{k:16} {v}" for k, v in found.items()))
    return 1 if report.problems or report.leaks else 0


if __name__ == "__main__":
    sys.exit(main())
