"""Keyframes as arrays of a file: colour and codes of inverse depth as WebP, end to end in one blob each.

Lossy WebP keeps a quarter of the pixels of colour planes, which costs more at sharp edges than all else that it loses. A lossy
picture is therefore stored as luma, red and blue difference (YCrCb), whole, one below the other in a grey one. The codes of
depth are lossless: inverse depth is linear over a plane, so each is stored as its difference from the plane through its left,
upper and upper left neighbours, low byte in green and high byte in red. Files of earlier builds hold them as 16-bit PNG.

What a blob announces of its size is read from its first bytes and bounded before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpecMismatch
from engine.memory.keyframes import UNKNOWN, Keyframe

MAX_KEYFRAMES = 4096
MAX_SIDE_PX = 4096
MAX_BLOB_BYTES = 128 << 20
MAX_PIXELS = 256 << 20
"""Of all keyframes together."""
LOSSLESS = 101
"""WebP quality: above 100 nothing is lost."""
NUM_PLANES = 3
INVERSE_DEPTH_STEP = 2.4e-4
"""Of compressed keyframes, 1/m: a tenth of a pixel at 208 px focal length from 2 m beside the keyframe."""
LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "memory.colors": ("U8", (MAX_BLOB_BYTES,)),
    "memory.depths": ("U8", (MAX_BLOB_BYTES,)),
    "memory.color_bytes": ("I32", (MAX_KEYFRAMES,)),
    "memory.depth_bytes": ("I32", (MAX_KEYFRAMES,)),
    "memory.depth_scale": ("F32", (MAX_KEYFRAMES,)),
    "memory.c2w": ("F64", (MAX_KEYFRAMES, 4, 4)),
    "memory.intrinsics": ("F32", (MAX_KEYFRAMES, 4)),
}
"""Stored type and the largest shape of each tensor."""


def compressed(keyframe: Keyframe, quality: int) -> Keyframe:
    """Return what a file keeps of a keyframe: colour by lossy WebP of this quality, 0 to 100, and rounded depths."""
    webp = _webp_planes(keyframe.color, quality)
    step = float(np.float32(max(keyframe.scale, INVERSE_DEPTH_STEP)))
    rounded = np.round(keyframe.codes * (keyframe.scale / step)).astype(np.uint16)
    codes = np.where(keyframe.codes == UNKNOWN, UNKNOWN, rounded).astype(np.uint16)
    color = _decoded_color(webp, len(codes))
    return replace(keyframe, color=color, color_blob=webp, codes=codes, scale=step, depth_blob=None)


def encode_keyframes(keyframes: Sequence[Keyframe]) -> dict[str, NDArray[Any]]:
    """Encode keyframes without loss; equal ones give equal bytes."""
    colors, depths, scales = [], [], []
    for keyframe in keyframes:
        known = keyframe.color_blob, keyframe.depth_blob
        colors.append(_webp(keyframe.color, LOSSLESS) if known[0] is None else known[0])
        depths.append(_depth_webp(keyframe.codes) if known[1] is None else known[1])
        scales.append(keyframe.scale)
    return {
        "memory.colors": np.concatenate(colors),
        "memory.depths": np.concatenate(depths),
        "memory.color_bytes": np.array([len(blob) for blob in colors], np.int32),
        "memory.depth_bytes": np.array([len(blob) for blob in depths], np.int32),
        "memory.depth_scale": np.array(scales, np.float32),
        "memory.c2w": np.stack([keyframe.c2w for keyframe in keyframes]).astype(np.float64),
        "memory.intrinsics": np.stack([keyframe.intrinsics for keyframe in keyframes]).astype(np.float32),
    }


def decode_keyframes(arrays: Mapping[str, NDArray[Any]], what: str) -> list[Keyframe]:
    """Decompress keyframes that may be untrusted.

    Args:
        what: Whose memory it is, for errors, as in "the world /tmp/a.world".

    Raises:
        SpecMismatch: They are damaged, too large, or no cameras.
    """
    problem = f"the spatial memory of {what} is damaged; make it again"
    count = len(arrays["memory.c2w"])
    per_keyframe = ("color_bytes", "depth_bytes", "depth_scale", "intrinsics")
    if any(len(arrays[f"memory.{name}"]) != count for name in per_keyframe) or not are_cameras(arrays):
        raise SpecMismatch(problem)
    colors = _blobs(arrays["memory.colors"], arrays["memory.color_bytes"], problem)
    depths = _blobs(arrays["memory.depths"], arrays["memory.depth_bytes"], problem)
    sizes = [_size(color, depth) for color, depth in zip(colors, depths, strict=True)]
    if None in sizes:
        raise SpecMismatch(problem)
    if sum(size[0] * size[1] for size in sizes if size) > MAX_PIXELS:
        raise SpecMismatch(
            f"the spatial memory of {what} is too large; make it of fewer or smaller keyframes"
        )
    keyframes = []
    for n, (color_blob, depth_blob) in enumerate(zip(colors, depths, strict=True)):
        codes = _decoded_codes(depth_blob)
        color = None if codes is None else _decoded_color(color_blob, len(codes))
        if color is None or codes is None or color.shape[:2] != codes.shape:
            raise SpecMismatch(problem)
        keyframes.append(
            Keyframe(
                color,
                codes,
                float(arrays["memory.depth_scale"][n]),
                arrays["memory.c2w"][n],
                arrays["memory.intrinsics"][n],
                color_blob,
                depth_blob,
            )
        )
    return keyframes


def are_cameras(arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether keyframes have poses, focal lengths and scales of depth that can be computed with."""
    scale, lenses = arrays["memory.depth_scale"], arrays["memory.intrinsics"]
    finite = all(np.isfinite(values).all() for values in (scale, lenses, arrays["memory.c2w"]))
    return finite and bool((scale > 0).all() and (lenses[:, :2] > 0).all())


