"""Bundle folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.bundle import SPEC_FILE, EngineSpec


@contextmanager
def making_bundle(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `destination` when the block ends well.

    Raises:
        ValueError: The destination is something else than a bundle, or the disk is full.
    """
    check_destination(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}."
    partial = Path(tempfile.mkdtemp(dir=destination.parent, prefix=prefix, suffix=".partial"))
    try:
        # mkdtemp makes folders for their owner alone; a bundle is there to be shared.
        partial.chmod(0o755)
        yield partial
        replace_folder(partial, destination)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"cannot write {destination}: {reason}; free some space or name another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_destination(destination: Path) -> None:
    """Refuse to write a bundle over anything but a bundle."""
    if destination.exists() and not (destination / SPEC_FILE).is_file():
        raise ValueError(f"{destination} exists and is no bundle; name a new folder")


def write_spec(folder: Path, spec: EngineSpec) -> None:
    """Write a bundle's description, its last file."""
    (folder / SPEC_FILE).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")


def link_or_copy(source: Path, folder: Path) -> None:
    """Put a file into a folder, without a second copy where the disk can."""
    try:
        os.link(source, folder / source.name)
    except OSError:
        shutil.copyfile(source, folder / source.name)


def replace_folder(folder: Path, destination: Path) -> None:
    """Put a finished folder in place of an older one, which comes back if that fails."""
    old = folder.with_suffix(".old")
    replaces = destination.exists()
    if replaces:
        os.replace(destination, old)
    try:
        os.replace(folder, destination)
    except BaseException:
        if replaces:
            os.replace(old, destination)
        raise
    shutil.rmtree(old, ignore_errors=True)
