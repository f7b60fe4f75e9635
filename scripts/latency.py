"""Measures how fast the window answers: the model's answer and that of late reprojection, p50 and p95, as a table.

    python scripts/latency.py [WORLD] [--backend BACKEND] [--seconds 40] [--json]

Drives the real application with real events at random moments between two display frames, on the display there is or,
without one, on a driver that shows nothing. Times run from the event to the moment its picture is handed to the
display; what a real display and a real mouse add is for a camera to measure, with the squares of F4.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
if "DISPLAY" not in os.environ and "WAYLAND_DISPLAY" not in os.environ:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pygame

from client.app import DISPLAY_FPS, App
from client.playback.trace import ChunkLine, CountsLine, InputLine, Line, read_trace
from client.screens.walk_screen import WalkScreen
from client.setup.folders import world_folders
from client.setup.options import PlayOptions
from client.setup.settings import Settings
from client.ui.app_context import AppContext
from client.ui.window import Window
from engine.files.world import find_world
from engine.machine.hardware import num_cores

PATIENCE_S = 120.0
SETTLE_S = 3.0
"""Left out at the beginning: the engine's first chunks and the pacer's learning."""


@dataclass(frozen=True)
class Answers:
    """One row of the table."""

    name: str
    count: int
    p50_ms: float
    p95_ms: float


class Hands:
    """A player with a mouse and keys, who acts between the turns of the application's loop."""

    def __init__(self, app: App, context: AppContext, seed: int) -> None:
        self._app, self._context = app, context
        self._random = np.random.Generator(np.random.Philox(key=[seed, 0]))
        self._heading_px = 0
        self._held: set[int] = set()
        self._arrow: int | None = None
        self._last_arrow = pygame.KSCAN_LEFT
        self.acted_s: list[float] = []
        """When each event was made."""

    def play(self, seconds: float) -> None:
        """Run the loop at display rate and act about four times a second."""
        clock = self._context.clock
        begin_s = next_s = clock()
        act_s = begin_s + SETTLE_S
        while clock() < begin_s + seconds and self._context.running:
            # As after a click; a real window gives the mouse back when it loses the focus.
            self._context.grab_mouse(True)
            next_s = max(next_s + 1.0 / DISPLAY_FPS, clock())
            if act_s < next_s:
                time.sleep(max(0.0, act_s - clock()))
                self._act()
                # A tap on an arrow is short: held on, it would turn the view past what a picture can be turned.
                act_s = clock() + float(self._random.uniform(0.08, 0.15 if self._arrow is not None else 0.4))
            time.sleep(max(0.0, next_s - clock()))
            self._app.turn()

    def _act(self) -> None:
        kind = self._random.integers(4)
        self.acted_s.append(self._context.clock())
        if self._arrow is not None:
            self._turn_key(self._arrow)
            self._arrow = None
        elif kind == 0:
            self._turn_key(pygame.KSCAN_W)
        elif kind == 1:
            self._arrow = pygame.KSCAN_LEFT if self._last_arrow == pygame.KSCAN_RIGHT else pygame.KSCAN_RIGHT
            self._last_arrow = self._arrow
            self._turn_key(self._arrow)
        else:
            # Back and forth, so that the view stays within what a picture can be turned.
            pixels = int(self._random.integers(8, 60)) * (-1 if self._heading_px > 0 else 1)
            self._heading_px += pixels
            pygame.event.post(
                pygame.event.Event(pygame.MOUSEMOTION, rel=(pixels, 0), pos=(9, 9), buttons=(0, 0, 0))
            )

    def _turn_key(self, scancode: int) -> None:
        event_type = pygame.KEYUP if scancode in self._held else pygame.KEYDOWN
        self._held ^= {scancode}
        pygame.event.post(pygame.event.Event(event_type, key=pygame.K_UNKNOWN, scancode=scancode, mod=0))


