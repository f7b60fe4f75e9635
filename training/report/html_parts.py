"""Pieces of a page that opens anywhere: tables, Markdown taken apart, pictures within the page."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

PICTURE_SIZES = ((1000, 80), (1000, 60), (800, 55), (600, 45), (400, 35))
"""Widths in pixels and JPEG qualities, the best first; those beside the page are left as they are."""


def markdown_parts(text: str) -> list[str | list[list[str]]]:
    """Split Markdown into paragraphs and tables, each a list of rows of cells, the heading first."""
    parts: list[str | list[list[str]]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            parts.append(line)
            continue
        cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        if all(set(cell) <= set("-:") for cell in cells):
            continue
        if parts and isinstance(parts[-1], list):
            parts[-1].append(cells)
        else:
            parts.append([cells])
    return [part for part in parts if part]


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """An HTML table.

    Args:
        numbers: Columns that are set to the right.
    """
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        shown = (
            f"<{tag}{' class=number' if n in right else ''}>{html.escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    head = line(columns, "th") if any(columns) else ""
    return f"<table>{head}{''.join(line(row, 'td') for row in rows)}</table>"


def picture_uris(paths: Sequence[Path], most_bytes: int) -> dict[Path, str]:
    """Pictures as JPEG data URIs, all as large as they can be within `most_bytes` together.

    What cannot be read is left out; so are the last ones, where even the smallest are too many.
    """
    read = {path: cv2.imread(str(path)) for path in paths}
    pictures = {path: picture for path, picture in read.items() if picture is not None}
    uris: dict[Path, str] = {}
    for width, quality in PICTURE_SIZES:
        uris = {path: _uri(picture, width, quality) for path, picture in pictures.items()}
        if sum(map(len, uris.values())) <= most_bytes:
            return uris
    while uris and sum(map(len, uris.values())) > most_bytes:
        uris.popitem()
    return uris


def _uri(picture: NDArray[Any], width: int, quality: int) -> str:
    height, whole = picture.shape[:2]
    if whole > width:
        size = (width, max(1, round(height * width / whole)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
