"""Photos of every mode and size, and names of every kind, become the first frames of worlds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.files.pictures import read_rgb as read_any
from engine.files.world import WorldInfo, title_of, world_name
from export import photo as photo_module
from export.photo import as_rgb, fit_photo, read_photo

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
    np.testing.assert_allclose(levels(read_photo(path)), RAMP, atol=1.01 / 255)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.png", "RGB", {}),
        ("a.png", "RGBA", {}),
        ("a.png", "LA", {}),
        ("a.png", "1", {}),
        ("a.png", "P", {"transparency": 1}),
        ("a.png", "I;16", {}),
        ("a.tif", "I;16", {}),
        ("a.tif", "F", {}),
        ("a.tif", "RGBA", {}),
        ("a.tif", "CMYK", {}),
        ("a.jpg", "CMYK", {}),
        ("a.jpg", "L", {}),
        ("a.webp", "RGBA", {"lossless": True}),
        ("a.gif", "P", {"transparency": 1}),
        ("a.bmp", "RGB", {}),
    ],
)
def test_a_base_install_reads_what_pillow_reads(tmp_path: Path, name: str, mode: str, options: dict):
    picture = Image.fromarray((np.stack([RAMP, 1 - RAMP, RAMP * 0.5], -1) * 255).astype(np.uint8)).resize(
        (96, 48)
    )
    if mode in ("I;16", "F"):
        grey = np.asarray(picture.convert("L"), np.float32) / 255
        picture = Image.fromarray((grey * 65535).astype(np.uint16) if mode == "I;16" else grey)
    else:
        picture = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(np.tile(np.arange(96, dtype=np.uint8) * 2, (48, 1))))
    path = tmp_path / name
    picture.save(path, **options)
    expected = np.asarray(read_photo(path)).astype(int)
    shown = read_any(path).astype(int)
    assert shown.shape == expected.shape
    # JPEG decoders and colour conversions round differently.
    assert np.abs(shown - expected).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_base_install_turns_photos_upright_as_pillow_does(tmp_path: Path, suffix: str, orientation: int):
    exif = Image.Exif()
    exif[0x112] = orientation
    picture = Image.fromarray((np.stack([RAMP, RAMP.T, 1 - RAMP], -1) * 255).astype(np.uint8)).resize(
        (64, 48)
    )
    if suffix != "jpg":
        picture.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))))
    path = tmp_path / f"photo.{suffix}"
    picture.save(path, exif=exif.tobytes(), lossless=suffix == "webp")
    expected = np.asarray(read_photo(path)).astype(int)
    assert np.abs(read_any(path).astype(int) - expected).max() <= 6


def test_floats_that_are_no_numbers_are_refused(tmp_path: Path):
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match=r"cannot read the picture .*NaN"):
        read_photo(tmp_path / "nan.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_what_is_transparent_is_laid_over_white(tmp_path: Path, mode: str):
    picture = Image.new("RGBA", (8, 8), (255, 0, 255, 0))
    picture.paste((40, 40, 40, 255), (0, 0, 4, 8))
    picture = picture.convert(mode) if mode != "P" else picture.quantize(4)
    path = tmp_path / f"alpha.{'tif' if mode == 'PA' else 'png'}"
    shown = as_rgb(picture) if mode == "PA" else read_photo(path) if not picture.save(path) else picture
    assert np.abs(np.asarray(shown)[:, 4:].astype(int) - 255).max() <= 1
    assert np.abs(np.asarray(shown)[:, :4].astype(int) - 40).max() <= 2


def test_a_photo_beyond_pillows_limit_is_scaled_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (400, 300), (9, 9, 9)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    frame, fit = fit_photo(read_photo(tmp_path / "large.png"), 96, 64)
    assert (frame.shape, fit.source) == ((64, 96, 3), (400, 300))
    assert Image.MAX_IMAGE_PIXELS == 30_000
    monkeypatch.setattr(photo_module, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="400x300; scale it down"):
        read_photo(tmp_path / "large.png")


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
