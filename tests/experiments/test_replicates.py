"""Scores of replicates are those of the rows written out as often as they count."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tests.experiments.fabricated import predictions
from torchgeo_channelmae.evaluation.metrics import multilabel_scores
from torchgeo_channelmae.experiments.replicates import (
    SCORES,
    TUNED,
    average_precisions,
    replicate_scores,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_a_replicate_is_scored_as_its_rows_repeated(seed, digits):
    rng = np.random.default_rng(seed)
    run = predictions(0.3, patches=25, scenes=5, seed=seed, digits=digits)
    names, clusters = np.unique(run.acquisitions, return_inverse=True)
    counts = rng.integers(0, 4, size=(len(names), 6)).astype(float)
    counts[clusters[0]] += 1  # the patch that has all classes
    found = replicate_scores(run, clusters, counts)
    assert set(found) == {*SCORES, *TUNED}
    for column in range(6):
        rows = np.repeat(np.arange(25), counts[clusters, column].astype(int))
        expected = multilabel_scores(
            torch.from_numpy(run.probabilities[rows]),
            torch.from_numpy(run.labels[rows]).long(),
            torch.tensor(run.thresholds),
        )
        for name, value in expected.items():
            assert found[name][column] == pytest.approx(value, abs=1e-6), name


def test_average_precision_is_that_of_scikit_learn_with_weights():
    rng = np.random.default_rng(1)
    scores = rng.random(400).round(2)
    labels = rng.random(400) < 0.3
    clusters = rng.integers(20, size=400)
    counts = rng.integers(0, 3, size=(20, 300)).astype(float)  # more than one chunk
    found = average_precisions(scores, labels, clusters, counts)
    for column in (0, 127, 128, 299):
        weights = counts[clusters, column]
        expected = average_precision_score(labels, scores, sample_weight=weights)
        assert found[column] == pytest.approx(expected, abs=1e-12)


def test_thresholds_that_are_taken_together_move_the_score_by_little():
    rng = np.random.default_rng(2)
    labels = rng.random(60_000) < 0.2
    scores = rng.normal(size=60_000) + labels
    clusters, counts = rng.integers(30, size=60_000), np.ones((30, 1))
    exact = average_precisions(scores, labels, clusters, counts, 10**6)
    coarse = average_precisions(scores, labels, clusters, counts)
    assert exact != coarse
    assert coarse == pytest.approx(exact, abs=1e-4)


def test_a_replicate_without_positives_has_no_score():
    labels, scores = np.array([True, False]), np.array([0.3, 0.2])
    counts = np.array([[1.0, 0.0], [1.0, 2.0]])
    found = average_precisions(scores, labels, np.array([0, 1]), counts)
    assert found[0] == 1
    assert np.isnan(found[1])
