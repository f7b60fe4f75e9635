"""Where this platform keeps a program's settings and a person's pictures."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

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


def settings_file(environ: Mapping[str, str], home: Path, platform: str = sys.platform) -> Path:
    """Return the settings file's path; nothing is created."""
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / APP_NAME / "settings.json"
    if platform == "darwin":
        return home / "Library" / "Application Support" / APP_NAME / "settings.json"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / APP_NAME.lower() / "settings.json"


def pictures_dir(environ: Mapping[str, str], home: Path, platform: str = sys.platform) -> Path:
    """Return the folder for screenshots and recordings; nothing is created."""
    if platform not in ("win32", "darwin"):
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        if (configured := _xdg_pictures(config / "user-dirs.dirs", home)) is not None:
            return configured / APP_NAME
    return home / "Pictures" / APP_NAME


def world_folders(world: str | None, pictures: Path) -> list[Path]:
    """Return where worlds are looked for by name, by the window and by every command.

    Args:
        world: What was asked for; beside a file that was named there may be others.
        pictures: The folder that worlds begun by walking are in.
    """
    named = Path(world) if world is not None else None
    beside = [named.parent] if named is not None and named.suffix == SUFFIX else []
    return [*beside, assets.worlds_dir(), pictures / OWN_WORLDS]


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


def told(file: Path, home: Path) -> str:
    """Name a file for a message: first its own name, which must be read whatever is cut off, then its folder.

    Args:
        home: Of the user; shown as `~`.
    """
    if file.parent == Path():
        return file.name
    folder = file.parent
    if folder.is_relative_to(home):
        folder = Path("~", folder.relative_to(home))
    said = str(folder)
    if len(said) > MAX_FOLDER_CHARS:
        said = without_middle(said, MAX_FOLDER_CHARS - len(DOTS))
    return f"{file.name} in {said}"


def without_middle(text: str, num_kept: int) -> str:
    """Keep some characters of a longer text, one or more, and dots for its middle: of a path the end says most."""
    head = num_kept // 4
    return f"{text[:head]}{DOTS}{text[head - num_kept :]}"


def _xdg_pictures(file: Path, home: Path) -> Path | None:
    """Read the desktop's own name for the pictures folder, which is translated on many machines."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r'^XDG_PICTURES_DIR="(?:\$HOME/)?(.+)"', text, re.MULTILINE)
    return home / match[1] if match else None
