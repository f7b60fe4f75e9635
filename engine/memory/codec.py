"""Colour of a keyframe as AVIF or WebP, and depth as WebP.

Lossy colour is AVIF with whole colour planes: lossy WebP keeps a quarter of their pixels, which costs more at sharp edges than
all else that it loses, and needs nearly twice the bytes. Lossless colour is WebP. The codes of depth are lossless: inverse
depth is linear over a plane, so each is stored as its difference from the plane through its left, upper and upper left
neighbours, low byte in green and high byte in red. Earlier builds wrote lossy colour as one grey WebP of luma, red and blue
difference (YCrCb) one below the other, and depth as 16-bit PNG; both are still read.
"""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

MAX_SIDE_PX = 4096
LOSSLESS = 101
"""WebP quality: above 100 nothing is lost."""
NUM_PLANES = 3
QUICK, THOROUGH = 8, 4
"""Speeds of AVIF's encoder: 30 and 700 ms for 512x512 pixels; the second needs two thirds of the bytes."""
AVIF = b"ftypavif"
DAMAGED = (OSError, ValueError, RuntimeError, SyntaxError)
"""What Pillow raises of damaged files."""


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


def encode_avif(color: NDArray[np.uint8], quality: int, speed: int = QUICK) -> NDArray[np.uint8]:
    """Colour with losses.

    Args:
        quality: 0 to 100.
        speed: 0 to 10; slower ones need fewer bytes for the same picture.
    """
    from PIL import Image

    file = io.BytesIO()
    settings = {"quality": quality, "speed": speed, "subsampling": "4:4:4", "max_threads": 1}
    Image.fromarray(color).save(file, "AVIF", **settings)
    return np.frombuffer(file.getvalue(), np.uint8)


def decode_color(blob: NDArray[np.uint8], height: int) -> NDArray[np.uint8] | None:
    """RGB [H, W, 3] of a picture so high or of its planes; None where the blob is damaged."""
    import cv2

    if _is_avif(blob):
        return _decode_avif(blob)
    read = cv2.imdecode(blob, cv2.IMREAD_COLOR)
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
    # Green and red lie side by side: together they are the number, low byte first.
    codes = np.ndarray(read.shape[:2], "<u2", np.ascontiguousarray(read), 1, (3 * read.shape[1], 3)).copy()
    for above, row in pairwise(codes):
        np.add(row, above, out=row)
    return np.add.accumulate(codes, 1, out=codes)


def announced_size(color: NDArray[np.uint8], depth: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Width and height that a keyframe's blobs announce; None where they do not go together."""
    color_size = _avif_size(color) if _is_avif(color) else _webp_size(color)
    size = _png_size(depth) or _webp_size(depth)
    if size is None or color_size not in (size, (size[0], NUM_PLANES * size[1])):
        return None
    return size if all(8 <= side <= MAX_SIDE_PX for side in size) else None


def _is_avif(blob: NDArray[np.uint8]) -> bool:
    return blob[4:12].tobytes() == AVIF


def _open_avif(blob: NDArray[np.uint8]) -> Image.Image | None:
    """One still picture in RGB whose header alone was read; None for anything else."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(blob.tobytes()), formats=("AVIF",))
    except (*DAMAGED, Image.DecompressionBombError):
        return None
    return image if image.mode == "RGB" and getattr(image, "n_frames", 1) == 1 else None


def _avif_size(blob: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Width and height that an AVIF announces; None for anything else."""
    image = _open_avif(blob)
    return None if image is None else image.size


def _decode_avif(blob: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    image = _open_avif(blob)
    try:
        return None if image is None else np.array(image)
    except DAMAGED:
        return None


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
