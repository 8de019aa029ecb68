"""What a test tells country by country and patch by patch."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from .binary import DEFAULT_THRESHOLD
from .metrics import multilabel_scores


def per_country(
    probabilities: Tensor,
    labels: Tensor,
    thresholds: Tensor | None,
    countries: Sequence[str],
) -> pd.DataFrame:
    """Score every country by itself.

    Args:
        probabilities: (S, K).
        labels: (S, K), 0 or 1.
        thresholds: A tuned threshold for every class (K,); without, no ``_tuned`` F1.
        countries: S names, '' where unknown.

    Returns:
        A row a country, in alphabetical order: ``patches`` and the scores of
        :func:`~torchgeo_channelmae.evaluation.metrics.multilabel_scores`, the macro ones over the
        classes that occur there. No rows where no country is known.
    """
    names = pd.Series(list(countries))
    rows = {}
    for country in sorted(set(names) - {''}):
        chosen = torch.from_numpy((names == country).to_numpy().nonzero()[0])
        cuts = DEFAULT_THRESHOLD if thresholds is None else thresholds
        scores = multilabel_scores(probabilities[chosen], labels[chosen], cuts)
        rows[country] = {'patches': len(chosen), **scores}
    return pd.DataFrame.from_dict(rows, orient='index').rename_axis('country')


def patch_table(
    patch_ids: Sequence[str],
    labels: Tensor,
    names: Sequence[str],
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Tell of every test patch where it is from and what its labels are.

    Args:
        patch_ids: S names.
        labels: (S, K), 0 or 1.
        names: K class names.
        known: ``acquisition`` and ``country`` by patch id; None where nothing is known.

    Returns:
        S rows: ``patch_id``, ``acquisition`` and ``country`` ('' where unknown), then
        one column a class.
    """
    table = pd.DataFrame({'patch_id': list(patch_ids)})
    for column in ('acquisition', 'country'):
        told = {} if known is None else known[column].to_dict()
        table[column] = [told.get(patch, '') for patch in table['patch_id']]
    return table.join(pd.DataFrame(labels.long().numpy(), columns=list(names)))
