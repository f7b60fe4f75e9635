"""Runs the command line and ends it at a named point: `python tests/kill_points.py POINT SIGNAL ARGUMENTS...`.

The signal is sent from inside, so that it strikes where it is meant to; SIGKILL leaves the process no time for anything.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

End = Callable[[], None]


def in_phase(name: str, updates: int) -> Callable[[End], None]:
    """Strike when a phase has told of itself so many times."""

    def lay(end: End) -> None:
        from training.progress import Phase

        update, count = Phase.update, 0

        def told(self: Phase, *args: Any, **kwargs: Any) -> None:
            nonlocal count
            update(self, *args, **kwargs)
            count += self.name == name
            if self.name == name and count == updates:
                end()

        Phase.update = told

    return lay


def in_save(number: int) -> Callable[[End], None]:
    """Strike when half of a training state is written, the n-th of this call."""

    def lay(end: End) -> None:
        from training import checkpoint

        save, count = checkpoint.save_file, 0

        def half(tensors: Any, path: Path, metadata: Any) -> None:
            nonlocal count
            save(tensors, path, metadata)
            count += 1
            if count == number:
                whole = path.read_bytes()
                path.write_bytes(whole[: len(whole) // 2])
                end()

        checkpoint.save_file = half

    return lay


def in_publishing(end: End) -> None:
    """Strike when the bundle is made, and the first world, but nothing is where it belongs yet."""
    from training.pocket import publish

    write, count = publish.write_world, 0

    def second(path: Path, world: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            end()
        write(path, world)

    publish.write_world = second


def after_two_steps(end: End) -> None:
    """Strike in the third step of a stage that saves after each."""
    from training.loop import StageRun

    train = StageRun.train

    def saving(self: StageRun, *args: Any, **named: Any) -> None:
        self.config = replace(self.config, save_every_s=-1.0)
        train(self, *args, **named)

    StageRun.train = saving
    in_phase("chunk-causal", 3)(end)


POINTS: dict[str, Callable[[End], None]] = {
    "rendering": in_phase("rendering clips", 1),
    "save": in_save(3),
    "encoding": in_phase("encoding clips", 1),
    "rollouts": in_phase("own-history", 4),
    "publishing": in_publishing,
    "data": after_two_steps,
}


def lay_kill(point: str, name: str) -> None:
    """Let this process send itself the signal of a name at a point."""
    POINTS[point](lambda: os.kill(os.getpid(), getattr(signal, name)))


if __name__ == "__main__":
    point, name, *arguments = sys.argv[1:]
    lay_kill(point, name)
    from cli.app import run

    sys.exit(run(arguments))
