"""Probes: classifiers on frozen features, and their scores.

``n`` samples, ``F`` features, ``K`` classes. Labels are (n,) class numbers or
(n, K) 0 or 1.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor

from ...evaluation.metrics import evaluate, multilabel_scores, tune_thresholds
from .features import Floats

PROBES = ('knn', 'linear')
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation strengths (scikit-learn's C) to choose from."""

ONE_GROUP = (1, (0,))
"""Number of random groups and their seeds for scores without a deviation."""


def check_labels(labels: Tensor | None, owner: str) -> Tensor:
    """Return labels as int64 class numbers (n,), or 0 or 1 per class (n, K)."""
    if labels is not None and labels.ndim in (1, 2):
        whole = labels.long()
        top = 1 if labels.ndim == 2 else torch.inf
        if bool(((labels == whole) & (whole >= 0) & (whole <= top)).all()):
            return whole
    raise ValueError(
        f'{owner} has no labels: class numbers (B,), or 0 or 1 per class (B, K).'
    )


def check_neighbors(neighbors: int, samples: int) -> None:
    """Check that there are enough training samples for a k-nearest-neighbor vote."""
    if not 1 <= neighbors <= samples:
        raise ValueError(f'neighbors is {neighbors}. Use 1 to {samples} (of training).')


