"""Bundle folders that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel

from engine.files.atomic import set_mode
from engine.files.bundle import SPEC_FILE

PARTIAL = ".partial"
"""Ends the names of folders that are being filled or removed."""
ASIDE = ".old"
"""Ends the name of a bundle for the moment in which another takes its place."""


@contextmanager
def making_bundle(destination: Path, spec_file: str = SPEC_FILE) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `destination` when the block ends well.

    Args:
        spec_file: The description's name, by which a folder of this kind is known.

    Raises:
        ValueError: The destination is something else than a bundle, or the disk is full.
    """
    check_destination(destination, spec_file)
    try:
        with partial_folder(destination) as partial:
            # mkdtemp makes folders for their owner alone; a bundle is there to be shared.
            set_mode(partial, 0o755)
            yield partial
            replace_folder(partial, destination)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"cannot write {destination}: {reason}; free some space or name another place"
        ) from error


@contextmanager
def partial_folder(destination: Path) -> Iterator[Path]:
    """Yield a new folder beside `destination` that is gone when the block ends, by Ctrl-C or SIGTERM too.

    What a killed process left for the same destination is removed first, or comes back if it was the bundle there.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    _clear_up(destination)
    name = tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=PARTIAL)
    with _owning(Path(name)), ending_on_sigterm():
        try:
            yield Path(name)
        finally:
            shutil.rmtree(name, ignore_errors=True)


def _clear_up(destination: Path) -> None:
    """Take care of what killed processes left beside a destination."""
    # Eight characters between are those of mkdtemp; with more of them it is another bundle's.
    begin = f".{glob.escape(destination.name)}.{8 * '?'}"
    for aside in destination.parent.glob(f"{begin}{ASIDE}"):
        # One whose successor is there was killed just before it would have been removed.
        os.replace(aside, aside.with_name(aside.name + PARTIAL) if destination.exists() else destination)
    for stale in (
        *destination.parent.glob(f"{begin}{PARTIAL}"),
        *destination.parent.glob(f"{begin}{ASIDE}{PARTIAL}"),
    ):
        with _owning(stale) as owned:
            if owned:
                shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def _owning(folder: Path) -> Iterator[bool]:
    """Hold a folder against other processes; yields whether none of them does. The system lets go when a process dies."""
    if sys.platform == "win32":
        # Windows locks no folders: there none is ever known to be stale.
        yield False
        return
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """End the block upon SIGTERM as upon Ctrl-C; only the main thread hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_destination(destination: Path, spec_file: str = SPEC_FILE) -> None:
    """Refuse to write a bundle over anything but a bundle."""
    if destination.exists() and not (destination / spec_file).is_file():
        raise ValueError(f"{destination} exists and is no bundle; name a new folder")


def write_spec(folder: Path, spec: BaseModel, spec_file: str = SPEC_FILE) -> None:
    """Write a bundle's description, its last file."""
    (folder / spec_file).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")


def link_or_copy(source: Path, folder: Path) -> None:
    """Put a file into a folder, without a second copy where the disk can."""
    try:
        os.link(source, folder / source.name)
    except OSError:
        shutil.copyfile(source, folder / source.name)


def replace_folder(folder: Path, destination: Path) -> None:
    """Put a finished folder in place of an older one, which comes back if that fails."""
    old = folder.with_suffix(ASIDE)
    replaces = destination.exists()
    if replaces:
        os.replace(destination, old)
    try:
        os.replace(folder, destination)
    except BaseException:
        if replaces:
            os.replace(old, destination)
        raise
    if replaces:
        # Under this name the next run removes it, should this one be killed over it.
        doomed = old.with_name(old.name + PARTIAL)
        with suppress(FileNotFoundError):
            # Another process that begins just now may have been first.
            os.replace(old, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
