"""Frames come at the world's rate, late ones are waited for, chunks are asked for as late as can be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.playback.pacing import DurationEstimate, FramePacer, PacingConfig

CONFIG = PacingConfig(fps=16.0, chunk_frames=4)
TICK_S = 1.0 / 60.0


@dataclass
class Trace:
    """What a simulated display showed."""

    times_s: list[float] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    buffers: list[float] = field(default_factory=list)
    requests_s: list[float] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)
    waited_s: float = 0.0
    """How long the engine had nothing to do, in all."""

    def first_shown_s(self, index: int) -> float:
        return self.times_s[int(np.searchsorted(self.indices, index))]

    def latencies_s(self) -> list[float]:
        """For each chunk the time from its request to the first of its frames on the display."""
        return [
            self.first_shown_s(1 + CONFIG.chunk_frames * k) - asked_s
            for k, asked_s in enumerate(self.requests_s)
            if 1 + CONFIG.chunk_frames * k <= self.indices[-1]
        ]


def simulate(
    durations_s: Iterator[float],
    seconds: float,
    pacer: FramePacer | None = None,
    busy_fraction: float = 1.0,
    gap_s: Callable[[float], float] = lambda now_s: TICK_S,
    on_tick: Callable[[FramePacer, float], None] = lambda pacer, now_s: None,
    answers: Callable[[int], bool] = lambda chunk: False,
) -> tuple[FramePacer, Trace]:
    """Run a pacer against an engine that takes these times; `gap_s` gives the time to the next picture."""
    pacer = pacer or FramePacer(CONFIG)
    trace = Trace()
    pacer.reset(0.0)
    pacer.add_first_frame()
    under_way: list[tuple[float, float, float]] = []
    now_s, engine_free_s, landed = 0.0, 0.0, 0
    while now_s < seconds:
        while under_way and under_way[0][2] <= now_s:
            pacer.add_chunk(CONFIG.chunk_frames, *under_way.pop(0), answers(landed))
            landed += 1
        on_tick(pacer, now_s)
        index = pacer.tick(now_s)
        if pacer.should_request(now_s):
            duration_s = next(durations_s)
            start_s = max(now_s, engine_free_s)
            trace.waited_s += start_s - engine_free_s
            engine_free_s = start_s + duration_s * busy_fraction
            under_way.append((start_s, engine_free_s, start_s + duration_s))
            pacer.note_request(now_s)
            trace.requests_s.append(now_s)
        assert index is not None
        trace.times_s.append(now_s)
        trace.indices.append(index)
        trace.rates.append(pacer.rate)
        trace.buffers.append(pacer.buffered_frames)
        trace.in_flight.append(pacer.in_flight)
        now_s += gap_s(now_s)
    return pacer, trace


def test_a_fast_engine_plays_at_the_worlds_rate_without_holds_or_skips() -> None:
    pacer, trace = simulate(repeat(0.06), 20.0)
    assert pacer.counts.skipped == 0
    assert pacer.counts.holds == 0
    assert trace.indices[-1] == pytest.approx(20.0 * CONFIG.fps, abs=4)


def test_a_fast_engine_is_asked_late_so_that_the_input_is_fresh() -> None:
    _, trace = simulate(repeat(0.06), 20.0)
    assert max(trace.latencies_s()[4:]) < 0.06 + CONFIG.margin_s + 2 * TICK_S


@pytest.mark.parametrize("duration_s", [0.01, 0.06, 0.2, 0.3, 1.0])
def test_the_buffer_never_holds_more_than_a_chunk_beside_the_one_that_plays(duration_s: float) -> None:
    _, trace = simulate(repeat(duration_s), 10.0)
    assert max(trace.buffers) <= CONFIG.chunk_frames + CONFIG.fps * 2 * CONFIG.margin_s + 1.0
    assert max(trace.in_flight) <= 2


def test_an_engine_a_little_too_slow_slows_the_playback_instead_of_stuttering() -> None:
    pacer, trace = simulate(repeat(0.262), 30.0)
    settled = trace.rates[len(trace.rates) // 2 :]
    assert 0.92 <= min(settled) <= max(settled) <= 1.0
    shown_s = np.diff([trace.first_shown_s(index) for index in range(100, trace.indices[-1])])
    assert shown_s.max() < 1 / CONFIG.fps + 2.5 * TICK_S
    assert pacer.counts.skipped == 0


def test_a_slow_engine_holds_the_last_frame_and_shows_every_frame() -> None:
    pacer, _ = simulate(repeat(0.5), 20.0)
    counts = pacer.counts
    assert counts.skipped == 0
    assert counts.holds == pytest.approx(20.0 / 0.5, abs=3)
    assert counts.hold_s == pytest.approx(20.0 - counts.shown / CONFIG.fps, rel=0.15)


def test_a_slow_engine_is_kept_busy_while_it_decodes() -> None:
    one_by_one, _ = simulate(repeat(0.5), 20.0)
    overlapped, _ = simulate(repeat(0.5), 20.0, busy_fraction=0.6)
    assert overlapped.counts.shown > 1.4 * one_by_one.counts.shown


def test_an_engine_that_is_behind_never_waits_to_be_asked() -> None:
    random = np.random.Generator(np.random.Philox(key=[3, 4]))
    durations_s = (float(value) for value in random.normal(0.6, 0.08, 1000))
    pacer, trace = simulate(durations_s, 30.0, busy_fraction=0.55, gap_s=lambda now_s: 2 * TICK_S)
    assert trace.waited_s < 0.04 * 30.0
    assert pacer.counts.shown > 0.95 * 30.0 * CONFIG.chunk_frames / (0.6 * 0.55)
    assert max(trace.in_flight) <= 2


def test_a_jittery_engine_is_absorbed_by_the_margin() -> None:
    random = np.random.Generator(np.random.Philox(key=[1, 2]))
    durations_s = (float(value) for value in random.normal(0.1, 0.015, 1000))
    pacer, _ = simulate(durations_s, 30.0)
    assert pacer.counts.holds <= 4
    assert pacer.counts.hold_s < 0.1


def test_a_stall_of_the_engine_is_waited_for_and_never_fast_forwarded() -> None:
    durations_s = chain(repeat(0.06, 20), [3.0], repeat(0.06))
    pacer, trace = simulate(durations_s, 15.0)
    steps = np.diff(trace.indices)
    assert steps.max() == 1
    shown_s = np.array([trace.first_shown_s(index) for index in range(trace.indices[-1])])
    assert np.diff(shown_s).min() > 1 / (CONFIG.fps * CONFIG.max_rate) - 1.5 * TICK_S
    assert pacer.counts.hold_s == pytest.approx(2.9, abs=0.2)


def test_a_stall_of_the_engine_does_not_poison_the_prediction() -> None:
    pacer, trace = simulate(chain(repeat(0.06, 20), [3.0], repeat(0.06)), 15.0)
    assert pacer.predicted_s == pytest.approx(0.06, abs=0.02)
    assert max(trace.latencies_s()[25:]) < 0.15


def test_the_answer_to_an_input_is_shown_when_it_lands_and_what_it_overlaps_is_counted() -> None:
    # The engine gets faster than is expected of it, so that chunks land with older frames still to be played.
    waiting, _ = simulate(chain(repeat(0.2, 40), repeat(0.02)), 25.0)
    durations_s = chain(repeat(0.2, 40), repeat(0.02))
    pacer, trace = simulate(durations_s, 25.0, answers=lambda chunk: chunk in (44, 60, 76))
    assert waiting.counts.overlaps == waiting.counts.cut == 0
    counts = pacer.counts
    assert counts.overlaps == 3
    assert 0.0 < counts.overlap_s <= 3 * CONFIG.longest_cut_s
    assert 1 <= counts.cut <= 3 * CONFIG.chunk_frames
    assert counts.shown + counts.cut == trace.indices[-1] + 1
    for chunk in (44, 60, 76):
        landed_s = trace.requests_s[chunk] + 0.02
        assert trace.first_shown_s(1 + CONFIG.chunk_frames * chunk) - landed_s < 1.01 * TICK_S


def test_a_slow_engine_has_nothing_to_cut() -> None:
    pacer, _ = simulate(repeat(0.5), 20.0, answers=lambda chunk: True)
    assert (pacer.counts.overlaps, pacer.counts.cut) == (0, 0)


def test_a_long_rest_is_played_faster_before_it_is_cut() -> None:
    config = PacingConfig(fps=16.0, chunk_frames=24)
    pacer = FramePacer(config)
    pacer.reset(0.0)
    pacer.add_first_frame()
    pacer.add_chunk(24, 0.0, 0.1, 0.1)
    pacer.tick(0.1)
    pacer.add_chunk(24, 0.1, 0.2, 0.2, answers=True)
    shown = [pacer.tick(0.1 + i * TICK_S) or 0 for i in range(120)]
    steps = np.diff(shown)
    assert pacer.counts.overlaps == 1
    assert pacer.counts.overlap_s <= config.longest_cut_s
    assert steps.max() <= 1 + config.longest_cut_s * config.fps
    left_at = int(np.argmax(steps))
    assert shown[left_at + 1] == 25
    assert left_at * TICK_S < (25 - 4) / (16.0 * 1.05)


def test_a_pause_cuts_nothing_until_it_is_over() -> None:
    pacer = FramePacer(CONFIG)
    pacer.reset(0.0)
    pacer.add_first_frame()
    pacer.add_chunk(4, 0.0, 0.1, 0.1)
    before = pacer.tick(0.1)
    pacer.pause(0.1)
    pacer.add_chunk(4, 0.1, 0.2, 0.2, answers=True)
    assert pacer.tick(5.0) == before
    pacer.resume(6.0)
    assert pacer.tick(6.0) == 5


def test_a_pause_of_the_engine_does_not_poison_the_prediction() -> None:
    """A walk is paused with a chunk under way again and again; its wait is nobody's work."""

    def pause_often(pacer: FramePacer, now_s: float) -> None:
        if pacer.in_flight and not pacer.paused and int(now_s) % 2:
            pacer.pause(now_s)
        elif pacer.paused and not int(now_s) % 2:
            pacer.resume(now_s)

    pacer, trace = simulate(repeat(0.06), 30.0, on_tick=pause_often)
    assert pacer.predicted_s == pytest.approx(0.06, abs=1e-9)
    assert pacer.counts.hold_s < 0.1
    assert np.diff(trace.indices).max() == 1


