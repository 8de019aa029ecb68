"""Scores of bootstrap replicates of a test set, drawn by clusters of patches.

A replicate counts each cluster as often as it was drawn. So a score is computed from
counts per cluster, and predictions are sorted once, not once per replicate. Definitions
are those of :func:`~torchgeo_channelmae.evaluation.metrics.multilabel_scores`.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..evaluation.metrics import DEFAULT_THRESHOLD
from .predictions import Predictions

Floats = npt.NDArray[np.float64]
SCORES = (
    'mAP_micro',
    'mAP_macro',
    'F1_micro',
    'F1_macro',
    'F1_micro_tuned',
    'F1_macro_tuned',
)

#: Distinct scores in replicates; beyond, neighbors are merged. With 120,000 patches
#: that moves an average precision by up to 0.002, of a rare class by 0.02.
MAX_DISTINCT = 8192
_CHUNK = 128  # replicates at a time


def replicate_scores(
    run: Predictions,
    clusters: npt.NDArray[np.integer],
    counts: Floats,
    max_distinct: int = MAX_DISTINCT,
) -> dict[str, Floats]:
    """Score every replicate of a test set.

    Args:
        run: Predictions for S patches.
        clusters: (S,) number of each patch's cluster.
        counts: (clusters, R), how often each cluster is in each replicate.
        max_distinct: See :func:`average_precisions`.

    Returns:
        For each of :data:`SCORES` (R,) values; NaN for replicates without a positive
        label.
    """
    labels, probabilities = run.labels, run.probabilities
    drawn, count = (counts, max_distinct), labels.shape[1]
    micro = average_precisions(
        probabilities.ravel(), labels.ravel(), clusters.repeat(count), *drawn
    )
    by_class = [
        average_precisions(probabilities[:, k], labels[:, k], clusters, *drawn)
        for k in range(count)
    ]
    found = [micro, _nanmean(np.stack(by_class, axis=1))]
    ones, patches = np.ones(len(clusters)), np.arange(len(clusters))
    member = sparse.csr_matrix((ones, (clusters, patches)), (len(counts), len(labels)))
    for cut in (DEFAULT_THRESHOLD, run.thresholds):
        predicted = probabilities > cut
        outcomes = (predicted & labels, ~predicted & labels, predicted & ~labels)
        parts = [
            counts.T @ (member @ each.astype(float)) for each in outcomes
        ]  # (R, K)
        found.append(_f1(*(part.sum(axis=1) for part in parts)))
        found.append(_nanmean(_f1(*parts)))
    return dict(zip(SCORES, found, strict=True))


def average_precisions(
    scores: Floats,
    labels: npt.NDArray[np.bool_],
    clusters: npt.NDArray[np.integer],
    counts: Floats,
    max_distinct: int = MAX_DISTINCT,
) -> Floats:
    """Average precision of a ranking in every replicate, without interpolation.

    Equal scores are one threshold, as in scikit-learn.

    Args:
        scores: (n,) by which samples are ranked.
        labels: (n,) whether a sample is positive.
        clusters: (n,) number of the cluster of a sample.
        counts: (clusters, R).
        max_distinct: Distinct scores; beyond, neighbors are merged.

    Returns:
        (R,) values, NaN without positives.
    """
    distinct, ranks = np.unique(-scores, return_inverse=True)
    if len(distinct) > max_distinct:
        ranks = ranks * max_distinct // len(distinct)
    shape = (int(ranks.max()) + 1, len(counts))
    everything, positives = (
        sparse.csr_matrix((weights, (ranks, clusters)), shape=shape)
        for weights in (np.ones(len(ranks)), labels.astype(float))
    )
    parts = []
    for start in range(0, counts.shape[1], _CHUNK):
        part = counts[:, start : start + _CHUNK]
        gained = positives @ part  # (thresholds, replicates)
        hits = gained.cumsum(axis=0)
        ranked = (everything @ part).cumsum(axis=0)
        precision = np.divide(hits, ranked, out=np.zeros_like(hits), where=ranked > 0)
        parts.append(_ratio((gained * precision).sum(axis=0), hits[-1], hits[-1]))
    return np.concatenate(parts)


def _f1(hits: Floats, missed: Floats, wrong: Floats) -> Floats:
    return _ratio(2 * hits, 2 * hits + missed + wrong, hits + missed)


def _nanmean(values: Floats) -> Floats:
    """Mean over the classes (columns) that are known, NaN if none is."""
    known = np.isfinite(values).sum(axis=1)
    return _ratio(np.nansum(values, axis=1), known, known)


def _ratio(
    one: Floats, other: npt.NDArray[np.number], positive: npt.NDArray[np.number]
) -> Floats:
    """Quotient where the last argument is above 0, else NaN."""
    found: Floats = np.divide(
        one, other, out=np.full(one.shape, np.nan), where=positive > 0
    )
    return found
