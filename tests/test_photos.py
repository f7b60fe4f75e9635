"""Photos of every mode and size, and names of every kind, become the first frames of worlds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.files import pictures
from engine.files.pictures import as_rgb, open_rgb, read_rgb
from engine.files.world import WorldInfo, title_of, world_name
from export.photo import fit_photo

RAMP = np.linspace(0.0, 1.0, 64).reshape(8, 8)
"""Grey levels from black to white."""


def levels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float64).mean(-1) / 255.0


@pytest.mark.parametrize("mode", sorted(Image.MODES))
def test_every_mode_of_pillow_becomes_rgb(mode: str):
    picture = as_rgb(Image.new(mode, (4, 3)))
    assert (picture.mode, picture.size) == ("RGB", (4, 3))


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        ((RAMP * 65535).astype(np.uint16), "png"),
        ((RAMP * 65535).astype(np.uint16), "tif"),
        ((RAMP * 65535).astype(np.int32), "tif"),
        (RAMP.astype(np.float32), "tif"),
        ((RAMP * 4000.0).astype(np.float32), "tif"),
        ((RAMP * 255).astype(np.uint8), "png"),
    ],
)
def test_more_than_eight_bits_are_scaled_to_their_range(tmp_path: Path, values: np.ndarray, suffix: str):
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(values).save(path)
    # Half a level of 255, and one lost where a file holds no more.
    np.testing.assert_allclose(levels(open_rgb(path)), RAMP, atol=1.01 / 255)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "gif", "bmp", "tga", "jp2", "ppm", "avif", "tif"])
def test_pictures_of_every_common_kind_are_read(tmp_path: Path, suffix: str):
    ramps = (np.stack([RAMP, 1 - RAMP, RAMP * 0.5], -1) * 255).astype(np.uint8)
    picture = Image.fromarray(ramps).resize((96, 48))
    path = tmp_path / f"a.{suffix}"
    picture.save(path)
    off = np.abs(read_rgb(path).astype(int) - np.asarray(picture))
    assert off.mean() < 5


def test_print_colours_are_converted(tmp_path: Path):
    Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK").save(tmp_path / "print.jpg")
    np.testing.assert_allclose(read_rgb(tmp_path / "print.jpg")[4, 4], (200, 40, 90), atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_photos_are_turned_upright(tmp_path: Path, suffix: str, orientation: int):
    exif = Image.Exif()
    exif[0x112] = orientation
    picture = Image.fromarray((np.stack([RAMP, RAMP.T, 1 - RAMP], -1) * 255).astype(np.uint8)).resize(
        (64, 48)
    )
    if suffix != "jpg":
        picture.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))))
    path = tmp_path / f"photo.{suffix}"
    picture.save(path, exif=exif.tobytes(), lossless=suffix == "webp")
    turned = ImageOps.exif_transpose(Image.open(path)).size
    assert read_rgb(path).shape[:2] == turned[::-1] == ((64, 48) if orientation > 4 else (48, 64))
    assert read_rgb(path, as_stored=True).shape == (48, 64, 3)
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    stored = read_rgb(path, as_stored=True)[0, 0].astype(int)
    assert np.abs(read_rgb(path)[corner[orientation]] - stored).max() <= 6


def test_floats_that_are_no_numbers_are_refused(tmp_path: Path):
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match=r"cannot read the picture .*NaN"):
        open_rgb(tmp_path / "nan.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_what_is_transparent_is_laid_over_white(tmp_path: Path, mode: str):
    picture = Image.new("RGBA", (8, 8), (255, 0, 255, 0))
    picture.paste((40, 40, 40, 255), (0, 0, 4, 8))
    picture = picture.convert(mode) if mode != "P" else picture.quantize(4)
    path = tmp_path / f"alpha.{'tif' if mode == 'PA' else 'png'}"
    shown = as_rgb(picture) if mode == "PA" else open_rgb(path) if not picture.save(path) else picture
    assert np.abs(np.asarray(shown)[:, 4:].astype(int) - 255).max() <= 1
    assert np.abs(np.asarray(shown)[:, :4].astype(int) - 40).max() <= 2


def test_a_photo_beyond_pillows_limit_is_scaled_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (400, 300), (9, 9, 9)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    frame, fit = fit_photo(open_rgb(tmp_path / "large.png"), 96, 64)
    assert (frame.shape, fit.source) == ((64, 96, 3), (400, 300))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="400x300; scale it down"):
        open_rgb(tmp_path / "large.png")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("IMG 2034 (1)", "IMG-2034-1"),
        ("M\u00fcnchen", "Munchen"),
        ("\u65e5\u672c", "world"),
        (".hidden", "hidden"),
        ("-a--b_", "a-b"),
        ("x" * 300, "x" * 64),
        ("", "world"),
        ("..", "world"),
        ("\U0001f600", "world"),
        ("con", "con-world"),
        ("NUL.tar", "NUL-tar"),
        ("COM\u00b9", "COM1-world"),
    ],
)
def test_a_worlds_name_and_title_come_of_any_file_name(stem: str, name: str):
    assert world_name(stem) == name
    title = title_of(stem + "\n\x1b")
    assert WorldInfo(name=name, title=title, licence="", model="0" * 64).title == title
