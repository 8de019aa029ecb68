"""Classifiers on frozen features, and their scores.

``n`` samples, ``K`` classes. Labels are (n,) class numbers or (n, K) 0 or 1.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor

from ...evaluation.metrics import evaluate, multilabel_scores, tune_thresholds

Floats = npt.NDArray[np.floating]

PROBES = ('knn', 'linear')
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of regularisation (scikit-learn's C) that are tried."""

_TEMPERATURE = 0.07
_MOST_STEPS = 500


def check_labels(labels: Tensor | None, whose: str) -> Tensor:
    """Return labels that are classes, one or several a sample.

    Args:
        labels: What the samples hold, None where they hold nothing.
        whose: Name of the data.

    Returns:
        int64 (n,) class numbers or (n, K) 0 or 1.

    Raises:
        ValueError: If they are something else.
    """
    if labels is None:
        raise ValueError(
            f'The samples of {whose} have no label to probe: give a datamodule whose '
            f'batches have label (B,) or (B, K).'
        )
    whole = not labels.is_floating_point() or bool((labels == labels.round()).all())
    several = labels.ndim == 2
    if not whole or labels.ndim not in (1, 2) or bool((labels < 0).any()):
        raise ValueError(
            f'The labels of {whose} are {labels.dtype} {tuple(labels.shape)}, which '
            f'are no classes: give class numbers (B,), or 0 or 1 for each class (B, K).'
        )
    if several and bool((labels > 1).any()):
        raise ValueError(
            f'Labels of {whose} reach {int(labels.max())}: give 0 or 1 for each class.'
        )
    return labels.long()


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return (n, K) 0 or 1, whichever kind the labels are of."""
    if labels.ndim == 2:
        return labels
    return torch.nn.functional.one_hot(labels, num_classes)


def count_classes(*labels: Tensor) -> int:
    """Return K, over all splits."""
    if labels[0].ndim == 2:
        return labels[0].shape[1]
    return max(int(part.max()) for part in labels) + 1


def chance(train: Tensor, count: int, num_classes: int) -> Tensor:
    """Predict the class frequencies of the training set, whatever the sample.

    Args:
        train: Labels of the training set.
        count: Samples to predict.
        num_classes: K.

    Returns:
        (count, K) probabilities.
    """
    return one_hot(train, num_classes).double().mean(0).expand(count, -1)


def knn(
    train: Floats, labels: Tensor, test: Floats, num_classes: int, neighbors: int = 10
) -> Tensor:
    """Predict from the nearest training samples.

    By cosine between features that are standardised on the training set; neighbours
    weigh exp(cosine / 0.07), as is usual for such features (Wu et al., 2018,
    https://arxiv.org/abs/1805.01978).

    Args:
        train: (n, F) features of the training set.
        labels: Their labels.
        test: (m, F) features to predict.
        num_classes: K.
        neighbors: k.

    Returns:
        (m, K) probabilities: the weighted mean of the neighbours' labels.

    Raises:
        ValueError: If there are fewer than k training samples.
    """
    check_neighbors(neighbors, len(train))
    scale = make_pipeline(StandardScaler(), Normalizer()).fit(train)
    index = NearestNeighbors(n_neighbors=neighbors, algorithm='brute')
    index.fit(scale.transform(train))
    distance, found = index.kneighbors(scale.transform(test))
    cosine = torch.from_numpy(1 - distance.astype(np.float64) ** 2 / 2)  # unit vectors
    weight = torch.softmax(cosine / _TEMPERATURE, dim=1)
    truth = one_hot(labels, num_classes).double()[torch.from_numpy(found)]
    return (weight[..., None] * truth).sum(1).clamp(0, 1)


def check_neighbors(neighbors: int, samples: int) -> None:
    """Check that there are as many training samples as neighbours asked for.

    Raises:
        ValueError: If there are not.
    """
    if not 1 <= neighbors <= samples:
        raise ValueError(
            f'neighbors is {neighbors}, but there are {samples} training samples: '
            f'give 1 to {samples}.'
        )


def hold_out(count: int) -> npt.NDArray[np.bool_]:
    """Choose every fifth of some samples, to tune on where no others are there."""
    return np.arange(count) % 5 == 4


def linear(
    train: Floats,
    labels: Tensor,
    tune: tuple[Floats, Tensor],
    tests: Sequence[Floats],
    num_classes: int,
    grid: Sequence[float] = GRID,
) -> tuple[list[Tensor], float]:
    """Predict with logistic regressions on standardised features.

    One against the rest for each class where a sample may have several, else
    multinomial. One C for all classes, that with the best micro mAP on other samples.

    Args:
        train: (n, F) features of the training set.
        labels: Their labels.
        tune: Features and labels of the samples that choose C.
        tests: Sets of features to predict.
        num_classes: K.
        grid: Values of C.

    Returns:
        (m, K) probabilities of each set, and C. A class that no training sample has,
        or all have, gets its frequency.
    """
    scale = StandardScaler().fit(train)
    x, held = scale.transform(train), scale.transform(tune[0])
    wanted = [scale.transform(test) for test in tests]
    truth = one_hot(tune[1], num_classes)
    best: tuple[float, float, list[Tensor]] | None = None
    models = _models(labels)
    for c in sorted(grid):
        predict = _fit(models, x, labels, num_classes, c)
        score = multilabel_scores(predict(held), truth)['mAP_micro']
        if best is None or score > best[0]:
            best = score, c, [predict(test) for test in wanted]
    assert best is not None
    return best[2], best[1]


def _models(labels: Tensor) -> list[LogisticRegression]:
    count = labels.shape[1] if labels.ndim == 2 else 1
    return [  # warm: the last C's solution starts the next
        LogisticRegression(max_iter=_MOST_STEPS, tol=1e-3, warm_start=True)
        for _ in range(count)
    ]


def _fit(
    models: list[LogisticRegression],
    x: Floats,
    labels: Tensor,
    num_classes: int,
    c: float,
) -> Any:
    """Fit all classes with one C; return what predicts."""
    frequency = one_hot(labels, num_classes).double().mean(0)
    several = labels.ndim == 2
    targets = labels.T.numpy() if several else [labels.numpy()]
    fitted: list[LogisticRegression | None] = []
    for model, target in zip(models, targets, strict=True):
        if len(np.unique(target)) < 2:
            fitted.append(None)
            continue
        with warnings.catch_warnings():  # nearly there is good enough for a probe
            warnings.simplefilter('ignore', ConvergenceWarning)
            fitted.append(model.set_params(C=c).fit(x, target))

    def predict(test: Floats) -> Tensor:
        result = frequency.repeat(len(test), 1)
        for k, model in enumerate(fitted):
            if model is None:
                continue
            found = torch.from_numpy(model.predict_proba(test)).double()
            if several:
                result[:, k] = found[:, 1]
            else:  # classes without a training sample keep 0
                result[:, torch.from_numpy(model.classes_)] = found
        return result.clamp(0, 1)

    return predict


def scores(
    probabilities: Tensor,
    labels: Tensor,
    tune: tuple[Tensor, Tensor] | None = None,
    groups: tuple[int, Sequence[int]] | None = None,
) -> dict[str, float]:
    """Score predictions, micro and macro, as :mod:`torchgeo_channelmae.evaluation.metrics` does.

    Where a sample has one class, F1 is of the most probable class (its micro mean is
    the accuracy); else of each class at 0.5, and at thresholds tuned elsewhere.

    Args:
        probabilities: (n, K).
        labels: (n,) or (n, K).
        tune: Probabilities and labels of the samples that tune thresholds.
        groups: Number of random groups and seeds, for a mean and std over them.

    Returns:
        ``mAP_micro`` and the others, and with groups each with ``_mean``, ``_std``.
    """
    truth = one_hot(labels, probabilities.shape[1])

    def score(values: Tensor, thresholds: Tensor | None) -> dict[str, float]:
        if groups is None:
            return multilabel_scores(
                values, truth, 0.5 if thresholds is None else thresholds
            )
        return evaluate(values, truth, thresholds, groups[0], groups[1])

    if labels.ndim == 2:
        thresholds = None if tune is None else tune_thresholds(*tune)
        return score(probabilities, thresholds)
    chosen = torch.zeros_like(probabilities)
    chosen.scatter_(1, probabilities.argmax(1, keepdim=True), 1)
    decided = score(chosen, None)
    return {
        name: decided[name] if name.startswith('F1') else value
        for name, value in score(probabilities, None).items()
    }
