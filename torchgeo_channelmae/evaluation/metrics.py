"""Multi-label scores of a whole set and of its random parts.

Conventions: ``probabilities`` are floats (S, K) in [0, 1] for S samples and K classes,
``labels`` (S, K) are 0 or 1; other values, or no sample, raise a ValueError. A class is
predicted where its probability is *above* the threshold. Average precision (AP) equals
scikit-learn's ``average_precision_score``: no interpolation, no bins, ties included.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional import classification

from .. import randomness

DEFAULT_THRESHOLD = 0.5


def multilabel_scores(
    probabilities: Tensor,
    labels: Tensor,
    thresholds: float | Tensor = DEFAULT_THRESHOLD,
) -> dict[str, float]:
    """Score multi-label predictions (S, K), micro and macro.

    Micro pools all S x K decisions. Macro is the mean over classes with a positive.

    Args:
        probabilities: (S, K).
        labels: (S, K).
        thresholds: One threshold for F1, or one per class (K,): then the plain F1 is at
            0.5 and the ``_tuned`` F1 at these.

    Returns:
        ``mAP_micro``, ``mAP_macro``, ``F1_micro`` and ``F1_macro`` in [0, 1], and with
        thresholds per class ``F1_micro_tuned`` and ``F1_macro_tuned``. All are NaN
        without a positive label.
    """
    probabilities, labels = _checked(probabilities, labels)
    scores = {
        'mAP_micro': _precision(probabilities, labels),
        'mAP_macro': _macro(_precision, probabilities, labels),
    }
    cuts = {'': thresholds}
    if isinstance(thresholds, Tensor):
        cuts = {'': DEFAULT_THRESHOLD, '_tuned': thresholds.to(probabilities)}
    for suffix, cut in cuts.items():
        predicted = probabilities > cut
        scores[f'F1_micro{suffix}'] = _f1(predicted, labels)
        scores[f'F1_macro{suffix}'] = _macro(_f1, predicted, labels)
    return scores


def per_class(
    probabilities: Tensor,
    labels: Tensor,
    thresholds: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score every class: K rows, indexed by `names` (the class numbers if None).

    The columns are ``support`` (positive samples), ``AP``, ``F1`` (at 0.5),
    ``threshold`` (of `thresholds` (K,), 0.5 if None) and ``F1_tuned`` (at it). Scores
    without positives are NaN.
    """
    probabilities, labels = _checked(probabilities, labels)
    half = torch.full((labels.shape[1],), DEFAULT_THRESHOLD)
    cuts = (half if thresholds is None else thresholds).to(probabilities)
    by_class = list(zip(probabilities.T, labels.T, cuts, strict=True))
    columns = {
        'support': labels.sum(dim=0).tolist(),
        'AP': [_precision(score, truth) for score, truth, _ in by_class],
        'F1': [_f1(score > DEFAULT_THRESHOLD, truth) for score, truth, _ in by_class],
        'threshold': cuts.tolist(),
        'F1_tuned': [_f1(score > cut, truth) for score, truth, cut in by_class],
    }
    index = None if names is None else list(names)
    return pd.DataFrame(columns, index).rename_axis('class')


def tune_thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return :func:`best_threshold` of each class, (K,), on validation data."""
    probabilities, labels = _checked(probabilities, labels)
    return torch.stack(list(map(best_threshold, probabilities.T, labels.T)))


def best_threshold(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the threshold with the highest F1, exactly; 0.5 without a positive.

    Tries the midpoint between every two neighboring scores (S,) in [0, 1]. Ties go to
    the threshold nearest to 0.5, then to the lower one.
    """
    positives = labels.sum()
    if not positives:
        return scores.new_tensor(DEFAULT_THRESHOLD)
    values, group = scores.unique(sorted=True, return_inverse=True)  # (V,), (S,)
    size = torch.bincount(group, minlength=len(values))
    hits = torch.zeros_like(size).index_add_(0, group, labels)
    # Cut v predicts all scores from value v up.
    predicted = size.flip(0).cumsum(0).flip(0)
    hits = hits.flip(0).cumsum(0).flip(0)
    f1 = 2 * hits.double() / (predicted + positives)

    # The neighbor below the lowest score is 0, or -1 below a score of 0.
    below = torch.cat([-(values[:1] == 0).to(values), values[:-1]])
    middle = below + (values - below) / 2
    cuts = torch.where(middle < values, middle, below)  # adjacent floats
    best = (f1 == f1.max()).nonzero().flatten()
    return cuts[best[(cuts[best] - DEFAULT_THRESHOLD).abs().argmin()]]


