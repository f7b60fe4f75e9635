"""Colour and depth of a keyframe as WebP.

Lossy WebP keeps a quarter of the pixels of colour planes, which costs more at sharp edges than all else that it loses. A lossy
picture is therefore stored as luma, red and blue difference (YCrCb), whole, one below the other in a grey one. The codes of
depth are lossless: inverse depth is linear over a plane, so each is stored as its difference from the plane through its left,
upper and upper left neighbours, low byte in green and high byte in red. Files of earlier builds hold them as 16-bit PNG.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_SIDE_PX = 4096
LOSSLESS = 101
"""WebP quality: above 100 nothing is lost."""
NUM_PLANES = 3


def encode_color(color: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    # Heavy, and lists of worlds need none of it; likewise below.
    import cv2

    done, blob = cv2.imencode(".webp", color[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert done, "OpenCV writes WebP"
    return np.asarray(blob, np.uint8).reshape(-1)


def encode_depth(codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    rest = codes.astype(np.int32)
    for axis in (0, 1):
        rest = np.diff(rest, axis=axis, prepend=0)
    bytes_of = (np.zeros_like(rest), rest & 0xFF, rest >> 8 & 0xFF)
    return encode_color(np.stack(bytes_of[::-1], -1).astype(np.uint8), LOSSLESS)


def encode_planes(color: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    import cv2

    planes = np.asarray(cv2.cvtColor(color, cv2.COLOR_RGB2YCrCb), np.uint8).transpose(2, 0, 1)
    stacked = planes.reshape(-1, color.shape[1])
    return encode_color(np.repeat(stacked[..., None], 3, -1), quality)


def decode_color(webp: NDArray[np.uint8], height: int) -> NDArray[np.uint8] | None:
    """RGB [H, W, 3] of a picture so high or of its planes; None where the blob is damaged."""
    import cv2

    read = cv2.imdecode(webp, cv2.IMREAD_COLOR)
    if read is None or len(read) == height:
        return None if read is None else np.ascontiguousarray(read[..., ::-1], np.uint8)
    if len(read) != NUM_PLANES * height:
        return None
    planes = np.ascontiguousarray(read[..., 1].reshape(NUM_PLANES, height, -1).transpose(1, 2, 0))
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB), np.uint8)


def decode_depth(blob: NDArray[np.uint8]) -> NDArray[np.uint16] | None:
    """Codes [H, W]; None where the blob is damaged."""
    import cv2

    read = cv2.imdecode(blob, cv2.IMREAD_UNCHANGED)
    if read is None or read.dtype == np.uint16:
        return None if read is None or read.ndim != 2 else np.asarray(read, np.uint16)
    if read.ndim != 3:
        return None
    rest = read[..., 1].astype(np.uint16) | read[..., 2].astype(np.uint16) << 8
    for axis in (0, 1):
        rest = np.cumsum(rest, axis, np.uint16)
    return np.asarray(rest, np.uint16)


def announced_size(color: NDArray[np.uint8], depth: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Width and height that a keyframe's blobs announce; None where they do not go together."""
    color_size, size = _webp_size(color), _png_size(depth) or _webp_size(depth)
    if size is None or color_size not in (size, (size[0], NUM_PLANES * size[1])):
        return None
    return size if all(8 <= side <= MAX_SIDE_PX for side in size) else None


def _png_size(blob: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Width and height that a 16-bit grey PNG announces; None for anything else."""
    head = blob[:26].tobytes()
    if (
        len(head) < 26
        or head[:8] != b"\x89PNG\r\n\x1a\n"
        or head[12:16] != b"IHDR"
        or head[24:26] != b"\x10\x00"
    ):
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _webp_size(blob: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Width and height that a plain WebP, lossy or lossless, announces; None for anything else."""
    head = blob[:30].tobytes()
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if head[12:16] == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