def measure(
    options: PlayOptions, size: tuple[int, int], seconds: float, instant: bool
) -> tuple[list[Line], list[float]]:
    """Walk and return the trace with the moments of the events."""
    assert options.trace is not None
    window = Window(*size, unseen=os.environ.get("SDL_VIDEODRIVER") == "dummy")
    pygame.display.set_mode(size, pygame.RESIZABLE)
    settings = Settings(reproject=instant)
    folders = world_folders(options.world, options.trace.parent)
    context = AppContext(options, window, settings, options.trace.parent, folders, time.perf_counter)
    app = App(context)
    try:
        deadline_s = time.perf_counter() + PATIENCE_S
        while not isinstance(app.screen, WalkScreen):
            if time.perf_counter() > deadline_s:
                raise TimeoutError("the world did not open")
            app.turn()
            time.sleep(0.005)
        hands = Hands(app, context, seed=1)
        hands.play(seconds)
    finally:
        app.screen.leave()
        window.close()
    return list(read_trace(options.trace)), hands.acted_s


def answers(lines: list[Line], acted_s: list[float], instant: bool) -> list[Answers]:
    """Return the rows of one walk, times from the events themselves."""
    model: dict[bool, list[float]] = {True: [], False: []}
    warped: list[float] = []
    for line in lines:
        if isinstance(line, InputLine) and (made := bisect_right(acted_s, line.at_s)):
            at_s = acted_s[made - 1]
            model[line.looks].append(1e3 * (line.shown_s - at_s))
            if line.warped_s is not None:
                warped.append(1e3 * (line.warped_s - at_s))
    look = "on" if instant else "off"
    rows = [_row(f"walking, model (late reprojection {look})", model[False])]
    rows.append(_row(f"looking, model (late reprojection {look})", model[True]))
    if instant:
        rows.append(_row("looking, turned picture", warped))
    return rows


def _row(name: str, values_ms: list[float]) -> Answers:
    p50, p95 = np.percentile(values_ms, (50, 95)) if values_ms else (math.nan, math.nan)
    return Answers(name, len(values_ms), float(p50), float(p95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("world", nargs="?", default="town")
    parser.add_argument("--backend", default="auto", choices=["auto", "onnxruntime", "holodeck"])
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each of the two walks")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 768), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    rows: list[Answers] = []
    told: dict[str, object] = {
        "world": arguments.world,
        "cores": num_cores(),
        "load": os.getloadavg()[0],
        "weights": find_world(arguments.world, world_folders(arguments.world, Path.cwd())).info.model[:8],
        "driver": "",
    }
    for instant in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "walk.jsonl"
            options = PlayOptions(arguments.world, backend=arguments.backend, trace=trace)
            lines, acted_s = measure(options, tuple(arguments.size), arguments.seconds, instant)
        rows += answers(lines, acted_s, instant)
        chunk_ms = [
            1e3 * (line.ready_s - line.model_start_s) for line in lines if isinstance(line, ChunkLine)
        ]
        counts = next(line for line in lines if isinstance(line, CountsLine))
        p50, p95 = (round(float(value), 1) for value in np.percentile(chunk_ms, (50, 95)))
        told[f"walk with late reprojection {'on' if instant else 'off'}"] = {
            "chunk_ms": {"p50": p50, "p95": p95},
            **counts.model_dump(exclude={"kind"}),
        }
    told["driver"] = os.environ.get("SDL_VIDEODRIVER", "the display's")
    print(f"{'answer':44}{'inputs':>8}{'p50 ms':>9}{'p95 ms':>9}{'p95 in display frames':>24}")
    for row in rows:
        frames = row.p95_ms * DISPLAY_FPS / 1e3
        print(f"{row.name:44}{row.count:8}{row.p50_ms:9.1f}{row.p95_ms:9.1f}{frames:24.2f}")
    for name, value in told.items():
        print(f"{name}: {value}")
    if arguments.json:
        print(json.dumps({**told, "answers": [row.__dict__ for row in rows]}))


if __name__ == "__main__":
    main()