def _webp(color: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    # Heavy, and lists of worlds need none of it; likewise below.
    import cv2

    done, blob = cv2.imencode(".webp", color[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert done, "OpenCV writes WebP"
    return np.asarray(blob, np.uint8).reshape(-1)


def _depth_webp(codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    rest = codes.astype(np.int32)
    for axis in (0, 1):
        rest = np.diff(rest, axis=axis, prepend=0)
    bytes_of = (np.zeros_like(rest), rest & 0xFF, rest >> 8 & 0xFF)
    return _webp(np.stack(bytes_of[::-1], -1).astype(np.uint8), LOSSLESS)


def _webp_planes(color: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    import cv2

    planes = np.asarray(cv2.cvtColor(color, cv2.COLOR_RGB2YCrCb), np.uint8).transpose(2, 0, 1)
    stacked = planes.reshape(-1, color.shape[1])
    return _webp(np.repeat(stacked[..., None], 3, -1), quality)


def _decoded_color(webp: NDArray[np.uint8], height: int) -> NDArray[np.uint8] | None:
    """RGB [H, W, 3] of a picture so high or of its planes; None where the blob is damaged."""
    import cv2

    read = cv2.imdecode(webp, cv2.IMREAD_COLOR)
    if read is None or len(read) == height:
        return None if read is None else np.ascontiguousarray(read[..., ::-1], np.uint8)
    if len(read) != NUM_PLANES * height:
        return None
    planes = np.ascontiguousarray(read[..., 1].reshape(NUM_PLANES, height, -1).transpose(1, 2, 0))
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB), np.uint8)


def _decoded_codes(blob: NDArray[np.uint8]) -> NDArray[np.uint16] | None:
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


def _blobs(joined: NDArray[np.uint8], lengths: NDArray[np.int32], problem: str) -> list[NDArray[np.uint8]]:
    ends = np.cumsum(lengths.astype(np.int64))
    if (lengths <= 0).any() or not len(ends) or ends[-1] != len(joined):
        raise SpecMismatch(problem)
    return [joined[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _size(color: NDArray[np.uint8], depth: NDArray[np.uint8]) -> tuple[int, int] | None:
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
