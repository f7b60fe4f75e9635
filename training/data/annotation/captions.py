"""What a clip looks like, in words: from a file beside the video, or from a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from training.data.annotation.sources import Source
from training.data.archives.sidecars import caption_of, read_sidecar

MAX_CAPTION_BYTES = 10_000
SIDECAR = ".caption.txt"


class Captions(Protocol):
    """Gives the words for a video's clips."""

    def of(self, source: Source) -> str:
        """Return them; empty where there are none."""
        ...


@dataclass(frozen=True)
class SidecarCaptions:
    """`NAME.caption.txt` beside each video."""

    def of(self, source: Source) -> str:
        path = source.beside(SIDECAR)
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return " ".join(file.read(MAX_CAPTION_BYTES).decode("utf-8", "replace").split())


@dataclass(frozen=True)
class TableCaptions:
    """A JSON file with an object of captions by the name of the video, with or without its ending."""

    path: Path
    table: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TableCaptions:
        """Read the table.

        Raises:
            ValueError: There is no such file, or it is not JSON.
        """
        if not path.is_file():
            raise ValueError(
                f"there is no table of captions {path}; name a JSON file of captions by video name"
            )
        found = read_sidecar(path.with_suffix(""))
        return cls(path, {name: caption for name, value in found.items() if (caption := caption_of(value))})

    def of(self, source: Source) -> str:
        return self.table.get(source.path.name) or self.table.get(source.path.stem) or ""
