"""Still lifes and close-ups of them: things that stand on tables, seen from where a camera can be."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from holodeck.collision import is_free
from holodeck.compiled import render_rgbd
from holodeck.generator.dice import Dice
from holodeck.generator.palette import draw_palette
from holodeck.generator.plan import Plan, outline, overlap
from holodeck.generator.skies import MOODS
from holodeck.generator.still_life import StillLife, generate_still_life
from holodeck.generator.tableware import TABLEWARE
from training.pocket.clips import ClipSettings
from training.pocket.views import CloseUpJob, RgbdViews, close_pose, out_of_focus

SETTINGS = ClipSettings(num_chunks=3, width=64, height=40, intrinsics=(41.6, 41.6, 32.0, 20.0), stride=2)


@pytest.fixture(scope="module")
def still_lifes() -> list[StillLife]:
    return [generate_still_life(seed) for seed in range(24)]


def test_a_seed_gives_the_same_still_life_again(still_lifes):
    for seed in (0, 11):
        again = generate_still_life(seed)
        assert again.place.shapes == still_lifes[seed].place.shapes
        assert again.things == still_lifes[seed].things
    assert len({still.things for still in still_lifes}) == len(still_lifes)


@pytest.mark.parametrize("build", dict.fromkeys(TABLEWARE), ids=lambda build: build.__name__)
def test_things_stand_where_they_are_put_and_are_about_as_large_as_was_asked(build):
    for seed in range(12):
        dice = Dice(seed)
        shapes = build(Plan(dice, draw_palette(dice), MOODS["noon"], 4.0, 4.0), 1.0, -2.0, 0.3, 0.7)
        low_x, low_z, high_x, high_z = outline(shapes)
        assert low_x < 1.0 < high_x
        assert low_z < -2.0 < high_z
        assert max(high_x - low_x, high_z - low_z) < 3 * 0.3
        assert min(-shape.high[1] for shape in shapes) == pytest.approx(0.7, abs=1e-9)
        assert all(-shape.high[1] > 0.7 - 1e-9 for shape in shapes), "nothing hangs below the table"


def test_no_two_things_stand_in_each_other(still_lifes):
    for still in still_lifes:
        assert len(still.things) >= 3
        assert not any(overlap(outline(a), outline(b), 0.01) for a, b in combinations(still.things, 2))
        low_x, low_z, high_x, high_z = still.place.bounds
        for x, y, z in still.targets:
            assert low_x < x < high_x
            assert low_z < z < high_z
            assert y < 0


def test_close_ups_are_taken_from_free_points_and_show_near_things(still_lifes):
    rng = np.random.default_rng(0)
    lens = np.array([41.6, 41.6, 32.0, 20.0], np.float32)
    nearest, downward = [], []
    for still in still_lifes:
        c2w = close_pose(still, rng)
        assert c2w is not None
        np.testing.assert_allclose(c2w[:3, :3] @ c2w[:3, :3].T, np.eye(3), atol=1e-9)
        assert is_free(still.place.arrays, c2w[:3, 3], 0.14)
        _, depth = render_rgbd(still.place, c2w, lens, 64, 40, centred_depth=True)
        nearest.append(depth.min())
        downward.append(c2w[1, 2])
    assert np.median(nearest) < 2.0
    assert min(nearest) > 0.05
    assert 0.2 < np.median(downward) < 0.9, "most look down at the table"


def test_what_is_in_focus_stays_and_the_rest_is_blurred():
    picture = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    inverse = np.full((48, 80), 1.0, np.float32)
    inverse[:, 40:] = 0.1
    blurred = out_of_focus(picture, inverse, 1.0, 4.0)
    np.testing.assert_array_equal(blurred[:, :28], picture[:, :28])
    assert blurred[:, 52:].std() < 0.25 * picture[:, 52:].std()
    assert abs(blurred[:, 52:].mean() - picture[:, 52:].mean()) < 4
    np.testing.assert_array_equal(out_of_focus(picture, inverse, 1.0, 0.0), picture)


def test_close_ups_are_drawn_once_and_are_the_same_again(tmp_path: Path):
    job = CloseUpJob(3, 2, 3, SETTINGS)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        job.make(tmp_path / name)
    assert job.is_made(tmp_path / "first")
    assert not CloseUpJob(4, 2, 3, SETTINGS).is_made(tmp_path / "first")
    first, second = (RgbdViews.open(tmp_path / name, job.stem) for name in ("first", "second"))
    assert first.color.shape == (6, 40, 64, 3)
    np.testing.assert_array_equal(first.color, second.color)
    np.testing.assert_array_equal(first.inverse_depth, second.inverse_depth)
    assert np.isfinite(first.inverse_depth.astype(np.float32)).all()
    assert (first.inverse_depth >= 0).all()
