"""What the commands print: results on stdout, everything else on stderr; which extra to install where a library is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from engine.machine.installing import install_line

OPTIONAL_LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "ml_dtypes",
    "transformers",
    "yaml",
    "PIL",
    "skimage",
    "scipy",
    "filelock",
    "numba",
    "pycolmap",
    "scenedetect",
    "ray",
)
"""Libraries of the extras."""


class Advance(Protocol):
    """Tell a progress bar how far the work has come."""

    def __call__(self, done: int) -> None: ...


class Interrupted(Exception):
    """The user asked to stop; the message says what is left and how to go on."""


def say_error(sentence: str) -> None:
    """Print one sentence for the user on stderr."""
    print(f"flaneur: {sentence}", file=sys.stderr)


def say(text: str) -> None:
    """Print a note on stderr."""
    print(text, file=sys.stderr)


def print_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object as the last line of stdout."""
    print(json.dumps(result, allow_nan=False), flush=True)


def print_table(rows: Mapping[str, Any]) -> None:
    """Print names and values on stdout, one pair a line; empty values are left out."""
    rows = {name: value for name, value in rows.items() if value not in (None, "", [])}
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        print(f"{name.replace('_', ' '):<{width}}  {value}")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout: a heading and rows of as many cells, in columns."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Show a progress bar on stderr while the block runs, if stderr is a terminal.

    Args:
        what: The work, in a few words.
        total: Number of steps; None where it is not known, which shows a pulse.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # ModelOpt's own bars go to whatever stderr is at their time, which is swallowed.
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def stages() -> Iterator[Callable[[str, int | None], Advance]]:
    """Show one progress bar after the other, and a line for each; the block opens the next by its work and number of steps."""
    with ExitStack() as bars:

        def stage(what: str, total: int | None) -> Advance:
            bars.close()
            say(what)
            return bars.enter_context(progress(what, total))

        yield stage


@contextmanager
def extra_needed(what: str, extra: str) -> Iterator[None]:
    """Turn a missing optional library inside the block into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in OPTIONAL_LIBRARIES:
            raise
        raise ValueError(
            f"{what} needs {library}, which is not installed; in a clone run {install_line(extra)}"
        ) from error
