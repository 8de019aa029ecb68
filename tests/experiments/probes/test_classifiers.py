"""Classifiers on features, and their scores."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from torchgeo_channelmae.experiments.probes.classifiers import (
    chance,
    check_labels,
    knn,
    linear,
    one_hot,
    scores,
)
from torchgeo_channelmae.experiments.probes.protocol import Protocol


@pytest.fixture(scope='module')
def several():
    """Features that tell three labels, a fourth that is rare and one that is never."""
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


def test_regressions_are_one_against_the_rest_where_a_sample_has_several(several):
    x, labels = several
    parts = x[:150], labels[:150], (x[150:200], labels[150:200]), [x[200:]]
    (found,), c = linear(*parts, 5, grid=(0.01,))
    assert c == 0.01
    scale = StandardScaler().fit(x[:150])
    model = OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=2000, tol=1e-6))
    model.fit(scale.transform(x[:150]), labels[:150, :3].numpy())
    expected = model.predict_proba(scale.transform(x[200:]))
    np.testing.assert_allclose(found[:, :3].numpy(), expected, atol=5e-3)
    assert (found[:, 4] == 0).all()  # a class that no sample has


def test_c_is_that_with_the_best_scores_where_it_is_tuned(several):
    x, labels = several
    rng = np.random.default_rng(2)
    wide = np.hstack([x, rng.normal(size=(300, 300)).astype(np.float32)])
    tune, grid = (wide[150:], labels[150:]), (1e-3, 0.03, 1e2)
    _, c = linear(wide[:150], labels[:150], tune, [wide[150:]], 5, grid)
    found = {
        each: average_precision_score(
            labels[150:].numpy().ravel(),
            linear(wide[:150], labels[:150], tune, [wide[150:]], 5, (each,))[0][0]
            .numpy()
            .ravel(),
        )
        for each in grid
    }
    assert c == max(found, key=found.__getitem__)
    assert len(set(found.values())) == 3


def test_scores_of_several_classes_are_those_of_scikit_learn(several):
    x, labels = several
    p = knn(x[:200], labels[:200], x[200:], 5)
    found = scores(p, labels[200:])
    truth = labels[200:].numpy()
    assert found['mAP_micro'] == pytest.approx(
        average_precision_score(truth, p.numpy(), average='micro')
    )
    present = truth.any(0)
    assert found['F1_macro'] == pytest.approx(
        f1_score(truth[:, present], p.numpy()[:, present] > 0.5, average='macro')
    )


def test_f1_of_one_class_a_sample_is_of_the_most_probable(single):
    x, labels = single
    p = knn(x[:120], labels[:120], x[120:], 4)
    found = scores(p, labels[120:])
    chosen, truth = p.argmax(1).numpy(), labels[120:].numpy()
    assert found['F1_micro'] == pytest.approx(accuracy_score(truth, chosen))
    assert found['F1_macro'] == pytest.approx(f1_score(truth, chosen, average='macro'))
    assert found['mAP_micro'] == pytest.approx(
        average_precision_score(
            one_hot(labels[120:], 4).numpy(), p.numpy(), average='micro'
        )
    )


def test_a_class_that_training_lacks_is_never_predicted(single):
    x, labels = single
    known = labels[:120] != 2
    train, rest = x[:120][known.numpy()], labels[:120][known]
    (found,), _ = linear(train, rest, (x[120:], labels[120:]), [x[120:]], 4)
    assert (found[:, 2] == 0).all()
    assert found.sum(1).numpy() == pytest.approx(1)


def test_chance_is_the_share_of_training_samples(several):
    found = chance(several[1][:100], 7, 5)
    assert found.shape == (7, 5)
    np.testing.assert_allclose(found[3], several[1][:100].float().mean(0), atol=1e-6)


@pytest.mark.parametrize('scored', ['test', 'val'])
def test_what_is_scored_neither_learns_nor_tunes(several, scored):
    """With other labels where it counts, all else is the same."""
    x, labels = several
    parts = {'train': x[:150], 'val': x[150:200]}
    truth = {'train': labels[:150], 'val': labels[150:200]}
    if scored == 'test':
        parts['test'], truth['test'] = x[200:], labels[200:]
    found = Protocol(truth, scored, 'data').scores(parts)
    assert found['linear']['mAP_micro'] > 0.75
    other = truth | {scored: 1 - truth[scored]}
    changed = Protocol(other, scored, 'data').scores(parts)
    assert changed['linear']['C'] == found['linear']['C']
    assert changed['linear']['mAP_micro'] < found['linear']['mAP_micro'] - 0.1


def test_too_few_samples_are_told(several):
    x, labels = several
    with pytest.raises(ValueError, match='neighbors is 11, but there are 10 training'):
        knn(x[:10], labels[:10], x, 5, 11)
    with pytest.raises(ValueError, match='neighbors is 10, but there are 8 training'):
        Protocol({'train': labels[:10], 'val': labels[:5]}, 'val', 'data')
    with pytest.raises(ValueError, match='4 training samples are too few to tune'):
        Protocol({'train': labels[:4], 'val': labels[:5]}, 'val', 'data', neighbors=2)


@pytest.mark.parametrize(
    ('labels', 'words'),
    [
        (None, 'The samples of Roads have no label to probe'),
        (torch.tensor([0.5, 2.0]), 'which are no classes'),
        (torch.zeros(3, 4, 4), 'which are no classes'),
        (torch.tensor([-1, 2]), 'which are no classes'),
        (torch.tensor([[0, 2]]), 'Labels of Roads reach 2: give 0 or 1'),
    ],
)
def test_what_is_no_class_is_told(labels, words):
    with pytest.raises(ValueError, match=words):
        check_labels(labels, 'Roads')
