"""Multi-label scores of a whole set and of its random parts.

Conventions, the same everywhere here: ``S`` samples, ``K`` classes, probabilities in
[0, 1], labels 0 or 1; a class is predicted where its probability is *above* the
threshold; average precision (AP) has no interpolation and no bins, so it equals
scikit-learn's ``average_precision_score``, ties included.
"""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from .. import randomness
from .binary import DEFAULT_THRESHOLD, average_precision, best_threshold, f1_score

__all__ = (
    'evaluate',
    'multilabel_scores',
    'per_class',
    'subsets',
    'tune_thresholds',
)


def multilabel_scores(
    probabilities: Tensor,
    labels: Tensor,
    thresholds: float | Tensor = DEFAULT_THRESHOLD,
    classes: Tensor | None = None,
) -> dict[str, float]:
    """Score multi-label predictions, micro and macro.

    Micro pools all S x K decisions. Macro is the mean over a fixed set of classes;
    of that set, a class without a positive among these samples has no AP, and is left
    out of the mean of AP and of F1 alike, so that both are over the same classes.

    Args:
        probabilities: Predicted probabilities, float (S, K).
        labels: True labels, 0 or 1, (S, K).
        thresholds: One threshold for F1, or one a class (K,). With one a class, the
            plain F1 is at 0.5 and the ``_tuned`` F1 at these.
        classes: The macro classes, bool (K,). Those with a positive among these
            samples, if None. Pass the whole set's when scoring a part of it.

    Returns:
        ``mAP_micro``, ``mAP_macro``, ``F1_micro`` and ``F1_macro`` in [0, 1], and
        ``F1_micro_tuned`` and ``F1_macro_tuned`` if ``thresholds`` are one a class.
        All are NaN where there is no positive label to find.

    Raises:
        ValueError: If shapes or values are not as described, or there is no sample.
    """
    probabilities, labels = _checked(probabilities, labels)
    num_classes = labels.shape[1]
    found = labels.any(dim=0)
    macro = found if classes is None else found & classes.to(found.device).bool()
    columns = macro.nonzero().flatten().tolist()

    scores = {
        'mAP_micro': average_precision(probabilities, labels),
        'mAP_macro': _mean(
            [average_precision(probabilities[:, k], labels[:, k]) for k in columns]
        ),
    }
    cuts = {'': thresholds}
    if isinstance(thresholds, Tensor):
        cuts = {'': DEFAULT_THRESHOLD, '_tuned': _one_a_class(thresholds, num_classes)}
    for suffix, cut in cuts.items():
        if isinstance(cut, Tensor):
            cut = cut.to(probabilities)
        predicted = (probabilities > cut).long()
        scores[f'F1_micro{suffix}'] = f1_score(predicted, labels)
        scores[f'F1_macro{suffix}'] = _mean(
            [f1_score(predicted[:, k], labels[:, k]) for k in columns]
        )
    return scores


