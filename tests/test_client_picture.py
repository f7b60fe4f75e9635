"""Frames are enlarged without halos or distortion, and screenshots carry their description."""

from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.playback.captures import encode_photo, read_photo_description, save_photo
from client.setup.folders import unused_path
from client.ui.picture import Style, enlarge, fit_rect

STYLES: tuple[Style, ...] = ("crisp", "smooth", "pixels")


def two_colours() -> NDArray[np.uint8]:
    frame = np.full((96, 160, 3), (40, 90, 200), np.uint8)
    frame[30:60, 50:120] = (230, 180, 20)
    return frame


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_the_picture_fills_the_room_in_one_direction_and_stays_inside(width: int, height: int) -> None:
    left, top, fitted_width, fitted_height = fit_rect(160, 96, width, height)
    assert left >= 0
    assert top >= 0
    assert left + fitted_width <= width
    assert top + fitted_height <= height
    assert fitted_width == width or fitted_height == height


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(1280, 768), (320, 192), (161, 97), (80, 48), (1, 1)])
def test_every_style_fills_every_size(style: Style, size: tuple[int, int]) -> None:
    assert enlarge(two_colours(), *size, style).shape == (size[1], size[0], 3)


def test_crisp_edges_are_steeper_than_smooth_ones_and_have_no_halo() -> None:
    frame = two_colours()
    crisp = enlarge(frame, 1280, 768, "crisp").astype(int)
    smooth = enlarge(frame, 1280, 768, "smooth").astype(int)
    assert np.abs(np.diff(crisp, axis=1)).max() > 1.15 * np.abs(np.diff(smooth, axis=1)).max()
    for channel, (low, high) in enumerate(((40, 230), (90, 180), (20, 200))):
        # One level of rounding at each of the two enlargements.
        assert crisp[..., channel].min() >= low - 2
        assert crisp[..., channel].max() <= high + 2


@pytest.mark.parametrize("style", STYLES)
def test_a_flat_picture_stays_flat(style: Style) -> None:
    frame = np.full((96, 160, 3), (12, 200, 77), np.uint8)
    assert (enlarge(frame, 1200, 720, style) == (12, 200, 77)).all()


def test_a_screenshot_holds_its_pixels_and_its_description(tmp_path: Path) -> None:
    frame = two_colours()
    description = {"world": "town", "seed": 7, "c2w": np.eye(4).tolist()}
    save_photo(tmp_path / "deep" / "shot.png", frame, description)
    decoded = cv2.imread(str(tmp_path / "deep" / "shot.png"))
    assert decoded is not None
    assert (decoded[..., ::-1] == frame).all()
    assert read_photo_description(tmp_path / "deep" / "shot.png") == description


def test_a_png_of_someone_else_has_no_description(tmp_path: Path) -> None:
    encoded = cv2.imencode(".png", two_colours())[1].tobytes()
    (tmp_path / "other.png").write_bytes(encoded)
    assert read_photo_description(tmp_path / "other.png") == {}
    assert len(encode_photo(two_colours(), {})) > len(encoded)


def test_two_screenshots_in_one_second_have_two_names(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = unused_path(tmp_path, "town", ".png", now)
    first.touch()
    second = unused_path(tmp_path, "town", ".png", now)
    assert first.name == "town-20260102-030405.png"
    assert second != first


def test_a_screenshot_that_cannot_be_written_says_so_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot make the folder"):
        save_photo(tmp_path / "file" / "shot.png", two_colours(), {})
