"""Laws of the ray caster and of collision: what is drawn is where geometry says, and walkers stay out of walls."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holodeck
from holodeck.collision import is_free
from holodeck.place import EYE_HEIGHT_M, GroundPainter, Place
from holodeck.shapes import Kind, Paint, box, cone, cylinder, sphere
from holodeck.sky import Sky
from holodeck.walks import walk

INTRINSICS = np.array([104.0, 104.0, 80.0, 48.0], np.float32)
SKY = Sky((0, 0, 1), (0, 0, 1), (1, 1, 0), 180, 60, ambient=1.0, fog_m=1e6, halo=0.0)
RED = Paint((1.0, 0.0, 0.0), glow=1.0)


def one_shape(shape) -> Place:
    def leave_bare(painter: GroundPainter) -> None:
        painter.rectangle(0, 0, 1, 1, (0, 1, 0))

    return Place("test", "Test", "", [shape], SKY, (0, 1, 0), leave_bare, (-20, -20, 20, 20), (0, -5), 0.0)


def looking(position, rotation=None) -> np.ndarray:
    c2w = np.eye(4)
    c2w[:3, 3] = position
    if rotation is not None:
        c2w[:3, :3] = rotation
    return c2w


def red_extent(frame: np.ndarray) -> tuple[float, float, float, float]:
    """First and last column and row where red covers more than half a pixel."""
    red = frame[..., 0] > 127
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return columns[0], columns[-1] + 1, rows[0], rows[-1] + 1


@pytest.mark.parametrize("shape", [box(0, 0, 2, 0.02, 2, RED, base=1), cylinder(0, 0, 1, 2, RED, base=1)])
def test_edges_stand_where_perspective_puts_them(shape):
    frame = one_shape(shape).render(looking([0.0, -2.0, -6.0]), INTRINSICS, 160, 96)
    left, right, top, bottom = red_extent(frame)
    # A silhouette of half width 1 at depth 6 (tangent rays for the cylinder: 1 / sqrt(35)).
    slope = 1 / 6 if shape.kind == 0 else 1 / np.sqrt(35)
    assert left == pytest.approx(80 - 104 * slope, abs=1.01)
    assert right == pytest.approx(80 + 104 * slope, abs=1.01)
    nearest = 5.99 if shape.kind == 0 else 5.0
    assert top == pytest.approx(48 - 104 / nearest, abs=1.01)
    assert bottom == pytest.approx(48 + 104 / nearest, abs=1.01)


def test_sphere_has_its_tangent_circle():
    frame = one_shape(sphere(0, 0, 1, RED, base=1)).render(looking([0.0, -2.0, -6.0]), INTRINSICS, 160, 96)
    left, right, top, bottom = red_extent(frame)
    radius = 104 / np.sqrt(35)
    np.testing.assert_allclose(
        [left, right, top, bottom], [80 - radius, 80 + radius, 48 - radius, 48 + radius], atol=1.01
    )


def test_cone_narrows_to_its_tip():
    frame = one_shape(cone(0, 0, 1, 2, RED)).render(looking([0.0, -1.0, -6.0]), INTRINSICS, 160, 96)
    widths = (frame[..., 0] > 127).sum(1)
    rows = np.flatnonzero(widths)
    assert rows[0] == pytest.approx(48 - 104 / 6, abs=1.5)
    assert widths[rows[0] + 2] < widths[48] < widths[rows[-1] - 1]


def test_roll_turns_the_picture_the_other_way():
    place = one_shape(box(0, 0, 2, 0.02, 0.4, RED, base=1.8))
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    upright = red_extent(place.render(looking([0, -2, -6]), INTRINSICS, 160, 96))
    rolled = red_extent(place.render(looking([0, -2, -6], quarter), INTRINSICS, 160, 96))
    assert rolled[1] - rolled[0] == pytest.approx(upright[3] - upright[2], abs=1)
    assert rolled[3] - rolled[2] == pytest.approx(upright[1] - upright[0], abs=1)


def test_near_surface_hides_the_far_one():
    place = one_shape(box(0, 0, 4, 1, 4, RED))
    behind = looking([0.0, -1.6, 6.0], np.diag([-1.0, 1.0, -1.0]))
    assert (place.render(behind, INTRINSICS, 160, 96)[48, 80] == [255, 0, 0]).all()
    away = looking([0.0, -1.6, 6.0])
    assert place.render(away, INTRINSICS, 160, 96)[..., 0].max() < 128


@pytest.mark.parametrize("name", holodeck.place_names())
def test_every_place_is_a_picture_of_its_own(name):
    place = holodeck.get_place(name)
    frame = place.render(place.spawn, INTRINSICS, 160, 96)
    assert frame.shape == (96, 160, 3)
    assert frame.std() > 25
    others = [holodeck.get_place(n) for n in holodeck.place_names() if n != name]
    for other in others:
        difference = frame.astype(float) - other.render(other.spawn, INTRINSICS, 160, 96)
        assert np.abs(difference).mean() > 20


@pytest.mark.parametrize("name", holodeck.place_names())
def test_walks_keep_out_of_walls_and_see_more_than_one_wall(name):
    place = holodeck.get_place(name)
    poses = walk(place, 400, 16, seed=7)
    assert np.allclose(poses[0], place.spawn)
    for c2w in poses[::5]:
        assert is_free(place.arrays, c2w[:3, 3], 0.3)
    frames = [place.render(c2w, INTRINSICS / np.float32(4), 40, 24) for c2w in poses[::20]]
    bare = [f for f in frames if f.reshape(-1, 3).std(0).max() < 8]
    assert len(bare) <= len(frames) // 5


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(holodeck.place_names()), st.integers(0, 2**32 - 1), st.floats(0.01, 30.0))
def test_no_move_however_long_ends_inside_a_wall(name, seed, length_m):
    place = holodeck.get_place(name)
    rng = np.random.default_rng(seed)
    position = place.spawn[:3, 3]
    for _ in range(4):
        direction = rng.normal(size=3)
        position = place.slide(position, direction / np.linalg.norm(direction) * length_m, 0.35)
        assert is_free(place.arrays, position, 0.34)
        assert place.bounds[0] <= position[0] <= place.bounds[2]
        assert place.bounds[1] <= position[2] <= place.bounds[3]
        assert -place.ceiling_m <= position[1] < 0


def test_slide_keeps_the_part_of_a_move_that_runs_along_the_wall():
    place = one_shape(box(0, 3, 20, 1, 3, RED))
    start = np.array([0.0, -EYE_HEIGHT_M, 2.0])
    end = place.slide(start, np.array([2.0, 0.0, 2.0]), 0.35)
    assert end[0] == pytest.approx(2.0, abs=0.05)
    assert end[2] == pytest.approx(2.5 - 0.35, abs=0.01)


def test_slide_refuses_numbers_that_are_not_finite():
    with pytest.raises(ValueError, match="finite"):
        holodeck.get_place("town").slide(np.array([0.0, np.nan, 0.0]), np.zeros(3))


def test_unknown_place_lists_the_known_ones():
    with pytest.raises(ValueError, match="town"):
        holodeck.get_place("atlantis")


@pytest.mark.parametrize("name", holodeck.place_names())
def test_no_two_colours_share_a_plane_that_is_seen(name: str) -> None:
    """Which of two boxes is drawn, where their faces lie in one plane, depends on the camera."""
    place = holodeck.get_place(name)
    low, high = (np.asarray(side, np.float64) for side in (place.arrays.low, place.arrays.high))
    boxes = [n for n, shape in enumerate(place.shapes) if shape.kind is Kind.BOX]
    left, front, right, back = place.bounds
    for first, second in itertools.combinations(boxes, 2):
        if place.shapes[first].paint == place.shapes[second].paint:
            continue
        near, far = np.maximum(low[first], low[second]), np.minimum(high[first], high[second])
        for axis, (corner, outwards) in itertools.product(range(3), ((low, -0.02), (high, 0.02))):
            others = [n for n in range(3) if n != axis]
            if abs(corner[first, axis] - corner[second, axis]) > 1e-4 or (far - near)[others].min() < 0.02:
                continue
            before = (near + far) / 2
            before[axis] = corner[first, axis] + outwards
            is_inside = left < before[0] < right and front < before[2] < back and before[1] < 0
            assert not is_inside or ((low < before) & (before < high)).all(1).any()
