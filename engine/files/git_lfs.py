"""Files of which only Git LFS's pointer was fetched: a few lines of text in the place of a large file."""

from __future__ import annotations

from pathlib import Path

from engine.errors import SpecMismatch

LFS_MARK = b"version https://git-lfs.github.com/spec/"
"""Begins every pointer."""


def check_fetched(path: Path, error: type[Exception] = SpecMismatch) -> None:
    """Refuse a pointer with an error of a type, in one sentence; a file that cannot be read is left to whoever reads it."""
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_MARK))
    except OSError:
        return
    if head == LFS_MARK:
        raise error(
            f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or download it"
        )
