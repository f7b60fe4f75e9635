"""Generated places: the same from a seed everywhere, walkable, of many kinds, and drawn like any other place."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

import holodeck
from engine.errors import BackendUnavailable
from engine.session.generated_world import find_any_world
from engine.session.opening import open_session
from engine.types import CameraTrack
from holodeck.collision import is_free
from holodeck.generator import expand_range, generate_place, generated_name, generated_seed
from holodeck.generator.dice import Dice
from holodeck.generator.palette import draw_palette
from holodeck.generator.plan import Plan
from holodeck.generator.skies import MOODS
from holodeck.place import Place
from holodeck.shapes import Paint, box
from holodeck.walks import walk
from training.data.sets import plan_holodeck_set

SEEDS = range(50)
INTRINSICS = np.array([26.0, 26.0, 20.0, 12.0], np.float32)


@pytest.fixture(scope="module")
def places() -> list[Place]:
    return [generate_place(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def views(places: list[Place]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Colour and depth at the start of each place, from copies, so that no ground stays in memory."""
    copies = (replace(place) for place in places)
    return [
        (copy.render(copy.spawn, INTRINSICS, 40, 24), copy.depth(copy.spawn, INTRINSICS, 40, 24))
        for copy in copies
    ]


def test_dice_give_the_numbers_that_they_always_gave():
    dice = Dice(7)
    # Written down once: every generated place changes when one of these does.
    assert [dice.between(0, 1) for _ in range(3)] == [0.324, 0.151, 0.651]
    assert [dice.count(1, 6) for _ in range(5)] == [1, 4, 3, 1, 4]


def test_a_seed_gives_the_same_place_again():
    for seed in (0, 3, 11):
        first, second = generate_place(seed), generate_place(seed)
        assert first.shapes == second.shapes
        assert (first.spawn_xz, first.spawn_yaw_deg, first.bounds) == (
            second.spawn_xz,
            second.spawn_yaw_deg,
            second.bounds,
        )
        assert (first.sky, first.caption, first.title) == (second.sky, second.caption, second.title)
        np.testing.assert_array_equal(first.surface.ground[0], second.surface.ground[0])


def test_the_first_places_are_the_ones_they_were():
    """Sets and figures name places by seed: a change of the generator that moves them must be meant."""
    digest = hashlib.sha256()
    for seed in range(12):
        place = generate_place(seed)
        for shape in place.shapes:
            numbers = np.array([*shape.low, *shape.high, *shape.paint.color, *shape.paint.second])
            # To a centimetre and a percent, so that no last digit of a machine's sine decides.
            digest.update(
                f"{shape.kind:d} {shape.paint.pattern:d} {(np.round(numbers, 2) + 0.0).tolist()}".encode()
            )
    assert digest.hexdigest()[:16] == "aace50c0977b11fa"


def test_every_start_is_free_inside_the_bounds_and_below_any_ceiling(places):
    for place in places:
        position = place.spawn[:3, 3]
        assert is_free(place.arrays, position, 0.6), place.name
        low_x, low_z, high_x, high_z = place.bounds
        assert low_x + 0.6 < position[0] < high_x - 0.6, place.name
        assert low_z + 0.6 < position[2] < high_z - 0.6, place.name
        assert place.ceiling_m >= 2.0, place.name


def test_people_can_stroll_in_every_place(places):
    for place in places[::5]:
        poses = walk(place, 240, 16, seed=1)
        assert np.ptp(poses[:, [0, 2], 3], axis=0).max() > 2.0, place.name
        assert all(is_free(place.arrays, c2w[:3, 3], 0.3) for c2w in poses[::8]), place.name


def test_no_two_places_look_alike(places, views):
    frames = np.stack([frame for frame, _ in views]).astype(np.float32)
    for n in range(1, len(frames)):
        difference = np.abs(frames[:n] - frames[n]).mean((1, 2, 3))
        # The six hand-made places differ by more than 20; kin of one palette and sky come nearer.
        assert difference.min() > 9.0, (places[n].name, places[int(difference.argmin())].name)


def test_every_place_is_a_picture_and_has_depth(places, views):
    for place, (frame, depth) in zip(places, views, strict=True):
        assert frame.astype(float).std() > 12, place.name
        assert np.isfinite(depth).all(), place.name
        assert np.quantile(depth, 0.5) > 1.5, place.name


def test_a_plan_refuses_what_would_stand_in_something_else_or_leave_no_way_past_it():
    dice = Dice(1)
    plan = Plan(dice, draw_palette(dice), MOODS["noon"], 6.0, 6.0)
    assert plan.surround([box(0, 6.5, 12, 1, 3, Paint((1, 0, 0)))])
    assert not plan.surround([box(3, 6.9, 1, 1, 3, Paint((1, 0, 0)))])
    assert plan.stand([box(0, 0, 1, 1, 1, Paint((1, 0, 0)))])
    assert not plan.stand([box(2, 0, 1, 1, 1, Paint((1, 0, 0)))])
    assert plan.stand([box(2.6, 0, 1, 1, 1, Paint((1, 0, 0)))])
    assert len(plan.shapes) == 3


def test_captions_are_sentences_of_their_own(places):
    assert all(place.caption.endswith(".") and len(place.caption) < 300 for place in places)
    assert len({place.caption for place in places}) == len(places)


def test_the_first_seeds_hold_every_kind_of_place(places):
    captions = " ".join(place.caption for place in places)
    for word in (
        "houses",
        "columns",
        "rooms",
        "terraces",
        "at night",
        "hedges",
        "open horizon",
        "hall",
        "umbrella",
        "poles",
    ):
        assert word in captions, word


def test_names_lead_to_seeds_and_back():
    assert generated_seed(generated_name(42)) == 42
    for name in (
        "generated-",
        "generated-01",
        "generated--1",
        "generated-4294967296",
        "town",
        "generated-1x",
    ):
        assert generated_seed(name) is None
    assert holodeck.get_place("generated-5").name == "generated-5"
    assert holodeck.has_place("generated-5")
    assert holodeck.has_place("town")
    assert not holodeck.has_place("generated-x")


def test_a_range_of_seeds_is_a_list_of_names():
    assert expand_range("generated-8..10") == ["generated-8", "generated-9", "generated-10"]
    assert expand_range("town") == ["town"]
    with pytest.raises(ValueError, match="100000"):
        expand_range("generated-5..4")


def test_clips_are_planned_in_generated_places():
    jobs = plan_holodeck_set("town,generated-3..4", "walk", 3, 9, 0.0, 0)
    assert {job.place for job in jobs} == {"town", "generated-3", "generated-4"}
    with pytest.raises(ValueError, match=r"generated-100\.\.199"):
        plan_holodeck_set("generated-x", "walk", 1, 9, 0.0, 0)


def test_a_generated_place_is_walked_by_its_name():
    world = find_any_world("generated-3", [])
    assert (world.name, world.frame_size) == ("generated-3", (240, 144))
    session = open_session(world, backend="holodeck")
    session.reset(0)
    track = CameraTrack(np.tile(world.c2w, (4, 1, 1)), np.tile(world.intrinsics, (4, 1)))
    np.testing.assert_array_equal(session.step(track).frames[0], world.first_frame)
    assert find_any_world("generated-3", []).sha256 == world.sha256
    with pytest.raises(BackendUnavailable, match="--backend holodeck"):
        open_session(world)


def test_a_seed_out_of_range_is_refused():
    with pytest.raises(ValueError, match="4294967295"):
        generate_place(-1)
