"""What an earlier call scored already, so that an evaluation of a benchmark goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from engine.files.bundle import hash_file

MAX_TABLE_BYTES = 1 << 26


class Scored(Protocol):
    """A row of a table of scores."""

    @property
    def key(self) -> str:
        """Name of the row within its table."""
        ...

    @property
    def made_by(self) -> str:
        """Hash of all that the row depends on."""
        ...


Row = TypeVar("Row", bound=Scored)


def identity(*parts: object, files: tuple[Path, ...] = ()) -> str:
    """Hash what a row depends on: parts by their text, files by their bytes."""
    texts = [*map(str, parts), *map(hash_file, files)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def read_rows(path: Path, field: str, kind: type[Row], expected: Mapping[str, str]) -> dict[str, Row]:
    """Read the rows by key that an earlier call left in a table.

    Args:
        field: Of the table's JSON object, that holds the rows.
        expected: By key: what a row must be made by.

    Raises:
        ValueError: The table is of something else, so that going on would write over it.
    """
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError
        reader = TypeAdapter(kind)
        rows = [reader.validate_python(row) for row in json.loads(path.read_text())[field]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        rows = None
    if rows is None or any(expected.get(row.key) != row.made_by for row in rows):
        raise ValueError(
            f"{path} is of other videos, scenes or options; name another folder, or give --overwrite"
        )
    return {row.key: row for row in rows}
