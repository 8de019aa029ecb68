"""How alike features are, against the definitions taken literally."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_channelmae.experiments.probes import similarity
from torchgeo_channelmae.experiments.probes.similarity import (
    debiased_cka,
    debiased_hsic,
    neighbor_overlap,
    pair_ranks,
    standardize,
)


def draw(n, *widths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)) for width in widths]


def hsic_as_defined(x, y):
    """Average its kernel over all quadruples of different samples."""
    k, m = x @ x.T, y @ y.T
    values = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in itertools.permutations(range(len(x)), 4)
    ]
    return np.mean(values)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 7), a=st.integers(1, 5), b=st.integers(1, 9), seed=st.integers()
)
def test_hsic_is_the_mean_over_all_quadruples(n, a, b, seed):
    x, y = draw(n, a, b, seed=abs(seed))
    expected = hsic_as_defined(x, y)
    assert debiased_hsic(x, y) == pytest.approx(expected, abs=1e-9)
    assert debiased_hsic(x + 1000, y) == pytest.approx(expected, abs=1e-6)


def test_cka_is_invariant_to_rotation_translation_and_scale():
    (x,) = draw(40, 6)
    turn, _ = np.linalg.qr(draw(6, 6, seed=1)[0])
    assert debiased_cka(x, 3 * x @ turn + 5) == pytest.approx(1)


def test_cka_of_independent_features_is_zero_on_average_however_wide():
    found = [debiased_cka(*draw(20, 200, 200, seed=seed)) for seed in range(200)]
    assert abs(np.mean(found)) < 0.005


def test_overlap_is_the_share_of_common_nearest_neighbors():
    x, y = (standardize(part) for part in draw(40, 5, 8))
    y[:20, :5] += 2 * x[:20]
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    nearest = [np.argsort(-(part @ part.T))[:, 1:5] for part in (x, y)]
    expected = np.mean([len({*a} & {*b}) / 4 for a, b in zip(*nearest, strict=True)])
    assert neighbor_overlap(x, y, 4) == pytest.approx(expected)
    assert neighbor_overlap(x, x, 4) == 1


def test_ranks_count_what_is_as_similar_as_the_counterpart(monkeypatch):
    monkeypatch.setattr(similarity, '_ROWS', 5)  # several blocks
    x, y = (standardize(part) for part in draw(12, 6, 6))
    cosine = x @ y.T
    expected = [
        1 + sum(cosine[i, j] > cosine[i, i] for j in range(12)) for i in range(12)
    ]
    assert pair_ranks(x, y).tolist() == expected
    assert (pair_ranks(x, x) == 1).all()
    alike = np.ones_like(x)
    assert (pair_ranks(alike, alike) == 12).all()  # the order does not help


def test_standardized_features_are_centred_rows_of_length_one():
    (x,) = draw(30, 4)
    x[:, 2] = 7  # constant
    found = standardize(x * [1, 100, 1, 0.01] + 50)
    centerd = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), np.inf)
    expected = centerd / np.linalg.norm(centerd, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
