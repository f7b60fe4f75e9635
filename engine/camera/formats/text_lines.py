"""Text files from strangers: any byte-order mark, any newline, lines of any length, numbers parted in any way."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

MAX_TEXT_BYTES = 1 << 28
MAX_LINE_CHARS = 1 << 14
"""Of a line that are looked at; the points of a COLMAP image can be many times as long."""
COMMENTS = ("#", "%", "//")
_ENCODINGS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_REMARK = re.compile(r"\s(#|//).*")
_BETWEEN = re.compile(r"[,;\s]+")


def read_text(path: Path) -> str:
    """Read a whole text file of bearable size.

    Raises:
        ValueError: It is too large, no text, or cannot be read.
    """
    with _opened(path) as file:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ValueError(f"{path} is over {MAX_TEXT_BYTES >> 20} MB; poses never are, check the path")
        return file.read()


def text_lines(path: Path) -> Iterator[str]:
    """Yield the beginning of each line, without its newline; never more than one line is in memory.

    Raises:
        ValueError: The file is no text or cannot be read.
    """
    # A remark may be in any encoding; what matters is ASCII.
    with _opened(path, "replace") as file:
        while line := file.readline(MAX_LINE_CHARS):
            if "\0" in line:
                raise ValueError(f"{path} is not text (it holds zeros); check the path")
            rest = line
            while len(rest) == MAX_LINE_CHARS and not rest.endswith("\n"):
                rest = file.readline(MAX_LINE_CHARS)
            yield line.rstrip("\n")


@contextmanager
def _opened(path: Path, errors: str = "strict") -> Iterator[TextIO]:
    try:
        with path.open("rb") as file:
            head = file.read(4)
        encoding = next((name for mark, name in _ENCODINGS if head.startswith(mark)), "utf-8-sig")
        with path.open(encoding=encoding, errors=errors) as file:
            yield file
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"{path} is not text ({reason}); check the path") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; check the path") from error


def is_comment(line: str) -> bool:
    """Whether a line, indented or not, is a comment."""
    return line.lstrip().startswith(COMMENTS)


def fields(line: str) -> list[str]:
    """Part a line at spaces, tabs, commas and semicolons, without quotes and remarks; beside semicolons commas are points."""
    line = _REMARK.sub("", line).replace('"', "").strip().strip(",;").strip()
    if ";" in line and all(field.count(",") <= 1 for field in line.split(";")):
        line = line.replace(",", ".")
    return _BETWEEN.split(line) if line else []


def numbers(words: list[str]) -> list[float] | None:
    """Turn words into numbers; None where one is none."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def read_lens(path: Path) -> NDArray[np.float64]:
    """Read a camera from a text file: fx, fy, cx, cy [4], or a matrix [3, 3], in pixels.

    Raises:
        ValueError: The file holds anything else.
    """
    values: list[float] = []
    for line in text_lines(path):
        found = [] if is_comment(line) else numbers(fields(line))
        values += [float("nan")] if found is None else found
        if len(values) > 9:
            break
    lens = np.array(values)
    if lens.size not in (4, 9) or not np.isfinite(lens).all():
        raise ValueError(f"{path} holds no camera; write four numbers, fx fy cx cy in pixels")
    return lens if lens.size == 4 else lens.reshape(3, 3)