def hold_out(count: int) -> npt.NDArray[np.bool_]:
    """Mark every fifth sample, for tuning if there is no other split for it."""
    return np.arange(count) % 5 == 4


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return (n, K) 0 or 1 for either kind of labels."""
    if labels.ndim == 2:
        return labels
    return torch.nn.functional.one_hot(labels, num_classes)


def knn(
    train: Floats, labels: Tensor, test: Floats, num_classes: int, neighbors: int = 10
) -> Tensor:
    """Predict (m, K) probabilities from the k nearest training samples by cosine.

    Features, (n, F) for training and (m, F) to predict, are standardized on the
    training set. The result is the mean of the neighbors' labels with the weights
    exp(cosine / 0.07), as usual for such features (Wu et al., 2018,
    https://arxiv.org/abs/1805.01978).
    """
    votes = KNeighborsRegressor(
        neighbors,
        algorithm='brute',
        # exp(cosine / 0.07) but for a factor, as these are distances of unit vectors
        weights=lambda distance: np.exp(-(distance.astype(np.float64) ** 2) / 0.14),
    )
    model = make_pipeline(StandardScaler(), Normalizer(), votes)
    truth = one_hot(labels, num_classes).double().numpy()
    return torch.from_numpy(model.fit(train, truth).predict(test)).clamp(0, 1)


def linear(
    train: Floats,
    labels: Tensor,
    tune: tuple[Floats, Tensor],
    tests: Sequence[Floats],
    num_classes: int,
    grid: Sequence[float] = GRID,
) -> tuple[list[Tensor], float]:
    """Predict with logistic regressions on standardized features.

    One against the rest per class for (n, K) labels, else multinomial. All classes
    share the C of the grid with the best micro mAP on the tuning samples.

    Returns:
        (m, K) probabilities of each set of (m, F) features, and C. A class that no or
        every training sample has is predicted with its frequency.
    """
    scale = StandardScaler().fit(train)
    x, held, *wanted = (scale.transform(part) for part in (train, tune[0], *tests))
    frequency = one_hot(labels, num_classes).double().mean(0)
    columns = labels.T.numpy() if labels.ndim == 2 else [labels.numpy()]
    fits = {  # a warm start from the last C's solution
        k: LogisticRegression(max_iter=500, tol=1e-3, warm_start=True)
        for k, column in enumerate(columns)
        if len(np.unique(column)) > 1
    }

    def predict(part: Floats) -> Tensor:
        result = frequency.repeat(len(part), 1)
        for k, model in fits.items():
            found = torch.from_numpy(model.predict_proba(part)).double()
            if labels.ndim == 2:
                result[:, k] = found[:, 1]
            else:  # a class without training samples keeps 0
                result[:, torch.from_numpy(model.classes_)] = found
        return result.clamp(0, 1)

    truth = one_hot(tune[1], num_classes)
    best, chosen = -1.0, grid[0]
    predicted: list[Tensor] = []
    for c in sorted(grid):
        with warnings.catch_warnings(category=ConvergenceWarning, action='ignore'):
            for k, model in fits.items():  # nearly converged is good enough
                model.set_params(C=c).fit(x, columns[k])
        score = multilabel_scores(predict(held), truth)['mAP_micro']
        if score > best or not predicted:
            best, chosen, predicted = score, c, [predict(part) for part in wanted]
    return predicted, chosen


def scores(
    probabilities: Tensor,
    labels: Tensor,
    tune: tuple[Tensor, Tensor],
    groups: tuple[int, Sequence[int]] = ONE_GROUP,
) -> dict[str, float]:
    """Score predictions with :func:`torchgeo_channelmae.evaluation.metrics.evaluate`.

    F1 of (n,) labels is of the most probable class, so its micro mean is the accuracy;
    F1 of (n, K) labels is of each class at 0.5, and at thresholds tuned on ``tune``.
    With random groups (their number and seeds) there are a mean and std over them.
    """
    truth = one_hot(labels, probabilities.shape[1])
    if labels.ndim == 2:
        return evaluate(probabilities, truth, tune_thresholds(*tune), *groups)
    decided = one_hot(probabilities.argmax(1), probabilities.shape[1])
    found = evaluate(decided.to(probabilities), truth, None, *groups)
    ranked = evaluate(probabilities, truth, None, *groups)
    return ranked | {name: found[name] for name in found if 'F1' in name}


class Protocol:
    """Which samples probes learn from, are tuned on and are scored on.

    They learn on ``train``, are tuned on ``val`` and scored on ``test``. If ``val`` is
    scored, or there is none, every fifth sample of ``train`` tunes and does not learn.
    ``num_classes`` is the number of classes among the scored samples.
    """

    def __init__(
        self,
        labels: Mapping[str, Tensor | None],
        scored: str,
        owner: str,
        neighbors: int = 10,
        groups: tuple[int, Sequence[int]] = ONE_GROUP,
    ) -> None:
        """Split the samples into the three roles.

        Random groups (their number and seeds) are ignored if there are fewer samples
        than groups.
        """
        known = {part: check_labels(value, owner) for part, value in labels.items()}
        self._scored, self._neighbors = scored, neighbors
        self._train, self._tune, self._test = self._roles(known)
        check_neighbors(neighbors, len(self._train))
        if not len(self._tune):
            few = len(self._train)
            raise ValueError(f'{few} training samples are too few. Use at least 5.')
        several = self._test.ndim == 2
        highest = max(int(part.max()) for part in known.values())
        self._classes = self._test.shape[1] if several else highest + 1
        self._groups = groups if groups[0] <= len(self._test) else ONE_GROUP
        self.num_classes = int(one_hot(self._test, self._classes).any(0).sum())

    def _roles(self, parts: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return rows that learn, tune and are scored."""
        train, test = parts['train'], parts[self._scored]
        held = hold_out(len(train))
        if self._scored != 'val' and 'val' in parts:
            return train, parts['val'], test
        return train[~held], train[held], test

    def chance(self) -> dict[str, float]:
        """Score the class frequencies of the training samples as a prediction."""
        frequency = one_hot(self._train, self._classes).double().mean(0)
        rows = self._test, self._tune
        return self._score([frequency.expand(len(part), -1) for part in rows])

    def scores(
        self, features: Mapping[str, Floats], probes: Sequence[str] = PROBES
    ) -> dict[str, dict[str, float]]:
        """Score (n, F) features by split with each probe; ``linear`` also has ``C``."""
        x, tune, test = self._roles(features)
        learn = x, self._train
        found: dict[str, dict[str, float]] = {}
        if 'knn' in probes:
            votes = [
                knn(*learn, part, self._classes, self._neighbors)
                for part in (test, tune)
            ]
            found['knn'] = self._score(votes)
        if 'linear' in probes:
            made, c = linear(*learn, (tune, self._tune), [test, tune], self._classes)
            found['linear'] = {'C': c} | self._score(made)
        return found

    def _score(self, predicted: Sequence[Tensor]) -> dict[str, float]:
        """Score predictions of the scored samples; those of the others tune."""
        tuning = predicted[1], self._tune
        return scores(predicted[0], self._test, tuning, self._groups)
