"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".part-"
"""Between what a temporary file will be called and eight letters of chance."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well.

    Whatever ends the block early, Ctrl-C included, removes the temporary file and leaves `path` as it was.
    The temporary name keeps the suffix, since writers choose their format by it.
    """
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name a file to write")
    if not target.parent.is_dir():
        raise ValueError(f"the folder {target.parent} does not exist; make it first")
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}{MARK}", suffix=target.suffix, dir=target.parent
        )
    except OSError as error:
        raise ValueError(f"cannot write in {target.parent}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        # mkstemp makes files for their owner alone; a written file should obey the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        set_mode(temporary, 0o666 & ~umask)
        yield temporary
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise ValueError(
                f"cannot write {target}: {reason}; free some space or name another place"
            ) from error
        raise


def set_mode(path: Path, mode: int) -> None:
    """Set a file's permissions where its file system has any; network and FUSE mounts often refuse."""
    with suppress(OSError):
        path.chmod(mode)


def left_over(folder: Path) -> list[Path]:
    """Find the temporary files that killed writers left in a folder or below it."""
    return [file for file in folder.rglob(f".*{MARK}????????*") if file.is_file()]


def check_absent(path: Path | None, overwrite: bool = False) -> None:
    """Refuse to write over what is there: a command does so only where its user said so.

    Raises:
        ValueError: There is something, in one sentence.
    """
    if path is not None and not overwrite and os.path.lexists(path):
        raise ValueError(f"{path} exists already; name another, or give --overwrite")


def check_new_file(path: Path, suffix: str, what: str, overwrite: bool = False) -> None:
    """Refuse a path that no new file can be made at.

    Args:
        suffix: How the file's name must end.
        what: The file's kind, as in "recording".
        overwrite: Whether an older file may be there.

    Raises:
        ValueError: The name is wrong, taken, or in no folder, in one sentence.
    """
    if path.suffix != suffix:
        raise ValueError(f"a {what}'s name ends in {suffix}, got {path.name!r}")
    check_absent(path, overwrite)
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it first")
