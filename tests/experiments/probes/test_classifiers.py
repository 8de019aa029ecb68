"""Classifiers on features, and their scores."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from torchgeo_channelmae.experiments.probes.classifiers import (
    Protocol,
    check_labels,
    knn,
    linear,
    one_hot,
    scores,
)


@pytest.fixture(scope='module')
def several():
    """Features of three labels, a fourth that is rare and a fifth that never occurs."""
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 5)) < [0.5, 0.3, 0.4, 0.02, 0]).astype(int)
    noise = rng.normal(size=(300, 12))
    x = (labels @ rng.normal(size=(5, 12)) + noise).astype(np.float32)
    return x, torch.from_numpy(labels)


@pytest.fixture(scope='module')
def single():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    x = (rng.normal(size=(4, 8))[labels] + 0.7 * rng.normal(size=(200, 8))) * 100
    return x.astype(np.float32), torch.from_numpy(labels)


def test_a_vote_is_the_weighted_mean_of_the_nearest_labels(several):
    x, labels = several
    found = knn(x[:200], labels[:200], x[200:], 5, neighbors=7)
    scale = StandardScaler().fit(x[:200])
    train, test = (
        part / np.linalg.norm(part, axis=1, keepdims=True)
        for part in (scale.transform(x[:200]), scale.transform(x[200:]))
    )
    for row in (0, 50, 99):
        cosine = train @ test[row]
        nearest = np.argsort(-cosine)[:7]
        weight = np.exp(cosine[nearest] / 0.07)
        expected = weight @ labels[nearest].numpy() / weight.sum()
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-4)


def test_regressions_are_one_against_the_rest_for_several_labels(several):
    x, labels = several
    parts = x[:150], labels[:150], (x[150:200], labels[150:200]), [x[200:]]
    (found,), c = linear(*parts, 5, grid=(0.01,))
    assert c == 0.01
    scale = StandardScaler().fit(x[:150])
    model = OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=2000, tol=1e-6))
    model.fit(scale.transform(x[:150]), labels[:150, :3].numpy())
    expected = model.predict_proba(scale.transform(x[200:]))
    np.testing.assert_allclose(found[:, :3].numpy(), expected, atol=5e-3)
    assert (found[:, 4] == 0).all()  # no training sample has it


def test_c_has_the_best_scores_on_the_tuning_samples(several):
    x, labels = several
    rng = np.random.default_rng(2)
    wide = np.hstack([x, rng.normal(size=(300, 300)).astype(np.float32)])
    parts = wide[:150], labels[:150], (wide[150:], labels[150:]), [wide[150:]], 5
    found = {}
    for c in (1e-3, 0.03, 1e2):
        p = linear(*parts, (c,))[0][0].numpy()
        found[c] = average_precision_score(labels[150:].numpy(), p, average='micro')
    assert len(set(found.values())) == 3
    assert linear(*parts, tuple(found))[1] == max(found, key=found.__getitem__)


def test_a_class_without_training_samples_is_never_predicted(single):
    x, labels = single
    known = labels[:120] != 2
    train, rest = x[:120][known.numpy()], labels[:120][known]
    (found,), _ = linear(train, rest, (x[120:], labels[120:]), [x[120:]], 4)
    assert (found[:, 2] == 0).all()
    assert found.sum(1).numpy() == pytest.approx(1)


def test_f1_of_one_label_is_of_the_most_probable_class(single):
    x, labels = single
    p = knn(x[:120], labels[:120], x[120:], 4)
    truth = labels[120:]
    found = scores(p, truth, (p, truth))
    chosen = p.argmax(1).numpy()
    assert found['F1_micro'] == pytest.approx(accuracy_score(truth, chosen))
    assert found['F1_macro'] == pytest.approx(f1_score(truth, chosen, average='macro'))
    assert found['mAP_micro'] == pytest.approx(
        average_precision_score(one_hot(truth, 4).numpy(), p.numpy(), average='micro')
    )


@pytest.mark.parametrize('scored', ['test', 'val'])
def test_scored_samples_neither_learn_nor_tune(several, scored):
    x, labels = several
    rows = {'train': slice(150), 'val': slice(150, 200), 'test': slice(200, 300)}
    rows = {split: rows[split] for split in ('train', 'val', scored)}
    parts = {split: x[chosen] for split, chosen in rows.items()}
    truth = {split: labels[chosen] for split, chosen in rows.items()}
    found = Protocol(truth, scored, 'data').scores(parts)['linear']
    wrong = truth | {scored: 1 - truth[scored]}
    changed = Protocol(wrong, scored, 'data').scores(parts)['linear']
    assert changed['C'] == found['C']
    assert changed['mAP_micro'] < found['mAP_micro'] - 0.1


def test_too_few_samples_are_an_error(several):
    labels = several[1]
    with pytest.raises(ValueError, match='neighbors'):
        Protocol({'train': labels[:10], 'val': labels[:5]}, 'val', 'data', neighbors=9)
    with pytest.raises(ValueError, match='4 training samples'):
        Protocol({'train': labels[:4], 'val': labels[:5]}, 'val', 'data', neighbors=2)


@pytest.mark.parametrize('labels', [None, [0.5, 2.0], [[[0.0]]], [-1, 2], [[0, 2]]])
def test_labels_that_are_not_classes_are_an_error(labels):
    with pytest.raises(ValueError, match='Roads'):
        check_labels(labels and torch.tensor(labels), 'Roads')