def test_a_stall_of_the_window_is_not_made_up_for() -> None:
    pacer, trace = simulate(
        repeat(0.06), 10.0, gap_s=lambda now_s: 2.0 if 5.0 < now_s < 5.0 + TICK_S else TICK_S
    )
    assert np.diff(trace.indices).max() <= 2
    assert pacer.counts.skipped <= 2


def test_a_slow_display_skips_frames_rather_than_time() -> None:
    pacer, trace = simulate(repeat(0.05), 20.0, gap_s=lambda now_s: 0.1)
    assert trace.indices[-1] == pytest.approx(20.0 * CONFIG.fps, rel=0.1)
    assert pacer.counts.skipped > 50


def test_a_pause_stops_the_clock_and_teaches_nothing() -> None:
    def pause_from_3_to_8(pacer: FramePacer, now_s: float) -> None:
        if 3.0 <= now_s < 8.0 and not pacer.paused:
            pacer.pause(now_s)
        if now_s >= 8.0 and pacer.paused:
            pacer.resume(now_s)

    pacer, trace = simulate(repeat(0.06), 12.0, on_tick=pause_from_3_to_8)
    during = [i for t, i in zip(trace.times_s, trace.indices, strict=True) if 3.0 <= t < 8.0]
    assert len(set(during)) == 1
    assert not [t for t in trace.requests_s if 3.0 <= t < 8.0]
    assert pacer.counts.holds == 0
    assert pacer.counts.skipped == 0
    assert pacer.predicted_s == pytest.approx(0.06, abs=0.02)


