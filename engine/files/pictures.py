"""Photos and depth pictures from strangers; sizes are read from their headers and bounded before decoding."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.files.git_lfs import check_fetched

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 1 << 28
"""Of a picture: 268 megapixels, of which RGB takes 0.8 GB; one that claims more is damaged or hostile."""
BACKGROUND = "white"
"""Behind what is transparent."""


def read_rgb(path: Path, as_stored: bool = False) -> NDArray[np.uint8]:
    """Read a picture of any mode as RGB of 8 bits, [H, W, 3]; what is transparent is laid over white.

    Args:
        as_stored: Leave the picture as its pixels lie, instead of turning it upright by its EXIF entry.

    Raises:
        ValueError: It is no picture, damaged or too large, in one sentence.
    """
    return np.array(open_rgb(path, as_stored))


def open_rgb(path: Path, as_stored: bool = False) -> Image.Image:
    """The same as Pillow's picture."""
    # Heavy, and playing reads no photos; likewise below.
    from PIL import ImageOps

    picture = _decoded(path)
    try:
        return as_rgb(picture if as_stored else ImageOps.exif_transpose(picture))
    except ValueError as error:
        raise ValueError(f"cannot read the picture {path}: {error}; save it again") from None


def read_depth_picture(path: Path) -> NDArray[np.uint16]:
    """Read a grey PNG of 16 bits, [H, W].

    Raises:
        ValueError: It is something else, damaged or too large, in one sentence.
    """
    picture = _decoded(path)
    if not picture.mode.startswith("I;16"):
        raise ValueError(f"{path} is not a grey PNG of 16 bits; save the depth as one, in millimetres")
    return np.array(picture, np.uint16)


def as_rgb(picture: Image.Image) -> Image.Image:
    """Turn a picture of any of Pillow's modes into RGB of 8 bits.

    Raises:
        ValueError: Its numbers are not finite.
    """
    from PIL import Image, ImageCms

    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Image.fromarray(to_bytes(np.asarray(picture))).convert("RGB")
    if picture.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
        assert converted is not None, "nothing is converted in place"
        return converted
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    # Premultiplied modes become plain ones first.
    plain = picture.convert("LA") if picture.mode == "La" else picture
    base = Image.new("RGBA", picture.size, BACKGROUND)
    base.alpha_composite(plain.convert("RGBA"))
    return base.convert("RGB")


def to_bytes(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale levels of more than 8 bits, or of floats, from their range to 0..255.

    Floats are of 0..1 and whole numbers of 8 or 16 bits, unless one is larger: then the largest is white.

    Raises:
        ValueError: They are not finite.
    """
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


def _decoded(path: Path) -> Image.Image:
    """Read a picture whole, as its pixels lie."""
    from PIL import Image, UnidentifiedImageError

    # Pillow's own limit refuses the photos of large cameras.
    Image.MAX_IMAGE_PIXELS = None
    try:
        # Pillow warns of damaged EXIF entries.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            if picture.width * picture.height <= MAX_PIXELS:
                picture.load()
                return picture
            problem = f"{path} is a picture of {picture.width}x{picture.height}; scale it down first"
    except UnidentifiedImageError:
        check_fetched(path, ValueError)
        problem = f"{path} is not a picture that can be read; save it as JPEG or PNG"
    except FileNotFoundError:
        problem = f"there is no picture {path}"
    except (OSError, SyntaxError, ValueError, RuntimeError, MemoryError) as error:
        problem = f"cannot read the picture {path}: {error}; save it again"
    raise ValueError(problem) from None
