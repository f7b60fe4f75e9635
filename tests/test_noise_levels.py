"""Noise levels of training: the monotone sampler is exact, the mixture is what it says."""

from __future__ import annotations

from collections import Counter
from itertools import combinations_with_replacement
from math import comb

import numpy as np
import pytest

from training.stages.noise import (
    NUM_LEVELS,
    ONE_LEVEL,
    ChunkMixture,
    chunk_levels,
    frame_sigmas,
    log_completions,
    logit_normal_level,
    monotone_levels,
    shifted,
)


@pytest.mark.parametrize("num_later", [0, 1, 3, 39])
def test_completions_are_counted_as_combinatorics_counts_them(num_later):
    counts = log_completions(num_later)
    for level in (0, 1, 500, NUM_LEVELS - 1):
        # Multisets of `num_later` levels out of those from `level` on.
        exact = comb(NUM_LEVELS - level + num_later - 1, num_later)
        assert counts[level] == pytest.approx(float(np.log(float(exact))), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("anchor", "level"), [(0, 1), (2, 3), (3, 2), (1, 0)])
def test_every_monotone_sequence_through_the_anchor_is_equally_likely(anchor, level):
    num_chunks, num_levels, draws = 4, 5, 6000
    rng = np.random.default_rng(0)
    drawn = Counter(
        tuple(monotone_levels(num_chunks, anchor, level, rng, num_levels).tolist()) for _ in range(draws)
    )
    every = combinations_with_replacement(range(num_levels), num_chunks)
    possible = {sequence for sequence in every if sequence[anchor] == level}
    assert set(drawn) == possible
    expected = draws / len(possible)
    chi_square = sum((drawn[sequence] - expected) ** 2 / expected for sequence in possible)
    # Mean k - 1 and deviation sqrt(2 (k - 1)) where all are equally likely; five deviations never come by chance.
    freedom = len(possible) - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_a_sampler_that_draws_level_after_level_uniformly_would_fail_the_same_test():
    """The law can tell the difference: uniform steps favour sequences that jump to the top at once."""
    num_levels, draws = 5, 6000
    rng = np.random.default_rng(0)
    drawn: Counter[tuple[int, ...]] = Counter()
    for _ in range(draws):
        levels = [1]
        for _ in range(3):
            levels.append(int(rng.integers(levels[-1], num_levels)))
        drawn[tuple(levels)] += 1
    every = combinations_with_replacement(range(num_levels), 4)
    possible = [sequence for sequence in every if sequence[0] == 1]
    expected = draws / len(possible)
    chi_square = sum((drawn[sequence] - expected) ** 2 / expected for sequence in possible)
    assert chi_square > 10 * len(possible)


def test_levels_are_logit_normal():
    rng = np.random.default_rng(0)
    levels = np.array([logit_normal_level(rng) for _ in range(4000)])
    assert 0 <= levels.min() <= levels.max() < NUM_LEVELS
    assert np.median(levels) == pytest.approx(500, abs=15)
    # The sigmoid of one standard deviation.
    assert np.quantile(levels, 0.8413) == pytest.approx(731, abs=15)


def test_shift_keeps_clean_clean_and_pushes_the_rest_towards_noise():
    index = np.arange(NUM_LEVELS)
    assert shifted(index, 9.95)[0] == 0.0
    assert (np.diff(shifted(index, 9.95)) > 0).all()
    assert shifted(np.array([500]), 9.95)[0] == pytest.approx(9.95 / 10.95, rel=1e-6)
    np.testing.assert_allclose(shifted(index, 1.0), index / 1000, rtol=1e-6)


def test_each_rule_of_the_mixture_draws_what_it_promises():
    rng = np.random.default_rng(0)
    same = [chunk_levels(6, ChunkMixture(1, 0, 0, 0), rng) for _ in range(50)]
    assert all(len(set(levels)) == 1 for levels in same)
    for mixture in (ChunkMixture(0, 1, 0, 0), ChunkMixture(0, 0, 1, 0)):
        drawn = [chunk_levels(6, mixture, rng) for _ in range(50)]
        assert all((np.diff(levels) >= 0).all() for levels in drawn)
        assert any(len(set(levels.tolist())) == 6 for levels in drawn)
    clean = [int((chunk_levels(6, ChunkMixture(0, 0, 0, 1), rng) == 0).sum()) for _ in range(200)]
    assert set(clean) == {1, 2, 3, 4, 5}


def test_rules_come_as_often_as_their_shares():
    rng = np.random.default_rng(0)
    mixture = ChunkMixture(0.5, 0.0, 0.25, 0.25)
    drawn = [chunk_levels(5, mixture, rng) for _ in range(2000)]
    assert np.mean([len(set(levels)) == 1 for levels in drawn]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([levels[0] == 0 for levels in drawn]) == pytest.approx(0.25, abs=0.06)
    with pytest.raises(ValueError, match="sum to 1"):
        ChunkMixture(0.5, 0.6, 0.0, 0.0)


def test_frames_of_a_chunk_share_its_level():
    sigma = frame_sigmas([(0, 4), (4, 7), (7, 10)], 8, ChunkMixture(), 3.0, np.random.default_rng(0))
    assert sigma.shape == (8, 10)
    assert (sigma[:, :4] == sigma[:, :1]).all()
    assert (sigma[:, 4:7] == sigma[:, 4:5]).all()
    one = frame_sigmas([(0, 4), (4, 7)], 8, ONE_LEVEL, 3.0, np.random.default_rng(0))
    assert (one == one[:, :1]).all()
