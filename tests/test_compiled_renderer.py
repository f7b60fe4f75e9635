"""The compiled renderer draws what the numpy renderer, its definition, draws."""

import sys

import numpy as np
import pytest

import holodeck
import holodeck.compiled
from holodeck.compiled import render_rgbd
from holodeck.place import Place
from holodeck.raycast import FAR_M
from holodeck.shapes import Paint, box
from holodeck.sky import Sky

pytest.importorskip("numba")
WIDTH, HEIGHT = 80, 48
INTRINSICS = np.array([52.0, 52.0, 40.0, 24.0], np.float32)
EDGE_SHARE = 0.005
"""Rounding may give a sample on an edge to the other side; so few pixels may differ by more than a grey level."""


def pose(position, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera-to-world from a position in metres and three angles in radians, [4, 4]."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    c2w = np.eye(4)
    c2w[:3, :3] = (
        np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    )
    c2w[:3, 3] = position
    return c2w


def hard_poses(place: Place) -> list[np.ndarray]:
    """Upright, rolled, looking straight up and down, and close to an edge of the walkable ground."""
    low_x, low_z, high_x, high_z = place.bounds
    rng = np.random.default_rng(3)
    middle = ((low_x + high_x) / 2, -1.6, (low_z + high_z) / 2)
    poses = [place.spawn, pose(middle, 0.4, 0.0, np.pi / 2), pose(middle, 1.0, 1.5, 0.2)]
    poses += [pose(middle, -2.0, -1.5, 0.0), pose((low_x + 0.05, -0.4, low_z + 0.05), -2.3, 0.1, 0.3)]
    for _ in range(4):
        point = (rng.uniform(low_x, high_x), -rng.uniform(0.3, 2.8), rng.uniform(low_z, high_z))
        poses.append(pose(point, *rng.normal(0, (2.0, 0.4, 0.4))))
    return poses


@pytest.mark.parametrize("name", holodeck.place_names())
def test_colour_and_depth_are_those_of_the_numpy_renderer(name):
    place = holodeck.get_place(name)
    for c2w in hard_poses(place):
        picture, depth = render_rgbd(place, c2w, INTRINSICS, WIDTH, HEIGHT)
        assert (picture.dtype, depth.dtype) == (np.uint8, np.float32)
        difference = np.abs(picture.astype(int) - place.render(c2w, INTRINSICS, WIDTH, HEIGHT)).max(2)
        assert (difference > 1).mean() <= EDGE_SHARE
        truth = place.depth(c2w, INTRINSICS, WIDTH, HEIGHT)
        assert (np.abs(depth - truth) > 1e-4 * truth).mean() <= EDGE_SHARE


def test_centred_depth_of_a_plane_is_exact_at_pixel_centres():
    wall = box(0, 5, 40, 1, 30, Paint((1, 0, 0)))
    sky = Sky((0, 0, 1), (0, 0, 1), (1, 1, 0), 180, 60)
    place = Place("wall", "", "", [wall], sky, (0, 1, 0), lambda _: None, (-20, -20, 20, 4), (0, 0), 0.0)
    c2w = pose((0.0, -8.0, 0.0), 0.6, 0.1, 0.2)
    _, depth = render_rgbd(place, c2w, INTRINSICS, WIDTH, HEIGHT, centred_depth=True)
    u, v = np.meshgrid((np.arange(WIDTH) + 0.5 - 40) / 52, (np.arange(HEIGHT) + 0.5 - 24) / 52)
    forward = np.stack([u, v, np.ones_like(u)], -1) @ c2w[2, :3]
    on_wall = (depth < FAR_M) & ((np.stack([u, v, np.ones_like(u)], -1) @ c2w[1, :3]) * depth < 7.5)
    assert on_wall.mean() > 0.5
    np.testing.assert_allclose(depth[on_wall], 4.5 / forward[on_wall], rtol=1e-4)


def test_odd_sizes_and_off_centre_cameras_agree_with_the_definition():
    place = holodeck.get_place("garden")
    intrinsics = np.array([30.0, 41.0, 11.5, 30.25], np.float32)
    picture, depth = render_rgbd(place, place.spawn, intrinsics, 37, 23)
    difference = np.abs(picture.astype(int) - place.render(place.spawn, intrinsics, 37, 23)).max(2)
    assert (difference > 1).mean() <= EDGE_SHARE
    assert np.isclose(depth, place.depth(place.spawn, intrinsics, 37, 23), rtol=1e-4).mean() > 0.99


def test_a_picture_smaller_than_the_lens_filter_is_refused():
    with pytest.raises(ValueError, match="8x8"):
        render_rgbd(holodeck.get_place("town"), np.eye(4), INTRINSICS, 7, 20)


def test_missing_numba_names_the_extra(monkeypatch):
    holodeck.compiled._kernels.cache_clear()
    for name in [n for n in sys.modules if n.startswith("holodeck.kernels.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("holodeck.kernels.casting", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ValueError, match=r"\.\[train\]"):
        render_rgbd(holodeck.get_place("town"), np.eye(4), INTRINSICS, WIDTH, HEIGHT)
