"""Paths of files that are to be made: refused before the work that would fill them."""

from __future__ import annotations

from pathlib import Path


def check_new_file(path: Path, suffix: str, what: str) -> None:
    """Refuse a path that no new file can be made at.

    Args:
        suffix: How the file's name must end.
        what: The file's kind, as in "recording".

    Raises:
        ValueError: The name is wrong, taken, or in no folder, in one sentence.
    """
    if path.suffix != suffix:
        raise ValueError(f"a {what}'s name ends in {suffix}, got {path.name!r}")
    if path.exists():
        raise ValueError(f"{path} exists already; choose another name for the {what}")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it first")
