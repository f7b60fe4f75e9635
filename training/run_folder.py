"""A training's folder: held by one process at a time, rid of what a killed one left half-written, with a record of its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.files.atomic import left_over, replacing

RECORD_FILE = "record.json"
LOCK_FILE = ".lock"


class Start(BaseModel):
    """Weights that a run began with, by their hashes: the folder may hold others later, the run's own among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    """Where they were."""
    autoencoder: str
    generator: str
    """Empty where none was taken from there, since the paper's stages taught one."""


class RunRecord(BaseModel):
    """What a run was asked for, where it runs, and how long its phases took so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    recipe: dict[str, Any]
    model: dict[str, Any]
    stages: tuple[str, ...] = ()
    """In their order."""
    machine: str
    started_from: Start | None = None
    """None where it began with nothing."""
    made: tuple[str, ...] = ()
    """Hashes of the generators that it has published."""
    seconds: dict[str, float] = {}
    """Of each phase, over all calls that ended it or were stopped; a killed call's are lost."""


class RunFolder:
    """The folder and its record."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        """Begin, or go on with, the record of a folder; what an earlier one noted on the way stays."""
        self.path = path
        earlier = read_record(path)
        noted = {} if earlier is None else {"seconds": earlier.seconds, "made": earlier.made}
        self.record = record.model_copy(update=noted)

    def publishing(self, generator: str) -> None:
        """Note the hash of a generator before it is published, since whoever is killed meanwhile may have published it."""
        made = tuple(dict.fromkeys((*self.record.made, generator)))
        self.record = self.record.model_copy(update={"made": made})
        self.write()

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase, however it ends."""
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = dict(self.record.seconds)
            seconds[phase] = round(seconds.get(phase, 0.0) + time.monotonic() - start, 1)
            self.record = self.record.model_copy(update={"seconds": seconds})
            self.write()

    def write(self) -> None:
        with replacing(self.path / RECORD_FILE) as file:
            file.write_text(self.record.model_dump_json(indent=1) + "\n")


def read_record(folder: Path) -> RunRecord | None:
    """The record of a run folder; None where there is none that can be read."""
    try:
        return RunRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process, and remove the temporary files of one that was killed.

    Raises:
        ValueError: Another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another training uses {folder}; wait for it, or name another with --runs"
        ) from None
    try:
        for file in left_over(folder):
            file.unlink()
        yield
    finally:
        lock.release()
