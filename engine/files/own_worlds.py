"""Worlds of a player's own: begun in a walk, renamed, deleted; those that are shipped are left alone."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.files.world import MAX_TITLE_CHARS, RESERVED_NAMES, SUFFIX, World, list_worlds, sealed
from engine.machine.assets import worlds_dir
from engine.memory.keyframes import Keyframe

MAX_STEM = 40
"""Characters of a place's name in that of a world begun there; the time takes 16 more."""
MAX_NAME_CHARS, MAX_NAME_BYTES = 64, 192
"""Of a name that a player gives: file systems end at 255 bytes, and a temporary file adds some."""
_IN_NO_FILE_NAME = '<>:"/\\|?*'
_BEGUN_NAME = re.compile(r"-(from-[0-9a-f]{8}|\d{8}-\d{6}(-\d+)?)$")
_BEGUN_TITLE = re.compile(r", (later|\d{1,2} \w+, \d{2}:\d{2})$")


def begun_stem(world: World) -> str:
    """Return what the files of worlds begun in a world are named by: its place, whenever it was begun itself."""
    return _BEGUN_NAME.sub("", world.name)[:MAX_STEM].rstrip("-_")


def begun_title(world: World, when: datetime) -> str:
    """Return the title of a world begun in a world: its place and the time."""
    time = f", {when.day} {when:%b, %H:%M}"
    return _BEGUN_TITLE.sub("", world.title)[: MAX_TITLE_CHARS - len(time)] + time


def world_from_walk(
    world: World,
    latent: NDArray[np.float32],
    frame: NDArray[np.uint8],
    c2w: NDArray[np.float64],
    keyframes: Sequence[Keyframe] = (),
    *,
    name: str,
    title: str,
) -> World:
    """Return a world that begins where a walk is.

    Args:
        world: The world that is walked through.
        latent: [C, h, w], the latent frame that the frame was decoded from.
        frame: [H, W, 3], the frame.
        c2w: [4, 4], its pose, in the world's own frame.
        keyframes: What the walk's spatial memory holds.
        name: Of its file.
        title: In the menus.
    """
    begun = World(
        world.info.model_copy(update={"name": name, "title": title}),
        latent,
        frame,
        world.text,
        world.text_mask,
        world.intrinsics,
        c2w,
        origin=world.origin_c2w,
        refiner_text=world.refiner_text,
        keyframes=tuple(keyframes),
    )
    return sealed(begun)


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


def file_name(text: str) -> str:
    """Return a name that a player gave as a file can bear it on any system, without its suffix.

    Raises:
        ValueError: Nothing of it can be in a file's name.
    """
    text = unicodedata.normalize("NFC", text).removesuffix(SUFFIX)
    plain = "".join(" " if c in _IN_NO_FILE_NAME or not c.isprintable() else c for c in text)
    name = " ".join(plain.split()).strip(". ").lstrip("-")[:MAX_NAME_CHARS]
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(". ")
    if not any(c.isalnum() for c in name):
        raise ValueError(f"{text!r} cannot be the name of a file; choose one with a letter or digit")
    if RESERVED_NAMES.fullmatch(name):
        raise ValueError(f"Windows keeps the name {text!r} for a device; choose another")
    return name


def rename_world(path: Path, name: str, folders: Sequence[str | Path]) -> Path:
    """Rename a world's file and return its new path; what is inside stays, and so does what was saved in it.

    Args:
        folders: Where worlds are looked for by name, in which no other may have the new one.

    Raises:
        ValueError: The name is taken or no name, or the file cannot be renamed.
    """
    target = path.with_name(f"{file_name(name)}{SUFFIX}")
    if target == path:
        return path
    others = {entry.name.casefold() for entry in list_worlds([path.parent, *folders]) if entry.path != path}
    if target.stem.casefold() in others:
        raise ValueError(f"there is a world called {target.stem} already; choose another name")
    try:
        path.rename(target)
    except OSError as error:
        raise ValueError(f"cannot rename {path}: {error.strerror}; choose another name") from error
    return target


def delete_world(path: Path) -> None:
    """Delete a world's file.

    Raises:
        ValueError: The file cannot be deleted.
    """
    try:
        path.unlink()
    except OSError as error:
        raise ValueError(f"cannot delete {path}: {error.strerror}; delete it by hand") from error
