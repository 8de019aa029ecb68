"""Scores against scikit-learn, and the protocol against its own definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from torchgeo_channelmae.evaluation.metrics import (
    evaluate,
    multilabel_scores,
    per_class,
    subsets,
    tune_thresholds,
)

CLOSE = 1e-6


def random_set(num_samples=200, num_classes=19, ties=True, seed=0):
    """Predictions that know something of the labels; class 3 has no positive."""
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_samples, num_classes, generator=draw) < 0.2).long()
    labels[:, 3] = 0
    noise = torch.rand(num_samples, num_classes, generator=draw)
    probabilities = (0.3 * labels + 0.7 * noise).float()
    if ties:
        probabilities = (probabilities * 10).round() / 10
    return probabilities, labels


@pytest.mark.parametrize('ties', [False, True])
def test_scores_equal_those_of_scikit_learn(ties):
    probabilities, labels = random_set(ties=ties)
    scores = multilabel_scores(probabilities, labels)
    p, y = probabilities.numpy(), labels.numpy()
    known = y.any(axis=0)
    predicted = p > 0.5
    expected = {
        'mAP_micro': average_precision_score(y, p, average='micro'),
        'mAP_macro': average_precision_score(y[:, known], p[:, known], average='macro'),
        'F1_micro': f1_score(y, predicted, average='micro'),
        'F1_macro': f1_score(y[:, known], predicted[:, known], average='macro'),
    }
    assert scores == pytest.approx(expected, abs=CLOSE)
    half = multilabel_scores(probabilities.half(), labels)  # is scored in single
    assert half == multilabel_scores(probabilities.half().float(), labels)


def test_thresholds_for_each_class_add_tuned_scores_and_leave_the_plain_ones():
    probabilities, labels = random_set()
    thresholds = tune_thresholds(probabilities, labels)
    scores = multilabel_scores(probabilities, labels, thresholds)
    plain = multilabel_scores(probabilities, labels, 0.5)
    assert {key: scores[key] for key in plain} == plain
    predicted = (probabilities > thresholds).numpy()
    assert scores['F1_micro_tuned'] == pytest.approx(
        f1_score(labels.numpy(), predicted, average='micro'), abs=CLOSE
    )
    assert scores['F1_macro_tuned'] > plain['F1_macro']


def test_scores_without_a_positive_label_are_nan():
    scores = multilabel_scores(torch.rand(4, 2), torch.zeros(4, 2).long())
    assert all(math.isnan(score) for score in scores.values())


def test_per_class_table_equals_scikit_learn():
    probabilities, labels = random_set()
    names = [f'class {k}' for k in range(19)]
    thresholds = tune_thresholds(probabilities, labels)
    table = per_class(probabilities, labels, thresholds, names)
    score, truth = probabilities[:, 7].numpy(), labels[:, 7].numpy()
    expected = {
        'support': truth.sum(),
        'AP': average_precision_score(truth, score),
        'F1': f1_score(truth, score > 0.5),
        'threshold': thresholds[7].item(),
        'F1_tuned': f1_score(truth, score > thresholds[7].item()),
    }
    assert table.loc['class 7'].to_dict() == pytest.approx(expected, abs=CLOSE)
    assert math.isnan(table.loc['class 3', 'AP'])
    assert table.loc['class 3', 'threshold'] == 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), min_size=1, max_size=12
    )
)
def test_no_threshold_beats_the_tuned_one(rows):
    scores = torch.tensor([score for score, _ in rows])
    truth = np.array([label for _, label in rows])
    tuned = tune_thresholds(scores[:, None], torch.from_numpy(truth)[:, None])
    assert tuned.shape == (1,)
    if not truth.any():
        assert tuned.item() == 0.5
        return
    cuts = [-1.0, *scores.tolist()]
    best = max(f1_score(truth, scores.numpy() > np.float32(cut)) for cut in cuts)
    assert f1_score(truth, (scores > tuned).numpy()) == pytest.approx(best)


def test_a_tie_between_thresholds_goes_to_the_one_nearest_to_one_half():
    # The upper cut finds 1 of 2 with none false, the lower 2 of 2 with 2 false.
    labels = torch.tensor([[1], [0], [0], [1], [0]])
    upper = torch.tensor([[0.9], [0.7], [0.6], [0.2], [0.1]])  # cuts at 0.8 and 0.15
    lower = torch.tensor([[1.0], [0.9], [0.9], [0.5], [0.1]])  # cuts at 0.95 and 0.3
    assert tune_thresholds(upper, labels).tolist() == pytest.approx([0.8])
    assert tune_thresholds(lower, labels).tolist() == pytest.approx([0.3])


@pytest.mark.parametrize(('num_samples', 'groups'), [(1, 1), (7, 7), (53, 5)])
def test_the_groups_of_a_split_hold_every_sample_once_and_are_nearly_equal(
    num_samples, groups
):
    parts = subsets(num_samples, groups, [0, 8])
    for split in (parts[:groups], parts[groups:]):
        assert torch.cat(split).sort().values.tolist() == list(range(num_samples))
        assert {len(part) for part in split} <= {len(split[-1]), len(split[-1]) + 1}


def test_a_split_depends_on_its_seed_and_not_on_earlier_draws():
    alone, after = subsets(50, 5, [2]), subsets(50, 5, [0, 1, 2])
    assert all(map(torch.equal, alone, after[10:]))
    assert not torch.equal(after[0], after[5])


def test_evaluate_reports_mean_and_sample_deviation_over_the_parts():
    probabilities, labels = random_set()
    result = evaluate(probabilities, labels, groups=5, seeds=(0, 1, 2))
    y, p = labels.numpy(), probabilities.numpy()
    values = [
        average_precision_score(y[part], p[part], average='micro')
        for part in (part.numpy() for part in subsets(200, 5, (0, 1, 2)))
    ]
    assert len(values) == 15
    assert result['mAP_micro_mean'] == pytest.approx(np.mean(values), abs=CLOSE)
    assert result['mAP_micro_std'] == pytest.approx(np.std(values, ddof=1), abs=CLOSE)
    assert result['mAP_micro'] == multilabel_scores(probabilities, labels)['mAP_micro']
    assert result['num_classes'] == 18
    assert result['num_samples'] == 200
    assert not any('tuned' in key or 'floor' in key for key in result)


def test_the_floor_is_the_score_of_predicting_the_class_frequencies():
    probabilities, labels = random_set()
    frequencies = torch.linspace(0.05, 0.6, 19)
    result = evaluate(probabilities, labels, class_frequencies=frequencies)
    y, constant = labels.numpy(), np.tile(frequencies.numpy(), (200, 1))
    prevalence = y.mean(axis=0)
    f1 = [
        f1_score(y, constant > np.float32(cut), average='micro')
        for cut in (0.5, 0.0, *frequencies[:-1].tolist())
    ]
    expected = {
        'floor_mAP_micro': average_precision_score(y, constant, average='micro'),
        'floor_mAP_macro': prevalence[prevalence > 0].mean(),
        'floor_F1_micro': f1[0],
        'floor_F1_micro_best': max(f1),
    }
    assert {k: result[k] for k in expected} == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(
    ('probabilities', 'labels', 'message'),
    [
        (torch.tensor([[0.1], [math.nan]]), torch.ones(2, 1), '1 of 2 samples are NaN'),
        (torch.tensor([[0.1], [3.0]]), torch.ones(2, 1), 'sigmoid'),
        (torch.rand(0, 3), torch.ones(0, 3), 'empty'),
        (torch.rand(2, 1), torch.full((2, 1), 2), '0 or 1'),
    ],
)
def test_what_cannot_be_scored_is_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        multilabel_scores(probabilities, labels.long())
