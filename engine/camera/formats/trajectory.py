"""Trajectories as text, one pose a line: TUM, EuRoC, KITTI, and tables whose header names their columns.

A line holds 8 numbers (time, position, quaternion), 17 (EuRoC's states, of which the first 8 are read), 12 or 16 (the
rows of a matrix, without times). The quaternion's w is last, as in TUM and ORB-SLAM, unless a header names it first or the
file is a table in nanoseconds with commas, as EuRoC's are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES
from engine.camera.formats.posed_frames import PosedFrames, rotations
from engine.camera.formats.text_lines import fields, is_comment, numbers, text_lines
from engine.camera.tracks import Track, check_poses

Array = NDArray[np.float64]
EXPECTED = (
    "8 numbers (time, position, quaternion), 12 or 16 (rows of a matrix), or a header that names its columns"
)
SUFFIXES = (".tum", ".kitti", ".csv")
"""Names that promise a trajectory, whatever is inside."""
FEWEST, MOST = 7, 64
"""Numbers in a line that is taken for a pose, known or not."""
FIRST_LINES = 50
"""Of a file, to see what it holds."""
NANOSECONDS = 1e14
"""Times above are nanoseconds: seconds since 1970 stay below for three million years."""
MILLISECONDS = 1e11
SHORTEST_STEP_S = 1e-4
"""Between poses; times above NANOSECONDS that would follow one another faster are microseconds."""
_TIME = re.compile(r"time|stamp|^ts?$", re.IGNORECASE)
_QUATERNION = re.compile(
    r"(?:^|[._])(?:q|quat|quaternion|orientation|ori|rot|rotation)\w*?[._]?([wxyz])$", re.IGNORECASE
)
_POSITION = re.compile(
    r"^(?:.*[._])?(?:t|p|pos|position|translation|trans|p_\w+)[._]?([xyz])$|^([xyz])$", re.IGNORECASE
)
_ACTION = re.compile(r"[A-Za-z]+-[0-9]+")
_UNITS = {"ns": 1e-9, "nsec": 1e-9, "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3}


@dataclass
class _Table:
    """The numbers of a file and what its header says of them."""

    rows: list[list[float]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    has_commas: bool = False


def is_trajectory(path: Path) -> bool:
    """Whether a text file holds poses, by its first line of numbers or by its name."""
    if path.suffix.lower() in SUFFIXES:
        return True
    for number, line in enumerate(text_lines(path)):
        if number >= FIRST_LINES:
            return False
        if line.strip() and not is_comment(line):
            values = numbers(fields(line))
            if values is not None:
                return FEWEST <= len(values) <= MOST
            # What is left is a header, or no poses.
            if len(fields(line)) < FEWEST or any(_ACTION.fullmatch(word) for word in fields(line)):
                return False
    return False


def read_trajectory(path: Path) -> PosedFrames:
    """Read poses and, where they are given, times.

    Raises:
        ValueError: A line is no pose, or of another kind than the others, in one sentence.
    """
    table = _read_table(path)
    rows = np.array(table.rows, np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(f"{path} has a line that is not of finite numbers; write the poses again")
    width = rows.shape[1]
    columns = _columns(table, width)
    if columns is None:
        if width in (12, 16):
            return PosedFrames(Track(_matrices(rows, str(path))))
        raise ValueError(f"{path} looks like poses of {width} numbers a line; expected are {EXPECTED}")
    times = rows[:, columns[0]] * _seconds(rows[:, columns[0]], table.header)
    if (np.diff(times) <= 0.0).any():
        raise ValueError(f"{path} has times that do not rise; sort its lines and drop repeated ones")
    c2w = np.tile(np.eye(4), (len(rows), 1, 1))
    c2w[:, :3, :3] = rotations(rows[:, columns[4:]], str(path))
    c2w[:, :3, 3] = rows[:, columns[1:4]]
    fps = None if len(times) < 2 else (len(times) - 1) / float(times[-1] - times[0])
    return PosedFrames(Track(check_poses(c2w, str(path)), fps=fps), times_s=times)


def _read_table(path: Path) -> _Table:
    table = _Table()
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        if is_comment(line):
            # The last comment before the numbers may be a header.
            table.header = table.header if table.rows else _names(line)
            continue
        values = numbers(fields(line))
        if values is None and not table.rows and not any(numbers([word]) for word in fields(line)):
            table.header = _names(line)
            continue
        if values is None or (table.rows and len(values) != len(table.rows[0])):
            known = f"{len(table.rows[0])} numbers as above it" if table.rows else EXPECTED
            raise ValueError(f"{path} has the line {number}, {line.strip()[:40]!r}; expected are {known}")
        table.rows.append(values)
        table.has_commas |= "," in line or ";" in line
        if len(table.rows) > MAX_FRAMES:
            raise ValueError(f"{path} holds over {MAX_FRAMES} poses; cut it")
    if not table.rows:
        raise ValueError(f"{path} holds 0 poses; 1 to {MAX_FRAMES} lines are accepted, of {EXPECTED}")
    return table


def _names(line: str) -> list[str]:
    """Part a header into the names of its columns; units in brackets belong to the name before them."""
    line = line.strip().lstrip("#%/").strip().strip(",;")
    if "," in line or ";" in line or "\t" in line:
        return [name.strip() for name in re.split(r"[,;\t]", line)]
    return re.sub(r"\s+([\[(])", r"\1", line).split()


def _columns(table: _Table, width: int) -> list[int] | None:
    """Return where time, x, y, z and the quaternion's w, x, y, z stand; None where lines hold no such pose."""
    if len(table.header) == width and (named := _named_columns(table.header)) is not None:
        return named
    first = max(abs(row[0]) for row in table.rows)
    if width == 17 or (width == 8 and table.has_commas and first > NANOSECONDS):
        return list(range(8))
    return [0, 1, 2, 3, 7, 4, 5, 6] if width == 8 else None


