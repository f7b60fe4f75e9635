"""Where this platform keeps a program's settings and a person's pictures, and how paths are named in messages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import platformdirs

from engine.files.world import SUFFIX
from engine.machine import assets

APP_NAME = "Flaneur"
MAX_FOLDER_CHARS = 48
"""Of a folder in a message, which then takes two lines at most; what is in its middle goes first."""
DOTS = "..."
SAVES = "saves"
"""Folder of quick saves, in the pictures folder."""
OWN_WORLDS = "worlds"
"""Folder of worlds begun by walking, in the pictures folder."""


def settings_file() -> Path:
    """Return the settings file's path; nothing is created.

    Raises:
        ValueError: The home folder is not known, in one sentence.
    """
    name = APP_NAME if sys.platform in ("win32", "darwin") else APP_NAME.lower()
    with _needs_home():
        return platformdirs.user_config_path(name, appauthor=False, roaming=True) / "settings.json"


def pictures_dir() -> Path:
    """Return the folder for photos and recordings, in the desktop's own pictures folder; nothing is created.

    Raises:
        ValueError: The home folder is not known, in one sentence.
    """
    with _needs_home():
        return platformdirs.user_pictures_path() / APP_NAME


@contextmanager
def _needs_home() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ValueError("the home folder is not known; set HOME to an absolute path") from error


def world_folders(world: str | None, pictures: Path | None) -> list[Path]:
    """Return where worlds are looked for by name, by the window and by every command.

    Args:
        world: What was asked for; beside a file that was named there may be others.
        pictures: The folder that worlds begun by walking are in; None where no home folder is known.
    """
    named = Path(world) if world is not None else None
    beside = [named.parent] if named is not None and named.suffix == SUFFIX else []
    own = [] if pictures is None else [pictures / OWN_WORLDS]
    return [*beside, assets.worlds_dir(), *own]


def make_folder(folder: Path) -> None:
    """Create a folder and its parents.

    Raises:
        ValueError: It cannot be made, in one sentence.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the folder {folder}: {error.strerror}; move what is in its way, or make its parent writable"
        ) from error


def unused_path(folder: Path, stem: str, suffix: str, now: datetime) -> Path:
    """Return a path in the folder, named after the world and the time, that does not exist yet."""
    base = f"{stem}-{now:%Y%m%d-%H%M%S}"
    path = folder / f"{base}{suffix}"
    number = 2
    while path.exists():
        path = folder / f"{base}-{number}{suffix}"
        number += 1
    return path


def path_for_message(file: Path, home: Path | None = None) -> str:
    """Name a file for a message: first its own name, which must be read whatever is cut off, then its folder.

    Args:
        home: Of the user, shown as `~`; by default this user's.
    """
    if file.parent == Path():
        return file.name
    folder = file.parent
    if home is None:
        with suppress(RuntimeError):
            home = Path.home()
    if home is not None and folder.is_relative_to(home):
        folder = Path("~", folder.relative_to(home))
    shown = str(folder)
    if len(shown) > MAX_FOLDER_CHARS:
        shown = without_middle(shown, MAX_FOLDER_CHARS - len(DOTS))
    return f"{file.name} in {shown}"


def without_middle(text: str, num_kept: int) -> str:
    """Keep some characters of a longer text, one or more, and dots for its middle: of a path the end says most."""
    head = num_kept // 4
    return f"{text[:head]}{DOTS}{text[head - num_kept :]}"
