"""Every input is followed to the pictures that answer it, and the two kinds of answer are never mixed."""

from __future__ import annotations

import pytest

from client.playback.meters import MAX_WAITING, LatencyMeter
from engine.types import ChunkTimes


def times(latched_s: float) -> ChunkTimes:
    return ChunkTimes(
        latched_s, latched_s + 0.01, latched_s + 0.1, latched_s + 0.12, latched_s + 0.12, latched_s + 0.2
    )


def test_an_input_is_followed_through_the_first_chunk_that_knows_it() -> None:
    meter = LatencyMeter()
    meter.note_input(1.0, 1.001, looks=False)
    meter.note_chunk(7, 24, times(0.9))
    assert meter.note_shown(27, 1.1, turned=False) == []
    meter.note_chunk(8, 28, times(1.001))
    meter.note_chunk(9, 32, times(1.3))
    assert meter.note_shown(27, 1.2, turned=False) == []
    (answered,) = meter.note_shown(28, 1.25, turned=False)
    assert (answered.chunk_index, answered.first_frame) == (8, 28)
    assert (answered.latched_s, answered.model_start_s, answered.ready_s) == pytest.approx(
        (1.001, 1.011, 1.201)
    )
    assert (answered.shown_s, answered.warped_s) == (1.25, None)
    assert answered.model_ms == pytest.approx(250.0)
    assert meter.note_shown(28, 1.3, turned=False) == []


def test_a_turned_picture_answers_looking_only_and_counts_apart() -> None:
    meter = LatencyMeter()
    meter.note_input(1.0, 1.0, looks=True)
    meter.note_input(1.0, 1.0, looks=False)
    assert meter.note_shown(3, 1.016, turned=True) == []
    meter.note_shown(3, 1.032, turned=True)
    assert meter.warped.count == 1
    assert meter.warped.p99 == pytest.approx(16.0)
    assert meter.model.count == 0
    meter.note_chunk(2, 4, times(1.1))
    looked, walked = meter.note_shown(5, 1.4, turned=True)
    assert (looked.warped_ms, walked.warped_ms) == (pytest.approx(16.0), None)
    assert meter.model.count == 2
    assert meter.model.p50 == pytest.approx(400.0)
    assert meter.warped.p50 == pytest.approx(16.0)


def test_without_late_reprojection_there_is_no_turned_answer() -> None:
    meter = LatencyMeter()
    meter.note_input(1.0, 1.0, looks=True)
    meter.note_chunk(1, 1, times(1.0))
    (answered,) = meter.note_shown(1, 1.3, turned=False)
    assert answered.warped_s is None
    assert meter.warped.count == 0


def test_inputs_of_one_chunk_are_answered_by_one_picture() -> None:
    meter = LatencyMeter()
    for i in range(5):
        meter.note_input(1.0 + 0.016 * i, 1.0 + 0.016 * i, looks=True)
    meter.note_chunk(1, 1, times(1.04))
    answered = meter.note_shown(4, 1.5, turned=False)
    assert [round(value.model_ms or 0.0) for value in answered] == [500, 484, 468]
    assert meter.num_answers == 1
    meter.note_chunk(2, 5, times(1.3))
    assert len(meter.note_shown(5, 1.6, turned=False)) == 2
    assert meter.num_answers == 2


def test_a_new_beginning_loses_what_waits_and_a_frozen_engine_holds_no_more_than_it_may() -> None:
    meter = LatencyMeter()
    for i in range(MAX_WAITING + 10):
        meter.note_input(float(i), float(i), looks=True)
        meter.note_shown(0, float(i) + 0.01, turned=True)
    meter.reset()
    meter.note_chunk(1, 1, times(1e6))
    assert meter.note_shown(4, 1e6, turned=True) == []
    assert meter.warped.p99 == pytest.approx(10.0)


def test_percentiles_are_those_of_the_answers() -> None:
    meter = LatencyMeter()
    for i in range(100):
        meter.note_input(float(i), float(i), looks=False)
        meter.note_chunk(i, 4 * i, times(float(i)))
        meter.note_shown(4 * i, i + 0.001 * (i + 1), turned=False)
    model = meter.model
    assert (model.count, model.p50, model.p90) == (100, pytest.approx(50.5), pytest.approx(90.1))
    assert model.p99 == pytest.approx(99.01)