def subsets(num_samples: int, groups: int, seeds: Sequence[int]) -> list[Tensor]:
    """Split a set into random groups, once per seed.

    A split depends only on its seed and the two counts. Group sizes differ by one at
    most; an empty group raises a ValueError. Returns ``groups * len(seeds)`` sorted
    int64 index tensors, split by split.
    """
    if not 1 <= groups <= num_samples:
        raise ValueError(
            f'test_groups is {groups} for {num_samples} samples. Choose from 1 to '
            f'{num_samples}.'
        )
    parts: list[Tensor] = []
    for seed in seeds:
        draw = randomness.generator(seed, 'subsets', groups, num_samples)
        order = torch.randperm(num_samples, generator=draw)
        parts += [part.sort().values for part in order.tensor_split(groups)]
    return parts


def evaluate(
    probabilities: Tensor,
    labels: Tensor,
    thresholds: Tensor | None = None,
    groups: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    class_frequencies: Tensor | None = None,
) -> dict[str, float]:
    """Compute everything that a test reports, without the prefix of the stage.

    Args:
        probabilities: (S, K).
        labels: (S, K).
        thresholds: Thresholds (K,) tuned on other samples; no ``_tuned`` F1 if None.
        groups: Number of random groups per split; groups depend on the sample order.
        seeds: One seed per split.
        class_frequencies: Fraction of training samples with each class, (K,) in
            [0, 1]; no floor if None.

    Returns:
        The scores of :func:`multilabel_scores` on the whole set; each also with
        ``_mean`` and ``_std`` (sample standard deviation) over all groups, without
        groups that have no positive label (NaN if too few remain); ``floor_*``, the
        scores of predicting the class frequencies for every sample, where
        ``floor_F1_micro_best`` uses the best single threshold in hindsight; and the
        counts ``num_classes`` (of the macro mean) and ``num_samples``.
    """
    probabilities, labels = _checked(probabilities, labels)
    cuts = DEFAULT_THRESHOLD if thresholds is None else thresholds
    result = multilabel_scores(probabilities, labels, cuts)
    parts = pd.DataFrame(
        multilabel_scores(probabilities[part], labels[part], cuts)
        for part in subsets(len(labels), groups, seeds)
    )
    for suffix, found in (('mean', parts.mean()), ('std', parts.std())):
        result |= {f'{name}_{suffix}': float(value) for name, value in found.items()}
    if class_frequencies is not None:
        constant = class_frequencies.to(probabilities).expand_as(probabilities)
        floor = multilabel_scores(constant, labels)
        best = best_threshold(constant.flatten(), labels.flatten())
        floor['F1_micro_best'] = _f1(constant > best, labels)
        result |= {f'floor_{key}': value for key, value in floor.items()}

    result['num_classes'] = float(labels.any(dim=0).sum())
    result['num_samples'] = float(len(labels))
    return result


def _score(metric: Callable[..., Tensor], predicted: Tensor, labels: Tensor) -> float:
    """Return a binary metric over all elements, NaN without a positive."""
    if not labels.any():
        return math.nan
    return float(metric(predicted.flatten(), labels.flatten(), validate_args=False))


_precision = partial(_score, classification.binary_average_precision)
_f1 = partial(_score, classification.binary_f1_score)


def _macro(
    metric: Callable[[Tensor, Tensor], float], predicted: Tensor, labels: Tensor
) -> float:
    """Return the mean of a metric over the classes with a positive."""
    pairs = zip(predicted.T, labels.T, strict=True)
    values = [metric(score, truth) for score, truth in pairs if truth.any()]
    return fmean(values) if values else math.nan


def _checked(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return float (S, K) probabilities and int64 labels."""
    if not labels.numel():
        raise ValueError('There are no predictions to score: the set is empty.')
    if bad := int((~probabilities.isfinite()).any(dim=1).sum()):
        raise ValueError(
            f'Predictions of {bad} of {len(labels)} samples are NaN or infinite. '
            f'Training diverged, or the images have such values.'
        )
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError('Probabilities must be in [0, 1]. Apply a sigmoid to logits.')
    if not torch.isin(labels, labels.new_tensor([0, 1])).all():
        raise ValueError('Multi-label targets must be 0 or 1.')
    wide = torch.promote_types(probabilities.dtype, torch.float32)
    return probabilities.to(wide), labels.long()
