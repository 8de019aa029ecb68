"""Scores of one class, or of all classes pooled."""

import math

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_f1_score,
)

DEFAULT_THRESHOLD = 0.5


def average_precision(probabilities: Tensor, labels: Tensor) -> float:
    """Return the average precision over all elements, NaN without a positive.

    Args:
        probabilities: Finite floats in [0, 1], of any shape.
        labels: 0 or 1, int64, of the same shape.
    """
    if not labels.any():
        return math.nan
    score = binary_average_precision(
        probabilities.flatten(), labels.flatten(), validate_args=False
    )
    return float(score)


def f1_score(predicted: Tensor, labels: Tensor) -> float:
    """Return F1 over all elements, NaN without a positive.

    Args:
        predicted: 0 or 1, integer, of any shape.
        labels: 0 or 1, int64, of the same shape.
    """
    if not labels.any():
        return math.nan
    return float(
        binary_f1_score(predicted.flatten(), labels.flatten(), validate_args=False)
    )


def best_threshold(scores: Tensor, labels: Tensor) -> Tensor:
    """Find the threshold with the highest F1, exactly.

    Every cut between two neighbouring scores is tried, at its midpoint. Of cuts with
    an equal F1 the one nearest to 0.5 is taken, then the lower one.

    Args:
        scores: Finite floats in [0, 1], (S,).
        labels: 0 or 1, int64, (S,).

    Returns:
        A 0-d tensor; scores above it are predicted. 0.5 without a positive.
    """
    positives = labels.sum()
    if not positives:
        return scores.new_tensor(DEFAULT_THRESHOLD)
    values, group = scores.unique(sorted=True, return_inverse=True)  # (V,), (S,)
    size = torch.bincount(group, minlength=len(values))
    hits = torch.zeros_like(size).index_add_(0, group, labels)
    # Cut v predicts the scores from value v up.
    predicted = size.flip(0).cumsum(0).flip(0)
    hits = hits.flip(0).cumsum(0).flip(0)
    f1 = 2 * hits.double() / (predicted + positives)

    # The neighbour below the lowest score is 0, or -1 below a score of 0.
    below = torch.cat([-(values[:1] == 0).to(values), values[:-1]])
    middle = below + (values - below) / 2
    cuts = torch.where(middle < values, middle, below)  # neighbouring floats
    best = (f1 == f1.max()).nonzero().flatten()
    return cuts[best[(cuts[best] - DEFAULT_THRESHOLD).abs().argmin()]]