def test_reset_forgets_the_rollout_and_keeps_the_prediction() -> None:
    pacer, _ = simulate(repeat(0.06), 5.0)
    predicted_s = pacer.predicted_s
    pacer.reset(5.0)
    assert pacer.tick(5.1) is None
    assert pacer.in_flight == 0
    assert pacer.counts.shown == 0
    assert pacer.predicted_s == predicted_s


def test_the_first_chunk_is_asked_for_at_once() -> None:
    _, trace = simulate(repeat(0.06), 1.0)
    assert trace.requests_s[0] == 0.0


def test_a_clock_that_steps_back_moves_nothing() -> None:
    pacer, trace = simulate(repeat(0.06), 5.0)
    assert pacer.tick(1.0) == trace.indices[-1]


@given(st.lists(st.floats(0.0, 1.5), min_size=5, max_size=60), st.floats(0.004, 0.12))
@settings(max_examples=20, deadline=None)
def test_frames_are_shown_in_order_and_never_before_they_exist(
    durations_s: list[float], tick_s: float
) -> None:
    pacer, trace = simulate(chain(durations_s, repeat(0.1)), 6.0, gap_s=lambda now_s: tick_s)
    steps = np.diff(trace.indices)
    assert (steps >= 0).all()
    assert trace.indices[-1] < pacer.num_frames
    assert pacer.counts.shown + pacer.counts.skipped == trace.indices[-1] + 1


def test_an_estimate_ignores_what_is_no_duration() -> None:
    estimate = DurationEstimate(0.2, history=4)
    for value in (float("nan"), float("inf"), -1.0):
        estimate.add(value)
    assert estimate.predicted_s == 0.2
