"""A frame turned to another view equals what is truly seen there, wherever the frame reaches."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pygame
import pytest
from numpy.typing import NDArray

from client.camera.late_reprojection import FRAME_ALONE, LEAST_TURN_RAD, bounded, homography, warp
from client.ui.menu import picture_surface
from client.ui.picture import LivePicture
from engine.camera.integrator import rotation_x, rotation_y, rotation_z
from holodeck import get_place

WIDTH, HEIGHT = 160, 96
INTRINSICS = np.array([104.0, 104.0, 80.0, 48.0], np.float32)


def pose(yaw_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float64]:
    c2w = get_place("town").spawn.copy()
    turns = (
        rotation_y(math.radians(yaw_deg)),
        rotation_x(math.radians(pitch_deg)),
        rotation_z(math.radians(roll_deg)),
    )
    c2w[:3, :3] = turns[0] @ turns[1] @ turns[2]
    return c2w


def render(c2w: NDArray[np.float64]) -> NDArray[np.uint8]:
    return get_place("town").render(c2w, INTRINSICS, WIDTH, HEIGHT)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    return float(10 * np.log10(255.0**2 / np.square(a[where].astype(float) - b[where]).mean()))


@pytest.mark.parametrize("roll_deg", [0.0, 25.0])
@pytest.mark.parametrize(
    "turn_deg", [(3.0, 0.0, 0.0), (0.0, -4.0, 0.0), (-8.0, 5.0, 0.0), (12.0, 3.0, -4.0), (0.0, 0.0, 15.0)]
)
def test_a_turned_frame_equals_the_true_render(roll_deg: float, turn_deg: tuple[float, float, float]) -> None:
    yaw_deg, pitch_deg, lean_deg = turn_deg
    here, there = pose(20.0, -5.0, roll_deg), pose(20.0 + yaw_deg, -5.0 + pitch_deg, roll_deg + lean_deg)
    mapping = homography(here[:3, :3], there[:3, :3], INTRINSICS)
    shown = warp(render(here), mapping, (WIDTH, HEIGHT))
    inside = warp(np.full((HEIGHT, WIDTH, 3), 255, np.uint8), mapping, (WIDTH, HEIGHT))
    assert inside.min() == 255, "edges are filled, not black"
    # Where the frame reaches: not within two pixels of what had to be filled.
    rows, columns = np.mgrid[2 : HEIGHT - 2, 2 : WIDTH - 2] + 0.5
    back = np.linalg.inv(mapping) @ np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
    x, y = back[:2] / back[2]
    reached = np.zeros((HEIGHT, WIDTH), bool)
    reached[2:-2, 2:-2] = ((x > 2) & (x < WIDTH - 2) & (y > 2) & (y < HEIGHT - 2)).reshape(rows.shape)
    truth = render(there)
    assert reached.mean() > 0.6
    assert psnr(shown, truth, reached) > 33.0
    # Half a pixel off would already be worse, a whole one much: the map is right to a fraction of a pixel.
    assert psnr(shown, truth, reached) > psnr(np.roll(shown, 1, 1), truth, reached) + 6.0


def test_an_enlarged_frame_is_turned_by_the_same_angle() -> None:
    mapping = homography(pose(0.0, 0.0, 0.0)[:3, :3], pose(6.0, 0.0, 0.0)[:3, :3], INTRINSICS)
    # The point straight ahead moves left by f tan(6 degrees), in the frame and on the screen alike.
    x, y, z = mapping @ np.array([80.0, 48.0, 1.0])
    assert (x / z, y / z) == pytest.approx((80.0 - 104.0 * math.tan(math.radians(6.0)), 48.0))
    picture = np.zeros((4 * HEIGHT, 4 * WIDTH, 3), np.uint8)
    picture[:, 318:322] = 255
    columns = np.flatnonzero(warp(picture, mapping, (WIDTH, HEIGHT))[2 * HEIGHT, :, 0] > 127)
    assert columns.mean() + 0.5 == pytest.approx(4 * x / z, abs=0.5)


def test_turns_are_bounded_and_invisible_ones_dropped() -> None:
    least, longest = LEAST_TURN_RAD, FRAME_ALONE.turn_rad
    assert not bounded(np.array([1e-6, 1e-6, 1e-6]), least, longest).any()
    turn_rad = bounded(np.array([3.0, 4.0, 12.0]), least, longest)
    np.testing.assert_allclose(turn_rad, longest * np.array([3.0, 4.0, 12.0]) / 13.0)
    np.testing.assert_array_equal(bounded(turn_rad, least, longest), turn_rad)


def test_nothing_is_drawn_twice() -> None:
    live, here = LivePicture(INTRINSICS), pose(0.0, 0.0, 0.0)
    frame = render(here)
    poses = here, pose(6.0, 0.0, 0.0)
    first = live.show(frame, None, (480, 288), "smooth")
    assert live.show(frame, None, (480, 288), "smooth") is first
    turned_once = live.show(frame, poses, (480, 288), "smooth")
    assert live.show(frame, poses, (480, 288), "smooth") is turned_once
    assert not np.array_equal(turned_once, first)
    assert live.show(frame.copy(), poses, (480, 288), "smooth") is not turned_once


def test_a_large_window_shows_the_same_turned_picture_as_a_small_one() -> None:
    live, here = LivePicture(INTRINSICS), pose(0.0, 0.0, 0.0)
    frame, poses = render(here), (here, pose(9.0, -3.0, 2.0))
    native = live.show(frame, poses, (WIDTH, HEIGHT), "smooth")
    for factor in (2, 4, 5, 8):
        size = factor * WIDTH, factor * HEIGHT
        large = live.show(frame, poses, size, "smooth")
        assert large.shape == (size[1], size[0], 4)
        small = cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        # The frame's own resolution softens each edge once more; a shift of a pixel would give 22 dB.
        assert psnr(np.asarray(small, np.uint8), native, np.ones((HEIGHT, WIDTH), bool)) > 29.0


def test_the_picture_is_drawn_in_the_colours_of_its_frame() -> None:
    live, frame = LivePicture(INTRINSICS), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[:, : WIDTH // 2], frame[:, WIDTH // 2 :] = (250, 120, 3), (4, 60, 200)
    target = pygame.Surface((WIDTH, HEIGHT), depth=32)
    target.blit(picture_surface(live.show(frame, None, (WIDTH, HEIGHT), "pixels")), (0, 0))
    np.testing.assert_array_equal(pygame.surfarray.array3d(target).swapaxes(0, 1), frame)
