"""Photos and depth pictures from strangers; sizes are read from their headers and bounded before decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.files.git_lfs import check_fetched
from engine.files.picture_headers import TIFF, exif_orientation, may_be_transparent, picture_size

MAX_FILE_BYTES = 1 << 29
MAX_PIXELS = 1 << 28
"""Of a picture: 268 megapixels, of which RGB takes 0.8 GB; one that claims more is damaged or hostile."""
BACKGROUND = 255.0
"""Level behind what is transparent: white."""


def read_rgb(path: Path, as_stored: bool = False) -> NDArray[np.uint8]:
    """Read a picture of any mode as RGB of 8 bits, [H, W, 3]; what is transparent is laid over white.

    Args:
        as_stored: Leave the picture as its pixels lie, instead of turning it upright by its EXIF entry.

    Raises:
        ValueError: It is no picture, damaged or too large, in one sentence.
    """
    import cv2

    content = _content(path)
    turned = cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0
    levels = _decoded(content, path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | turned)
    try:
        color = to_bytes(levels)
    except ValueError as error:
        raise ValueError(f"cannot read the picture {path}: {error}; save it again") from None
    color = np.stack([color] * 3, axis=-1) if color.ndim == 2 else color[..., ::-1]
    if may_be_transparent(content):
        layers = _decoded(content, path, cv2.IMREAD_UNCHANGED)
        if layers.ndim == 3 and layers.shape[2] == 4:
            opacity = upright(layers[..., 3], 1 if as_stored else exif_orientation(content))
            # libtiff multiplies 8-bit colours by their opacity.
            color = _over_background(color, opacity, content[:4] in TIFF and layers.dtype == np.uint8)
    return np.ascontiguousarray(color)


def read_depth_picture(path: Path) -> NDArray[np.uint16]:
    """Read a grey PNG of 16 bits, [H, W].

    Raises:
        ValueError: It is something else, damaged or too large, in one sentence.
    """
    import cv2

    depth = _decoded(_content(path), path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise ValueError(f"{path} is not a grey PNG of 16 bits; save the depth as one, in millimetres")
    return depth


def to_bytes(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale levels of more than 8 bits, or of floats, from their range to 0..255.

    Floats are of 0..1 and whole numbers of 8 or 16 bits, unless one is larger: then the largest is white.

    Raises:
        ValueError: They are not finite.
    """
    if levels.dtype == np.uint8:
        return levels
    if levels.dtype == np.uint16:
        # In whole numbers, for a large photo's sake.
        return ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    values = levels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    largest = float(values.max())
    tops = (1.0,) if np.issubdtype(levels.dtype, np.floating) else (255.0, 65535.0)
    top = next((top for top in tops if largest <= top), largest)
    return np.round(np.clip(values / top, 0.0, 1.0) * 255.0).astype(np.uint8)


def upright(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror a picture [H, W, ...] as its EXIF orientation, 1 to 8, says."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    down, right = (-1 if orientation in (3, 4, 7, 8) else 1), (-1 if orientation in (2, 3, 6, 7) else 1)
    return picture[::down, ::right]


def _over_background(
    color: NDArray[np.uint8], opacity: NDArray[Any], premultiplied: bool
) -> NDArray[np.uint8]:
    """Lay a picture [H, W, 3] of some opacity [H, W] over one colour."""
    if opacity.shape != color.shape[:2] or not np.issubdtype(opacity.dtype, np.integer):
        return color
    share = opacity[..., None].astype(np.float32) / np.iinfo(opacity.dtype).max
    seen = color if premultiplied else color * share
    return np.round(np.minimum(seen + BACKGROUND * (1.0 - share), 255.0)).astype(np.uint8)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path} is too large a picture; scale it down first")
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no picture {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read the picture {path}: {error.strerror}; check the path") from error


def _decoded(content: bytes, path: Path, how: int) -> NDArray[Any]:
    import cv2

    size = picture_size(content)
    if size is None:
        check_fetched(path, ValueError)
        raise ValueError(f"{path} is not a picture that can be read; save it as JPEG or PNG")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{path} is a picture of {size[0]}x{size[1]}; scale it down first")
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise ValueError(
            f"{path} is a damaged picture, or of a kind that is not read; save it as JPEG or PNG"
        )
    return np.asarray(decoded)
