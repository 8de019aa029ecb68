"""How alike features are, against the definitions taken literally."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from torchgeo_channelmae.experiments.probes.similarity import (
    debiased_cka,
    debiased_hsic,
    neighbour_overlap,
    pair_ranks,
    recall,
    standardise,
)


def draw(n, *widths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)) for width in widths]


def hsic_as_defined(x, y):
    """The mean of its kernel over all quadruples of different samples."""
    k, m = x @ x.T, y @ y.T
    values = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in itertools.permutations(range(len(x)), 4)
    ]
    return np.mean(values)


def hsic_by_matrices(x, y):
    """The closed form with n x n matrices."""
    n, one = len(x), np.ones(len(x))
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 7), a=st.integers(1, 5), b=st.integers(1, 9), seed=st.integers()
)
def test_hsic_is_the_mean_over_all_quadruples(n, a, b, seed):
    x, y = draw(n, a, b, seed=abs(seed))
    assert debiased_hsic(x, y) == pytest.approx(hsic_as_defined(x, y), abs=1e-9)


def test_hsic_is_the_closed_form_with_matrices_also_far_from_the_origin():
    x, y = draw(60, 30, 50)
    expected = hsic_by_matrices(x, y)
    assert debiased_hsic(x, y) == pytest.approx(expected)
    far = debiased_hsic((x + 1000).astype(np.float32), y)
    assert far == pytest.approx(expected, rel=1e-2)


def test_cka_of_features_with_themselves_is_one_however_turned_moved_or_scaled():
    (x,) = draw(40, 6)
    turn, _ = np.linalg.qr(draw(6, 6, seed=1)[0])
    assert debiased_cka(x, 3 * x @ turn + 5) == pytest.approx(1)


def test_cka_of_independent_features_is_zero_on_average_however_wide():
    found = [debiased_cka(*draw(20, 200, 200, seed=seed)) for seed in range(200)]
    assert abs(np.mean(found)) < 0.005
    x, y = (part - part.mean(0) for part in draw(20, 200, 200))
    plain = np.linalg.norm(x.T @ y) ** 2 / (
        np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    )
    assert plain > 0.8  # what is avoided


def test_cka_of_features_that_never_vary_is_not_a_number():
    (x,) = draw(10, 3)
    assert np.isnan(debiased_cka(x, np.ones((10, 4))))


def test_neighbours_are_those_that_scikit_learn_finds_across_blocks(monkeypatch):
    monkeypatch.setattr('torchgeo_channelmae.experiments.probes.similarity._ROWS', 7)
    x, y = (standardise(part) for part in draw(40, 5, 8))
    y[:20, :5] += 2 * x[:20]
    sets = []
    for part in (x, y):
        search = NearestNeighbors(n_neighbors=4, metric='cosine').fit(part)
        sets.append(search.kneighbors(return_distance=False))
    expected = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(*sets, strict=True)])
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    assert neighbour_overlap(x, y, 4) == pytest.approx(expected)
    assert neighbour_overlap(x, x, 4) == 1


def test_independent_features_share_neighbours_by_chance():
    x, y = (standardise(part) for part in draw(400, 16, 16))
    assert neighbour_overlap(x, y, 10) == pytest.approx(10 / 399, abs=0.008)


def test_ranks_count_what_is_as_similar_as_the_partner(monkeypatch):
    monkeypatch.setattr('torchgeo_channelmae.experiments.probes.similarity._ROWS', 5)
    x, y = (standardise(part) for part in draw(12, 6, 6))
    cosine = x @ y.T
    expected = [
        1 + sum(cosine[i, j] > cosine[i, i] for j in range(12)) for i in range(12)
    ]
    assert pair_ranks(x, y).tolist() == expected
    assert recall(pair_ranks(x, x), 1) == 1
    alike = np.ones_like(x)
    assert recall(pair_ranks(alike, alike), 11) == 0  # no use of the order


def test_standard_features_have_no_mean_and_rows_of_length_one():
    (x,) = draw(30, 4)
    x[:, 2] = 7  # never varies
    found = standardise(x * [1, 100, 1, 0.01] + 50)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert (found[:, 2] == 0).all()
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: debiased_cka(*draw(3, 2, 2)), '3 samples are too few'),
        (lambda: debiased_hsic(np.ones((5, 2)), np.ones((6, 2))), '5 and 6 samples'),
        (lambda: neighbour_overlap(*draw(5, 2, 2), 5), 'give 1 to 4'),
        (lambda: pair_ranks(*draw(5, 2, 3)), 'Features of 2 and 3 numbers'),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
