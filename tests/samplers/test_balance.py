"""Samples are drawn so that classes come evenly, within limits on repeats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from torchgeo_channelmae.samplers.balance import entropy, expected_draws

temperatures = st.sampled_from([0.0, 0.2, 0.5, 0.9, 0.99, 1.0])


@st.composite
def mixtures(draw, most=40):
    """Class shares of samples, in all of which together each class occurs."""
    samples = draw(st.integers(1, most))
    classes = draw(st.integers(1, min(samples, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):  # labels, which many samples have alike
        shares = (rng.random((samples, classes)) < rng.random(classes)).astype(float)
    else:
        shares = rng.random((samples, classes)) ** draw(st.sampled_from([1, 30]))
    shares[np.arange(classes), np.arange(classes)] += 0.1
    shares[shares.sum(axis=1) == 0] = 1
    return shares / shares.sum(axis=1, keepdims=True)


def best_bound(shares, steps=3000):
    """Bound the entropy of any weighting from above.

    By Gibbs, H(p) <= -p log q for any q, at most the largest -s log q of a sample.
    """
    weights, bound = np.full(len(shares), 1 / len(shares)), np.inf
    for _ in range(steps):
        surprise = shares @ -np.log(weights @ shares)
        bound = min(bound, surprise.max())
        weights = weights * np.exp(surprise - surprise.max())
        weights /= weights.sum()
    return bound


def searched(shares, draws, temperature, cap, distinct):
    """Search the best expected draws as a general-purpose optimizer would.

    w = a + b with a <= 1 and b <= cap - 1, so that sum(a) >= distinct says what
    sum(min(w, 1)) >= distinct does.
    """
    samples = len(shares)

    def loss(halves):
        x = np.maximum((halves[:samples] + halves[samples:]) / draws, 1e-12)
        p = np.maximum(x @ shares, 1e-12)
        return temperature * (p @ np.log(p)) + (1 - temperature) * (x @ np.log(x))

    start = np.full(samples, draws / samples)
    found = minimize(
        loss,
        np.concatenate([np.minimum(start, 1), np.maximum(start - 1, 0)]),
        method='SLSQP',
        bounds=[(0, 1)] * samples + [(0, cap - 1)] * samples,
        constraints=[
            {'type': 'eq', 'fun': lambda w: w.sum() - draws},
            {'type': 'ineq', 'fun': lambda w: w[:samples].sum() - distinct},
        ],
        options={'maxiter': 1000, 'ftol': 1e-12},
    )
    return -loss(found.x)


@pytest.mark.parametrize('temperature', [0.0, 0.3, 0.5, 0.8])
def test_pure_samples_are_drawn_by_their_class_share_to_the_power_one_less_t(
    temperature,
):
    counts = np.array([600, 60, 12])
    shares = np.repeat(np.eye(3), counts, axis=0)
    drawn = expected_draws(shares, 500, temperature, cap=1000) @ shares
    by_power = (counts / counts.sum()) ** (1 - temperature)
    np.testing.assert_allclose(drawn / 500, by_power / by_power.sum(), atol=1e-4)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize(
    ('temperature', 'draws', 'cap', 'distinct'),
    [(0.5, 9, 4, 0), (0.9, 12, 3, 0), (0.95, 12, 3, 9), (0.8, 20, 3, 12)],
)
def test_the_objective_is_close_to_what_a_general_purpose_search_finds(
    seed, temperature, draws, cap, distinct
):
    shares = np.random.default_rng(seed).dirichlet([0.3, 0.1, 0.05, 0.5], size=12)
    w = expected_draws(shares, draws, temperature, cap, max(distinct - 1, 0) / draws)
    x = w / draws
    assert w.max() <= cap + 1e-6
    assert np.minimum(w, 1).sum() >= distinct - 1e-4
    reached = temperature * entropy(x @ shares) + (1 - temperature) * entropy(x)
    assert reached >= 0.98 * searched(shares, draws, temperature, cap, distinct)


@given(mixtures())
@settings(max_examples=25, deadline=None)
def test_without_limits_the_classes_are_as_even_as_any_weights_make_them(shares):
    draws = 100
    drawn = expected_draws(shares, draws, 1.0, cap=100) @ shares / draws
    assert entropy(drawn) >= 0.95 * best_bound(shares) - 1e-3


@given(
    mixtures(), st.integers(1, 100), temperatures, st.integers(1, 20), st.floats(0, 1)
)
@settings(max_examples=150, deadline=None)
def test_expected_draws_add_up_within_the_limits(
    shares, draws, temperature, cap, least
):
    draws = min(draws, cap * len(shares))
    w = expected_draws(shares, draws, temperature, cap, least)
    assert w.sum() == pytest.approx(draws, abs=1e-2)
    assert w.min() >= 0
    assert w.max() <= cap * (1 + 1e-9)
    wanted = min(np.ceil(least * draws), draws, len(shares))
    assert np.minimum(w, 1).sum() >= wanted - 1e-2


def test_samples_of_unknown_land_cover_are_drawn_as_the_average_and_others_never():
    shares = np.repeat(np.eye(2), [60, 20], axis=0)
    shares[:8] = np.nan
    shares[70:] = 0
    w = expected_draws(shares, 140, 1.0, cap=20, min_distinct=0.1)
    np.testing.assert_allclose(w[:8], 2)
    assert (w[70:] == 0).all()
    np.testing.assert_allclose([w[8:60].sum(), w[60:70].sum()], 62, atol=0.1)
