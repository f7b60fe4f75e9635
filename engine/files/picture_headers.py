"""What picture files announce before they are decoded: size, transparency, and which way is up."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG, TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")
AVIF = (b"ftypavif", b"ftypavis")
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG segments that tell the size."""
WIDTH_TAG, HEIGHT_TAG, ORIENTATION_TAG = 256, 257, 274
FIRST_BYTES = 1 << 16
"""Of an AVIF file, in which the sizes of its parts stand."""


def picture_size(content: bytes) -> tuple[int, int] | None:
    """Return the width and height that a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF announces; None for anything else."""
    try:
        if content[:8] == PNG and content[12:16] == b"IHDR":
            return struct.unpack(">II", content[16:24])
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP" and len(content) >= 30:
            return _webp_size(content)
        if content[:2] == b"\xff\xd8":
            return _jpeg_size(content)
        if content[:4] in TIFF:
            tags = _tags(content)
            return tags[WIDTH_TAG], tags[HEIGHT_TAG]
        if content[:2] == b"BM":
            width, height = struct.unpack("<ii", content[18:26])
            # Rows from above have a negative height.
            return width, abs(height)
        if content[:4] == b"GIF8":
            return struct.unpack("<HH", content[6:10])
        if content[4:12] in AVIF:
            return _avif_size(content[:FIRST_BYTES])
    except (struct.error, KeyError):
        pass
    return None


def may_be_transparent(content: bytes) -> bool:
    """Whether a picture has an opacity, or is of a kind whose header does not tell."""
    if content[:8] == PNG:
        return content[25:26] in (b"\4", b"\6") or any(kind == b"tRNS" for kind, _ in _chunks(content))
    if content[8:12] == b"WEBP":
        is_told = {b"VP8X": content[20:21], b"VP8L": content[24:25]}.get(content[12:16], b"")
        return bool(is_told) and bool(is_told[0] & 0x10)
    return content[:2] not in (b"\xff\xd8", b"BM")


def exif_orientation(content: bytes) -> int:
    """Return the EXIF orientation of a PNG or WebP, 1 to 8; 1 where there is none."""
    for kind, chunk in _chunks(content):
        if kind in (b"eXIf", b"EXIF"):
            try:
                told = _tags(chunk.removeprefix(b"Exif\0\0")).get(ORIENTATION_TAG, 1)
            except struct.error:
                return 1
            return told if 1 <= told <= 8 else 1
    return 1


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and contents of a PNG's or WebP's chunks."""
    is_png = content[:8] == PNG
    at = 8 if is_png else 12
    while at + 8 <= len(content):
        if is_png:
            length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        else:
            kind, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        yield kind, content[at + 8 : at + 8 + length]
        # A PNG's chunk ends with a sum; a WebP's begins at an even byte.
        at += 8 + length + (4 if is_png else length % 2)


def _tags(content: bytes) -> dict[int, int]:
    """Return the whole numbers of a TIFF's first directory, of which EXIF is one, by their tags."""
    order = "<" if content[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), content, entry + 8)
    return tags


def _avif_size(head: bytes) -> tuple[int, int] | None:
    """The largest of the parts: a thumbnail or an opacity has a size of its own."""
    sizes = []
    at = head.find(b"ispe")
    while at >= 0:
        sizes.append(struct.unpack_from(">II", head, at + 8))
        at = head.find(b"ispe", at + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


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
