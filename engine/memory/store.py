"""Keyframes as arrays of a file: the blobs of colour and of depth end to end, beside their cameras.

What a blob announces of its size is read from its first bytes and bounded before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpecMismatch
from engine.memory.codec import (
    LOSSLESS,
    QUICK,
    announced_size,
    encode_avif,
    encode_color,
    encode_depth,
)
from engine.memory.keyframes import UNKNOWN, Keyframe

NUM_THREADS = 2
"""In which keyframes are decoded."""
MAX_KEYFRAMES = 4096
MAX_BLOB_BYTES = 128 << 20
MAX_PIXELS = 256 << 20
"""Of all keyframes together."""
MAX_CAMERA = 1e6
"""Of poses in metres, focal lengths in pixels and scales of depth in 1/m; focal lengths are above its inverse as well. Points
seen by such cameras are far within float32."""
INVERSE_DEPTH_STEP = 4.8e-4
"""Of compressed keyframes, 1/m: a fifth of a pixel at 208 px focal length from 2 m beside the keyframe."""
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


def compressed(keyframe: Keyframe, quality: int, speed: int = QUICK) -> Keyframe:
    """Return what a file keeps of a keyframe: colour by AVIF of this quality, 0 to 100, and rounded depths."""
    blob = encode_avif(keyframe.color, quality, speed)
    step = float(np.float32(max(keyframe.scale, INVERSE_DEPTH_STEP)))
    rounded = np.round(keyframe.codes * (keyframe.scale / step)).astype(np.uint16)
    codes = np.where(keyframe.codes == UNKNOWN, UNKNOWN, rounded).astype(np.uint16)
    return replace(keyframe, picture=None, color_blob=blob, depth_codes=codes, scale=step, depth_blob=None)


def encode_keyframes(keyframes: Sequence[Keyframe]) -> dict[str, NDArray[Any]]:
    """Encode keyframes without loss; equal ones give equal bytes."""
    colors, depths, scales = [], [], []
    for keyframe in keyframes:
        known = keyframe.color_blob, keyframe.depth_blob
        colors.append(encode_color(keyframe.color, LOSSLESS) if known[0] is None else known[0])
        depths.append(encode_depth(keyframe.codes) if known[1] is None else known[1])
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


def decode_keyframes(arrays: Mapping[str, NDArray[Any]], what: str, checked: bool = True) -> list[Keyframe]:
    """Read keyframes that may be untrusted.

    Args:
        what: Whose memory it is, for errors, as in "the world /tmp/a.world".
        checked: Decode all of their pictures once; else each is decoded when it is asked for, and raises then.

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
    announced = map(announced_size, colors, depths)
    sizes = [size for size in announced if size is not None]
    if len(sizes) < count:
        raise SpecMismatch(problem)
    if sum(width * height for width, height in sizes) > MAX_PIXELS:
        raise SpecMismatch(
            f"the spatial memory of {what} is too large; make it of fewer or smaller keyframes"
        )
    cameras = (arrays[f"memory.{name}"] for name in ("depth_scale", "c2w", "intrinsics"))
    keyframes = [
        Keyframe(None, None, float(scale), c2w, intrinsics, color, depth, size, problem)
        for scale, c2w, intrinsics, color, depth, size in zip(*cameras, colors, depths, sizes, strict=True)
    ]
    if checked:
        with ThreadPoolExecutor(NUM_THREADS, "keyframes") as pool:
            list(pool.map(Keyframe.check, keyframes))
    return keyframes


def are_cameras(arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether keyframes have poses, focal lengths and scales of depth that can be computed with."""
    scale, lenses = arrays["memory.depth_scale"], arrays["memory.intrinsics"]
    # False for NaN too.
    bounded = all((np.abs(values) < MAX_CAMERA).all() for values in (scale, lenses, arrays["memory.c2w"]))
    return bounded and bool((scale > 0).all() and (lenses[:, :2] > 1 / MAX_CAMERA).all())


def _blobs(joined: NDArray[np.uint8], lengths: NDArray[np.int32], problem: str) -> list[NDArray[np.uint8]]:
    ends = np.cumsum(lengths.astype(np.int64))
    if (lengths <= 0).any() or not len(ends) or ends[-1] != len(joined):
        raise SpecMismatch(problem)
    return [joined[end - length : end] for end, length in zip(ends, lengths, strict=True)]
