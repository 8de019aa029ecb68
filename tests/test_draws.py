"""Expected draws become visits that keep to them, and are dealt equally."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_balancing import mixtures
from torchgeo_channelmae.samplers.balancing import expected_draws
from torchgeo_channelmae.samplers.draws import (
    ONE,
    deal,
    number_visits,
    systematic_counts,
    to_integers,
)


@given(mixtures(), st.integers(1, 100), st.integers(1, 20), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_rounded_draws_add_up_exactly_and_stay_within_the_limits(
    shares, draws, cap, least
):
    draws = min(draws, cap * len(shares))
    expected = expected_draws(shares, draws, 1.0, cap, least)
    parts = to_integers(expected, draws, cap)
    assert parts.sum() == draws * ONE
    assert parts.min() >= 0
    assert parts.max() <= cap * ONE
    assert (parts[expected == 0] == 0).all()
    assert (parts // ONE >= np.floor(expected)).all()
    np.testing.assert_allclose(parts / ONE, expected, atol=1e-2)


@st.composite
def rows(draw):
    """Expected draws in 1 / 64, with a whole sum, and an order of the samples."""
    parts = draw(st.lists(st.integers(0, 200), min_size=1, max_size=20))
    parts.append(-sum(parts) % 64)
    order = draw(st.permutations(range(len(parts))))
    return np.array(parts) * (ONE // 64), np.array(order)


@given(rows(), st.integers(0, ONE - 1), st.integers(0, 20), st.integers(0, 20))
def test_any_run_of_samples_comes_as_often_as_expected_rounded(row, start, a, b):
    parts, order = row
    counts = systematic_counts(parts, order, start)
    run = order[min(a, b) : max(a, b)]
    assert abs(counts[run].sum() - parts[run].sum() / ONE) < 1
    assert (np.abs(counts - parts / ONE) < 1).all()
    assert counts.sum() == parts.sum() // ONE


@given(rows())
@settings(max_examples=30)
def test_over_all_starts_each_sample_comes_exactly_as_often_as_expected(row):
    parts, order = row
    starts = range(0, ONE, ONE // 64)
    drawn = sum(systematic_counts(parts, order, start) for start in starts)
    assert (drawn * (ONE // 64) == parts).all()


@given(st.lists(st.integers(0, 9), max_size=60))
def test_the_kth_visit_of_a_sample_has_number_k_times_size_plus_sample(samples):
    seen, expected = [0] * 10, []
    for sample in samples:
        expected.append(seen[sample] * 10 + sample)
        seen[sample] += 1
    visits = number_visits(np.array(samples, dtype=np.int64), 10)
    assert visits.tolist() == expected


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(1, 7))
def test_visits_are_dealt_equally(samples, world):
    samples = np.array(samples * world)
    dealt = deal(samples, world)
    assert (
        np.bincount(dealt, minlength=world).tolist() == [len(samples) // world] * world
    )