def _named_columns(header: list[str]) -> list[int] | None:
    bare = [re.sub(r"[\[(].*?[\])]", "", name).strip() for name in header]
    times = [n for n, name in enumerate(bare) if _TIME.search(name)]
    turn: dict[str, int] = {}
    place: dict[str, int] = {}
    for number, name in enumerate(bare):
        if (match := _QUATERNION.search(name)) is not None:
            turn.setdefault(match[1].lower(), number)
        elif (match := _POSITION.search(name)) is not None:
            place.setdefault((match[1] or match[2]).lower(), number)
    if not times or len(turn) != 4 or len(place) != 3:
        return None
    return [times[0], *(place[axis] for axis in "xyz"), *(turn[axis] for axis in "wxyz")]


def _seconds(times: Array, header: list[str]) -> float:
    """Return how many seconds the unit of times is, by the header or by their size."""
    for name in header:
        unit = re.search(r"[\[(_ ](ns|nsec|us|usec|ms|msec)[\])]?$", name.strip().lower())
        if _TIME.search(name) and unit is not None:
            return _UNITS[unit[1]]
    return seconds_per_unit(times)


def seconds_per_unit(times: Array) -> float:
    """Return how many seconds the unit of times [F] is, by their size: seconds, milli-, micro- or nanoseconds."""
    largest = float(np.abs(times).max())
    if largest <= MILLISECONDS:
        return 1.0
    if largest <= NANOSECONDS:
        return 1e-3
    step = float(np.median(np.diff(times))) if len(times) > 1 else np.inf
    return 1e-6 if 0.0 < step * 1e-9 < SHORTEST_STEP_S else 1e-9


def _matrices(rows: Array, source: str) -> Array:
    """Turn rows of 3x4 or 4x4 matrices [F, 12 or 16] into poses [F, 4, 4]."""
    c2w = np.tile(np.eye(4), (len(rows), 1, 1))
    c2w.reshape(len(rows), 16)[:, : rows.shape[1]] = rows
    return check_poses(c2w, source)
