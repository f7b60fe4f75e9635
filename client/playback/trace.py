"""The trace of a walk's timing, `NAME.jsonl`: one JSON object a line, each handed to the system when it is written.

First what was walked with; then, in the order in which the client saw them, its ticks, the chunks that arrived,
pauses, new beginnings, and each input once the model's answer to it was shown; last what the pacer counted. A crash
loses at most the line being written. All times are seconds on the clock of the walk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine.errors import EngineError, SpecMismatch
from engine.files.atomic import check_new_file
from engine.files.bundle import first_problem

SUFFIX = ".jsonl"
MAX_LINE_BYTES = 4096
MAX_LINES = 2_000_000
"""Nine hours of a display's ticks; what follows is not read."""

Seconds = Annotated[float, Field(allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 40)]
Word = Annotated[str, Field(max_length=256)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StartLine(_Line):
    """What the walk is made with."""

    kind: Literal["start"] = "start"
    format_version: Literal[1] = 1
    world: Word
    engine: Word
    backend: Word
    device: Word
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    chunk_frames: Annotated[int, Field(ge=1, le=4096)]
    num_steps: Annotated[int, Field(ge=1, le=256)]
    """Of the whole schedule."""
    max_in_flight: Annotated[int, Field(ge=1, le=16)] = 2
    """Chunks that may be asked for and not yet be here: one more with a refiner."""


class TickLine(_Line):
    """The client went once around its loop, and the pacer chose a frame."""

    kind: Literal["tick"] = "tick"
    at_s: Seconds
    asks: bool
    """Whether a chunk was asked for if the pacer wanted one: none is while the walk rests, or at a replay's end."""


class MarkLine(_Line):
    """The walk was paused or went on, or a new rollout began."""

    kind: Literal["pause", "resume", "begin"]
    at_s: Seconds


class ChunkLine(_Line):
    """A chunk arrived."""

    kind: Literal["chunk"] = "chunk"
    chunk_index: Count
    num_frames: Annotated[int, Field(ge=1, le=4096)]
    num_steps: Annotated[int, Field(ge=1, le=256)]
    requested_s: Seconds
    latched_s: Seconds
    model_start_s: Seconds
    denoised_s: Seconds
    committed_s: Seconds
    decode_start_s: Seconds
    ready_s: Seconds
    seen_s: Seconds
    """Time of the tick that took it in: a little before `ready_s` where it was finished within the tick."""
    answers: bool
    """Whether it is the first that knows the newest change of movement."""
    refine_start_s: Seconds | None = None
    refined_s: Seconds | None = None
    """None where the chunk was not refined."""
    rendered_s: Seconds | None = None
    """None where no spatial memory was rendered."""

    @property
    def refine_s(self) -> float:
        """How long the refiner took."""
        if self.refine_start_s is None or self.refined_s is None:
            return 0.0
        return self.refined_s - self.refine_start_s


class InputLine(_Line):
    """The model's answer to an input was shown; `warped_s` is that of the turned picture, which came before it."""

    kind: Literal["input"] = "input"
    at_s: Seconds
    looks: bool
    chunk_index: Count
    latched_s: Seconds
    model_start_s: Seconds
    ready_s: Seconds
    shown_s: Seconds
    model_ms: Milliseconds
    warped_s: Seconds | None
    warped_ms: Milliseconds | None
    refine_delay_ms: Milliseconds = 0.0
    """Of `model_ms`, what the refiner added."""


class StepsLine(_Line):
    """The step controller changed the denoising steps of the next chunks."""

    kind: Literal["steps"] = "steps"
    at_s: Seconds
    num_steps: Annotated[int, Field(ge=1, le=256)]
    refines: bool = False
    """Whether they are refined, as far as the controller decides it."""


class CountsLine(_Line):
    """What the pacer counted since the rollout began; at its end."""

    kind: Literal["counts"] = "counts"
    shown: Count
    skipped: Count
    cut: Count
    holds: Count
    hold_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    overlaps: Count
    overlap_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]


Line = StartLine | TickLine | MarkLine | ChunkLine | InputLine | StepsLine | CountsLine
_ANY_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


class TraceWriter:
    """Appends lines to a file; when the disk takes no more the trace ends, and the walk goes on."""

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Create the file; an older one is lost only with `overwrite`."""
        check_new_file(path, SUFFIX, "trace", overwrite)
        self.path = path
        self.problem: EngineError | None = None
        """Why the trace ended before the walk did."""
        try:
            self._file: BinaryIO | None = path.open("wb" if overwrite else "xb", buffering=0)
        except OSError as error:
            raise ValueError(
                f"cannot write a trace to {path}: {error.strerror}; choose another place"
            ) from error
        self._whole_bytes = 0

    def write(self, line: Line) -> None:
        """Append one line."""
        if self._file is None:
            return
        data = line.model_dump_json().encode("utf-8") + b"\n"
        try:
            written = self._file.write(data)
            if written != len(data):
                raise OSError(0, "no space left")
        except OSError as error:
            self.problem = EngineError(
                f"the trace {self.path} ends here: {error.strerror}; free some space or trace elsewhere"
            )
            self.close()
            with suppress(OSError):
                os.truncate(self.path, self._whole_bytes)
            return
        self._whole_bytes += len(data)

    def close(self) -> None:
        """End the trace."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


def read_trace(path: Path) -> Iterator[Line]:
    """Yield the lines of a trace; one that was cut ends after its last whole line.

    Raises:
        SpecMismatch: A line is not one of a trace, in one sentence.
    """
    try:
        with path.open("rb") as stream:
            yield from _lines(stream, path)
    except OSError as error:
        raise ValueError(f"cannot read the trace {path}: {error.strerror}; check the path") from error


def _lines(stream: BinaryIO, path: Path) -> Iterator[Line]:
    for number in range(1, MAX_LINES + 1):
        raw = stream.readline(MAX_LINE_BYTES + 1)
        if not raw.endswith(b"\n"):
            if len(raw) > MAX_LINE_BYTES:
                raise SpecMismatch(
                    f"line {number} of {path} is too long for a trace; name one that play made"
                )
            return
        try:
            line = _ANY_LINE.validate_json(raw)
        except ValidationError as error:
            raise SpecMismatch(
                f"line {number} of {path} is none of a trace ({first_problem(error)}); name one that play made"
            ) from error
        if (number == 1) != isinstance(line, StartLine):
            raise SpecMismatch(f"line {number} of {path} does not belong there; name a trace that play made")
        yield line