def per_class(
    probabilities: Tensor,
    labels: Tensor,
    thresholds: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score every class by itself.

    Args:
        probabilities: Predicted probabilities, float (S, K).
        labels: True labels, 0 or 1, (S, K).
        thresholds: A tuned threshold for every class (K,), 0.5 if None.
        names: K class names, the class numbers if None.

    Returns:
        K rows named by class: ``support`` (positive samples), ``AP``, ``F1`` (at 0.5),
        ``threshold`` and ``F1_tuned`` (at it). A class without positives has NaN.

    Raises:
        ValueError: If shapes or values are not as described, or there is no sample.
    """
    probabilities, labels = _checked(probabilities, labels)
    num_classes = labels.shape[1]
    if thresholds is None:
        thresholds = torch.full((num_classes,), DEFAULT_THRESHOLD)
    cuts = _one_a_class(thresholds, num_classes).to(probabilities)
    if names is not None and len(names) != num_classes:
        raise ValueError(f'{len(names)} class names for {num_classes} classes.')
    rows = []
    for k in range(num_classes):
        score, truth = probabilities[:, k], labels[:, k]
        rows.append(
            {
                'support': int(truth.sum()),
                'AP': average_precision(score, truth),
                'F1': f1_score((score > DEFAULT_THRESHOLD).long(), truth),
                'threshold': float(cuts[k]),
                'F1_tuned': f1_score((score > cuts[k]).long(), truth),
            }
        )
    index = pd.Index(range(num_classes) if names is None else names, name='class')
    return pd.DataFrame(rows, index=index)


def tune_thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Find for each class the threshold with the highest F1.

    To be run on validation predictions. How ties are resolved is said in
    :func:`~torchgeo_channelmae.evaluation.binary.best_threshold`.

    Args:
        probabilities: Predicted probabilities, float (S, K).
        labels: True labels, 0 or 1, (S, K).

    Returns:
        Thresholds (K,), float32 or wider; 0.5 for a class without positives.

    Raises:
        ValueError: If shapes or values are not as described, or there is no sample.
    """
    probabilities, labels = _checked(probabilities, labels)
    return torch.stack(list(map(best_threshold, probabilities.T, labels.T)))


def subsets(num_samples: int, groups: int, seeds: Sequence[int]) -> list[Tensor]:
    """Cut a set at random into groups, once for each seed.

    The protocol of five groups by three seeds gives 15 parts. A cut depends on nothing
    but its seed and the two counts.

    Args:
        num_samples: Size S of the set.
        groups: Number of groups in a cut; their sizes differ by one at most.
        seeds: One seed for each cut.

    Returns:
        ``groups * len(seeds)`` sorted index tensors, int64, cut by cut. Within a cut
        every sample is in exactly one of them.

    Raises:
        ValueError: If a group would be empty, or a seed is given twice or none is.
    """
    if not 1 <= groups <= num_samples:
        raise ValueError(
            f'Cannot cut {num_samples} samples into {groups} groups: '
            f'choose from 1 to {num_samples} groups.'
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f'Seeds of the random groups are {list(seeds)}: give one or more, each '
            'once, as equal seeds make equal groups.'
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
    """Compute everything that a test reports, without the stage's prefix.

    The random groups are cut by position: :class:`PredictionStore` sorts by index.

    Args:
        probabilities: Predicted probabilities, float (S, K).
        labels: True labels, 0 or 1, (S, K).
        thresholds: Thresholds (K,) tuned on other samples; without, no ``_tuned`` F1.
        groups: Number of random groups the set is cut into.
        seeds: One seed for each cut.
        class_frequencies: Share of training samples with each class, (K,) in [0, 1];
            without, no floor.

    Returns:
        The scores of :func:`multilabel_scores` on the whole set; each with ``_mean``
        and ``_std`` (sample standard deviation) over the groups of all cuts, of which
        those without any positive label are left out (NaN where too few remain);
        ``floor_*``, the scores of predicting the class frequencies for every sample,
        ``floor_F1_micro_best`` being at the best single threshold in hindsight; and
        the counts ``num_classes`` (of the macro mean) and ``num_samples``.

    Raises:
        ValueError: If shapes or values are not as described, there is no sample, or
            there are more groups than samples.
    """
    probabilities, labels = _checked(probabilities, labels)
    num_samples, num_classes = labels.shape
    cuts = DEFAULT_THRESHOLD if thresholds is None else thresholds
    classes = labels.any(dim=0)
    result = multilabel_scores(probabilities, labels, cuts, classes)

    parts = [
        multilabel_scores(probabilities[part], labels[part], cuts, classes)
        for part in subsets(num_samples, groups, seeds)
    ]
    for key in tuple(result):
        result[f'{key}_mean'], result[f'{key}_std'] = _mean_and_std(
            [part[key] for part in parts]
        )

    if class_frequencies is not None:
        constant = _one_a_class(class_frequencies, num_classes).to(probabilities)
        constant = constant.expand(num_samples, num_classes)
        floor = multilabel_scores(constant, labels, classes=classes)
        constant, truth = _checked(constant, labels)
        best = best_threshold(constant.flatten(), truth.flatten())
        floor['F1_micro_best'] = f1_score((constant > best).long(), truth)
        result |= {f'floor_{key}': value for key, value in floor.items()}

    result['num_classes'] = float(classes.sum())
    result['num_samples'] = float(num_samples)
    return result


def _checked(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return float (S, K) probabilities and int64 labels, or say what is wrong."""
    if probabilities.ndim != 2 or probabilities.shape != labels.shape:
        raise ValueError(
            'Probabilities and labels must both be (samples, classes), but are '
            f'{tuple(probabilities.shape)} and {tuple(labels.shape)}.'
        )
    if not labels.numel():
        raise ValueError('There are no predictions to score: the set is empty.')
    if not probabilities.is_floating_point():
        raise ValueError(f'Probabilities must be float, not {probabilities.dtype}.')
    bad = int((~probabilities.isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(
            f'Predictions of {bad} of {len(labels)} samples are NaN or infinite: '
            'the training diverged or the input holds such values.'
        )
    if bool((probabilities < 0).any() | (probabilities > 1).any()):
        raise ValueError(
            f'Probabilities must be in [0, 1], but reach from {probabilities.min():g} '
            f'to {probabilities.max():g}: apply a sigmoid to logits.'
        )
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError('Multi-label targets must be 0 or 1.')
    if probabilities.dtype in (torch.float16, torch.bfloat16):
        probabilities = probabilities.float()
    return probabilities, labels.long()


def _one_a_class(values: Tensor, num_classes: int) -> Tensor:
    if values.shape != (num_classes,):
        raise ValueError(
            f'Expected one value for each of {num_classes} classes, '
            f'got a tensor of shape {tuple(values.shape)}.'
        )
    return values


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    known = torch.tensor(
        [value for value in values if not math.isnan(value)], dtype=torch.float64
    )
    mean = float(known.mean()) if len(known) else math.nan
    std = float(known.std(correction=1)) if len(known) > 1 else math.nan
    return mean, std
