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
SCORES = ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')
TUNED = ('F1_micro_tuned', 'F1_macro_tuned')

#: Distinct scores; beyond, neighbours are merged. With millions of predictions that
#: moves an average precision by less than 1e-4.
MAX_DISTINCT = 8192
_CHUNK = 128  # replicates at a time


def replicate_scores(
    run: Predictions, clusters: npt.NDArray[np.integer], counts: Floats
) -> dict[str, Floats]:
    """Score every replicate of a test set.

    Args:
        run: Predictions for S patches.
        clusters: (S,) number of each patch's cluster.
        counts: (clusters, R), how often each cluster is in each replicate.

    Returns:
        For each of :data:`SCORES`, and of :data:`TUNED` where thresholds were tuned,
        (R,) values; NaN for replicates without a positive label.
    """
    labels, probabilities = run.labels, run.probabilities
    num_classes = labels.shape[1]
    macro = labels.any(axis=0).nonzero()[0]
    repeated = np.repeat(clusters, num_classes)
    micro = average_precisions(probabilities.ravel(), labels.ravel(), repeated, counts)
    by_class = [
        average_precisions(probabilities[:, k], labels[:, k], clusters, counts)
        for k in macro
    ]
    found = {'mAP_micro': micro, 'mAP_macro': _mean_of_known(by_class, counts)}
    cuts = {'': np.full(num_classes, DEFAULT_THRESHOLD)}
    if run.thresholds is not None:
        cuts['_tuned'] = run.thresholds
    for suffix, cut in cuts.items():
        found |= _f1(probabilities > cut, labels, clusters, counts, macro, suffix)
    return found


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
        max_distinct: Distinct scores; beyond, neighbours are merged.

    Returns:
        (R,) values, NaN without positives.
    """
    distinct, ranks = np.unique(-scores, return_inverse=True)
    if len(distinct) > max_distinct:
        ranks = ranks * max_distinct // len(distinct)
    shape = (int(ranks.max()) + 1, len(counts))

    def table(chosen: npt.NDArray[np.bool_] | slice) -> sparse.csr_matrix:
        cells = (ranks[chosen], clusters[chosen])
        return sparse.csr_matrix((np.ones(len(cells[0])), cells), shape=shape)

    positives, everything = table(labels), table(slice(None))
    parts = []
    for start in range(0, counts.shape[1], _CHUNK):
        part = counts[:, start : start + _CHUNK]
        gained = positives @ part  # (thresholds, replicates)
        hits = gained.cumsum(axis=0)
        ranked = (everything @ part).cumsum(axis=0)
        precision = np.divide(hits, ranked, out=np.zeros_like(hits), where=ranked > 0)
        total = hits[-1]
        area = (gained * precision).sum(axis=0)
        parts.append(_ratio(area, total))
    return np.concatenate(parts)


def _f1(
    predicted: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.bool_],
    clusters: npt.NDArray[np.integer],
    counts: Floats,
    macro: npt.NDArray[np.integer],
    suffix: str,
) -> dict[str, Floats]:
    """Micro and macro F1 from true and false decisions of every cluster."""
    member = sparse.csr_matrix(
        (np.ones(len(clusters)), (clusters, np.arange(len(clusters)))),
        shape=(len(counts), len(clusters)),
    )
    hits, missed, wrong, positive = (
        counts.T @ (member @ part.astype(np.float64))  # (R, K)
        for part in (
            predicted & labels,
            ~predicted & labels,
            predicted & ~labels,
            labels,
        )
    )
    by_class = 2 * hits / np.maximum(2 * hits + missed + wrong, 1e-300)
    by_class[positive == 0] = np.nan
    together = [part.sum(axis=1) for part in (hits, missed, wrong)]
    micro = _ratio(2 * together[0], 2 * together[0] + together[1] + together[2])
    micro[positive.sum(axis=1) == 0] = np.nan
    columns = [by_class[:, k] for k in macro]
    return {
        f'F1_micro{suffix}': micro,
        f'F1_macro{suffix}': _mean_of_known(columns, counts),
    }


def _mean_of_known(columns: list[Floats], counts: Floats) -> Floats:
    """Mean over classes that have positives in a replicate."""
    if not columns:
        return np.full(counts.shape[1], np.nan)
    values = np.stack(columns)
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


def _ratio(one: Floats, other: npt.NDArray[np.number]) -> Floats:
    found: Floats = np.divide(
        one, other, out=np.full(one.shape, np.nan), where=other > 0
    )
    return found
