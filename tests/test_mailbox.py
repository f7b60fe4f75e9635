"""What becomes of the player's intents between two chunks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.input.controls import IDLE, Intent, IntentMailbox

AHEAD, BACK = Intent(forward=1.0), Intent(forward=-1.0)


def latched(*chunks: Sequence[Intent]) -> list[Intent]:
    """Post what comes before each latch, and return what each chunk is planned by."""
    mailbox, taken = IntentMailbox(), []
    for posts in chunks:
        for intent in posts:
            mailbox.post(intent)
        taken.append(mailbox.take())
    return taken


def test_mouse_motion_adds_up_until_a_chunk_is_planned_by_it() -> None:
    posts = Intent(forward=1.0, look_dx_rad=0.1, look_dy_rad=-0.2), Intent(forward=1.0, look_dx_rad=0.3)
    first, second = latched(posts, [])
    assert (first.look_dx_rad, first.look_dy_rad) == pytest.approx((0.4, -0.2))
    assert second == AHEAD


def test_a_tap_between_two_latches_is_of_the_next_chunk_and_of_no_other() -> None:
    chunks = latched([IDLE], [AHEAD, AHEAD, IDLE, IDLE], [IDLE], [])
    assert [chunk.forward for chunk in chunks] == [0.0, 1.0, 0.0, 0.0]


def test_a_key_held_over_a_latch_ends_with_its_release() -> None:
    chunks = latched([AHEAD], [AHEAD, IDLE], [])
    assert [chunk.forward for chunk in chunks] == [1.0, 0.0, 0.0]


def test_a_key_let_go_and_tapped_again_counts_for_the_next_chunk() -> None:
    chunks = latched([AHEAD], [IDLE, AHEAD, IDLE], [])
    assert [chunk.forward for chunk in chunks] == [1.0, 1.0, 0.0]


def test_a_tap_of_the_opposite_key_counts_and_the_held_one_goes_on() -> None:
    chunks = latched([AHEAD], [AHEAD, BACK, AHEAD], [AHEAD], [])
    assert [chunk.forward for chunk in chunks] == [1.0, -1.0, 1.0, 1.0]


def test_of_two_taps_of_opposite_keys_the_later_counts() -> None:
    assert latched([AHEAD, IDLE, BACK, IDLE])[0].forward == -1.0


def test_a_tap_followed_by_the_opposite_key_held_leaves_the_held_one() -> None:
    assert latched([AHEAD, IDLE, BACK])[0].forward == -1.0


def test_a_flicked_stick_counts_by_how_far_it_went_and_one_under_way_by_where_it_is() -> None:
    pushed = [Intent(strafe=value) for value in (0.2, 0.9, 0.4)]
    flicked, held = latched([*pushed, IDLE]), latched(pushed)
    assert (flicked[0].strafe, held[0].strafe) == (0.9, 0.4)


def test_a_tap_of_one_key_keeps_nothing_of_another() -> None:
    chunk = latched([Intent(forward=1.0, run=True)], [Intent(strafe=1.0, level=True), IDLE])[1]
    assert chunk == Intent(strafe=1.0, level=True)


def test_touches_that_were_let_go_are_of_no_chunk_but_the_mouse_is() -> None:
    mailbox = IntentMailbox()
    mailbox.post(Intent(forward=1.0, look_dx_rad=0.2))
    mailbox.post(IDLE)
    mailbox.let_go()
    assert mailbox.take() == Intent(look_dx_rad=0.2)


def test_another_rollout_knows_what_is_held_and_nothing_that_passed() -> None:
    mailbox = IntentMailbox()
    mailbox.post(Intent(rise=1.0))
    mailbox.post(Intent(forward=1.0, look_dx_rad=0.2))
    mailbox.forget()
    assert mailbox.take() == AHEAD


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=6), min_size=1, max_size=6))
def test_every_press_is_of_exactly_the_chunk_after_it(presses: list[list[float]]) -> None:
    chunks = latched(*([Intent(forward=value) for value in posts] for posts in presses))
    held = 0.0
    for posts, chunk in zip(presses, chunks, strict=True):
        seen = [held, *posts]
        assert chunk.forward in seen
        if posts and posts[-1]:
            assert chunk.forward in (posts[-1], -posts[-1])
        if not any(now and now != before for before, now in itertools.pairwise(seen)):
            assert chunk.forward == seen[-1], "without a press what is held counts"
        elif held == 0.0:
            assert chunk.forward != 0.0, "a press is never lost"
        held = seen[-1]
