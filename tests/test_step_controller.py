"""The controller sheds steps while chunks come late, gives them back once there is time, and does not swing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from client.playback.step_controller import StepController, StepControllerConfig

CONFIG = StepControllerConfig(most_steps=4, deadline_s=0.25)
COMMIT_S = 0.02


def govern(
    step_s: Callable[[int], float], num_chunks: int, controller: StepController | None = None
) -> list[int]:
    """Make chunks whose steps take `step_s(index)` each; return the steps of every chunk."""
    controller = controller or StepController(CONFIG)
    steps: list[int] = []
    for index in range(num_chunks):
        num_steps = controller.num_steps
        steps.append(num_steps)
        controller.note_chunk(num_steps, num_steps * step_s(index), COMMIT_S)
    return steps


def test_an_engine_with_time_makes_every_step() -> None:
    assert set(govern(lambda index: 0.05, 200)) == {4}


def test_late_chunks_are_made_with_the_most_steps_that_fit() -> None:
    assert govern(lambda index: 0.1, 6) == [4, 4, 4, 2, 2, 2]
    assert govern(lambda index: 0.4, 6) == [4, 4, 4, 1, 1, 1]
    assert govern(lambda index: 0.065, 6) == [4, 4, 4, 3, 3, 3]


def test_a_stall_or_two_change_nothing() -> None:
    assert set(govern(lambda index: 2.0 if index in (10, 12, 40) else 0.05, 100)) == {4}


def test_steps_come_back_one_by_one_and_later_than_they_went() -> None:
    steps = govern(lambda index: 0.1 if index < 20 else 0.04, 60)
    lowered, raised, whole = steps.index(2), 20 + steps[20:].index(3), 20 + steps[20:].index(4)
    assert lowered == 3
    assert raised - 20 >= CONFIG.patience
    assert whole - raised >= CONFIG.patience
    assert set(steps[whole:]) == {4}


def test_an_engine_at_the_edge_is_tried_more_and_more_seldom() -> None:
    """The estimate says that a step more fits, and it never does."""
    controller = StepController(CONFIG)
    tried: list[int] = []
    for index in range(1500):
        num_steps = controller.num_steps
        denoise_s = 0.05 * num_steps if num_steps <= 2 else 0.5
        if controller.note_chunk(num_steps, denoise_s, COMMIT_S) and controller.num_steps == 3:
            tried.append(index)
    gaps = np.diff(tried)
    assert gaps[-1] > 5 * gaps[0]
    assert len(tried) < 20
    assert controller.num_steps <= 3


def test_a_chunk_asked_for_before_the_change_teaches_nothing() -> None:
    controller = StepController(CONFIG)
    for _ in range(3):
        controller.note_chunk(4, 0.4, COMMIT_S)
    assert controller.num_steps == 2
    for _ in range(10):
        assert not controller.note_chunk(4, 0.4, COMMIT_S)
    assert (controller.num_steps, controller.lowered) == (2, True)


def test_a_schedule_of_one_step_is_left_alone() -> None:
    controller = StepController(StepControllerConfig(most_steps=1, deadline_s=0.25))
    assert set(govern(lambda index: 3.0, 50, controller)) == {1}
    assert not controller.lowered


@given(st.lists(st.floats(0.0, 1.0), max_size=300), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_the_steps_stay_within_the_schedule_whatever_the_times(times_s: list[float], most_steps: int) -> None:
    controller = StepController(StepControllerConfig(most_steps, 0.25))
    steps = govern(lambda index: times_s[index], len(times_s), controller)
    assert all(1 <= count <= most_steps for count in steps)
    # Neighbours differ by many steps only on the way down.
    assert all(after - before <= 1 for before, after in pairwise(steps))


def test_what_is_chosen_meets_the_deadline_wherever_any_choice_does() -> None:
    for step_s in np.linspace(0.01, 0.4, 40):
        steps = govern(lambda index, step_s=float(step_s): step_s, 400)
        met = [count * step_s + COMMIT_S <= CONFIG.deadline_s for count in steps[100:]]
        if step_s + COMMIT_S <= CONFIG.deadline_s:
            assert np.mean(met) > 0.97
        else:
            assert set(steps[100:]) == {1}


REFINING = StepControllerConfig(most_steps=2, deadline_s=0.25, refines=True)


def run_refining(
    controller: StepController, count: int, step_s: float, refine_s: float
) -> list[tuple[int, bool]]:
    """Make chunks as the controller asks for them; returns what each was made with."""
    made = []
    for _ in range(count):
        steps, refines = controller.num_steps, controller.refines
        made.append((steps, refines))
        controller.note_chunk(steps, steps * step_s, COMMIT_S, refine_s if refines else None)
    return made


def test_the_refiner_is_dropped_before_any_step_and_brought_back_after_the_last() -> None:
    controller = StepController(REFINING)
    assert run_refining(controller, 4, 0.05, 0.2) == [(2, True)] * 4
    late = run_refining(controller, 12, 0.15, 0.6)
    assert late[2:] == [(2, True)] + [(2, False)] * 3 + [(1, False)] * 6
    assert not controller.refines
    quick = run_refining(controller, 40, 0.05, 0.2)
    order = [entry for i, entry in enumerate(quick) if i == 0 or entry != quick[i - 1]]
    assert order == [(1, False), (2, False), (2, True)]
    assert controller.refines


def test_a_refiner_that_cannot_keep_up_costs_no_steps() -> None:
    controller = StepController(REFINING)
    made = run_refining(controller, 60, 0.05, 0.3)
    assert made[3:] == [(2, False)] * 57
    # As much faster as the steps are, it would fit: it is tried again.
    assert run_refining(controller, 14, 0.03, 0.18)[-1] == (2, True)


def test_the_players_wish_goes_before_the_controller() -> None:
    controller = StepController(REFINING)
    controller.allow_refiner(False)
    assert (controller.num_steps, controller.refines) == (2, False)
    run_refining(controller, 40, 0.05, 0.2)
    assert not controller.refines
    controller.allow_refiner(True)
    assert controller.refines
    plain = StepController(StepControllerConfig(most_steps=2, deadline_s=0.25))
    plain.allow_refiner(True)
    assert not plain.refines
