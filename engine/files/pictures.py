"""Photos and depth pictures from strangers: PNG, JPEG and WebP, their size read from the header and bounded before decoding."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.files.git_lfs import check_fetched

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 64 << 20
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG segments that tell the size."""


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo, turned upright, as RGB, [H, W, 3].

    Raises:
        ValueError: It is no picture, damaged or too large, in one sentence.
    """
    import cv2

    color = _decoded(path, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(color[..., ::-1], np.uint8)


def read_depth_picture(path: Path) -> NDArray[np.uint16]:
    """Read a grey PNG of 16 bits, [H, W].

    Raises:
        ValueError: It is something else, damaged or too large, in one sentence.
    """
    import cv2

    depth = _decoded(path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise ValueError(f"{path} is not a grey PNG of 16 bits; save the depth as one, in millimetres")
    return depth


def _decoded(path: Path, how: int) -> NDArray[Any]:
    import cv2

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path} is too large a picture; scale it down first")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no picture {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read the picture {path}: {error.strerror}; check the path") from error
    size = picture_size(content)
    if size is None:
        check_fetched(path, ValueError)
        raise ValueError(f"{path} is not a picture that can be read; save it as JPEG or PNG")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{path} is too large a picture; scale it down first")
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    if decoded is None:
        raise ValueError(f"{path} is a damaged picture; save it again")
    return np.asarray(decoded)


def picture_size(content: bytes) -> tuple[int, int] | None:
    """Return the width and height that a PNG, JPEG or WebP announces; None for anything else."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR" and len(content) >= 24:
        return struct.unpack(">II", content[16:24])
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP" and len(content) >= 30:
        return _webp_size(content)
    if content[:2] == b"\xff\xd8":
        return _jpeg_size(content)
    return None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", content[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in JPEG_FRAMES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return width, height
        # Fill bytes have no length.
        at += 1 if marker == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
