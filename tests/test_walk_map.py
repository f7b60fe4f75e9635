"""The map of a walk is true to scale, follows branches, and stays small however long the walk is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.playback.walk_map import LEAST_STEP_M, MAX_POINTS, WalkMap

METRES = st.floats(-500.0, 500.0)


def pose(x: float, z: float, heading_rad: float = 0.0) -> np.ndarray:
    c2w = np.eye(4)
    sine, cosine = math.sin(heading_rad), math.cos(heading_rad)
    c2w[:3, :3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
    c2w[:3, 3] = x, -1.6, z
    return c2w


def walked(*places: tuple[float, float]) -> WalkMap:
    walk_map = WalkMap()
    for index, place in enumerate(places):
        walk_map.add(index, pose(*place))
    return walk_map


def test_ahead_is_up_and_right_is_right() -> None:
    walk_map = walked((0.0, 0.0), (1.0, 1.0))
    (start, end) = walk_map.view().place(walk_map.pieces[0])
    assert end[0] > start[0]
    assert end[1] < start[1]
    walk_map.add(2, pose(1.0, 1.0, math.radians(90)))
    assert walk_map.heading_rad == pytest.approx(math.radians(90))


@given(st.lists(st.tuples(METRES, METRES), min_size=1, max_size=30))
def test_the_whole_path_is_on_the_map_and_true_to_scale(places: list[tuple[float, float]]) -> None:
    walk_map = walked(*places)
    view = walk_map.view()
    points = np.concatenate(walk_map.pieces)
    on_map = view.place(points)
    assert (on_map >= 0).all()
    assert (on_map <= 1).all()
    lengths_m = np.linalg.norm(points - points[0], axis=1)
    assert np.linalg.norm(on_map - on_map[0], axis=1) * view.span_m == pytest.approx(lengths_m, abs=1e-6)
    assert view.bar_m <= view.span_m / 3


def test_going_back_takes_back_what_came_after() -> None:
    walk_map = walked(*((0.0, 0.5 * i) for i in range(10)))
    walk_map.add(4, pose(0.0, 2.0))
    assert walk_map.walked_m == pytest.approx(2.0)
    walk_map.add(0, pose(0.0, 0.0))
    assert walk_map.walked_m == 0.0


def test_a_walk_that_begins_elsewhere_begins_a_path_there() -> None:
    walk_map = walked(*((0.0, 0.5 * i) for i in range(4)))
    walk_map.add(0, pose(0.0, 1.5))
    walk_map.add(1, pose(0.0, 1.0))
    assert walk_map.walked_m == pytest.approx(0.5)


def test_a_jump_is_no_step() -> None:
    walk_map = walked((0.0, 0.0), (0.0, 1.0), (30.0, 1.0), (30.0, 2.0))
    assert [len(piece) for piece in walk_map.pieces] == [2, 2]
    assert walk_map.walked_m == pytest.approx(2.0)


def test_standing_still_adds_nothing() -> None:
    walk_map = walked(*[(0.0, LEAST_STEP_M / 2)] * 100)
    assert len(walk_map._points) == 1


def test_an_hour_of_walking_keeps_its_shape_in_bounded_memory() -> None:
    walk_map = WalkMap()
    for index in range(3 * MAX_POINTS):
        angle = index / 400
        walk_map.add(index, pose(20 * math.sin(angle), 20 * math.cos(angle)))
    assert len(walk_map._points) <= MAX_POINTS
    assert len(walk_map.pieces) == 1
    assert walk_map.walked_m == pytest.approx(20 * (3 * MAX_POINTS - 1) / 400, rel=0.01)
