"""Worlds of a player's own, renamed and deleted; those that are shipped are left alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from engine.files.atomic import check_new_file
from engine.files.world import SUFFIX, list_worlds, world_name
from engine.machine.assets import worlds_dir


def own_world_file(name_or_path: str, folders: Sequence[str | Path]) -> Path:
    """Return the file of a world by its name in `folders`, or at that path; a damaged one is found too.

    Raises:
        ValueError: There is none, or it is shipped with this program.
    """
    path = Path(name_or_path)
    if path.suffix != SUFFIX and len(path.parts) == 1:
        entries = {entry.name: entry.path for entry in list_worlds(folders)}
        if name_or_path not in entries:
            known = ", ".join(entries) or "none are installed"
            raise ValueError(f"there is no world called {name_or_path!r}; the worlds here: {known}")
        path = entries[name_or_path]
    if path.suffix != SUFFIX or not os.path.isfile(path):
        raise ValueError(
            f"there is no world file {path}; name a {SUFFIX} file, or a world that `world list` shows"
        )
    if path.resolve().parent == worlds_dir().resolve():
        raise ValueError(
            f"the world {path.stem} is shipped with this program; only worlds of your own can be changed"
        )
    return path


def rename_world(path: Path, name: str) -> Path:
    """Rename a world's file and return its new path; what is inside stays, and so does what was saved in it.

    Raises:
        ValueError: The name is taken, or the file cannot be renamed.
    """
    target = path.with_name(f"{world_name(name.removesuffix(SUFFIX))}{SUFFIX}")
    check_new_file(target, SUFFIX, "world")
    try:
        path.rename(target)
    except OSError as error:
        raise ValueError(f"cannot rename {path}: {error.strerror}") from error
    return target


def delete_world(path: Path) -> None:
    """Delete a world's file.

    Raises:
        ValueError: The file cannot be deleted.
    """
    try:
        path.unlink()
    except OSError as error:
        raise ValueError(f"cannot delete {path}: {error.strerror}") from error
