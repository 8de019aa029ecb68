"""The files that a test and a prediction write."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ..files import move_aside, whole
from ..provenance.overlap import CLAIMS, Overlap, Verdict, label_free
from ..provenance.record import Training
from .metrics import DEFAULT_THRESHOLD, multilabel_scores

_COLUMNS = ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')
_ROWS = {
    'whole test set': '{}',
    'at tuned thresholds': '{}_tuned',
    'mean over subsets': '{}_mean',
    'std over subsets': '{}_std',
    'floor: class frequencies': 'floor_{}',
}
_LABELS = {True: 'without labels', False: 'with labels', None: 'labels unknown'}
_LABEL_REASONS = {
    True: 'pretraining neither learned labels nor was sampled by them',
    False: 'pretraining learned labels or was sampled by them',
    None: 'whether pretraining used labels is unknown',
}


def per_country(
    probabilities: Tensor,
    labels: Tensor,
    thresholds: Tensor | None,
    countries: Sequence[str],
) -> pd.DataFrame:
    """Score each known country, in alphabetical order.

    The columns are ``patches`` and the scores of
    :func:`~torchgeo_channelmae.evaluation.metrics.multilabel_scores`. `countries` has S
    names, '' where unknown. Without thresholds there is no ``_tuned`` F1.
    """
    cuts = DEFAULT_THRESHOLD if thresholds is None else thresholds
    rows = {}
    for country in sorted(set(countries) - {''}):
        chosen = torch.tensor([name == country for name in countries])
        scores = multilabel_scores(probabilities[chosen], labels[chosen], cuts)
        rows[country] = {'patches': int(chosen.sum()), **scores}
    return pd.DataFrame.from_dict(rows, orient='index').rename_axis('country')


def patch_table(
    patch_ids: Sequence[str],
    labels: Tensor,
    names: Sequence[str],
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """List the origin and labels of every test patch, S rows.

    The columns are ``patch_id``, ``tile``, ``acquisition`` and ``country`` (of `known`,
    by patch id; '' where unknown), then one per class.
    """
    index = pd.Index(list(patch_ids), name='patch_id')
    origin = pd.DataFrame(known, index, ['tile', 'acquisition', 'country']).fillna('')
    table = pd.DataFrame(labels.long().numpy(), columns=list(names))
    return origin.reset_index().join(table)


def score_report(
    scores: Mapping[str, float],
    classes: pd.DataFrame,
    groups: int,
    seeds: Sequence[int],
    note: str | None = None,
    verdict: Verdict | None = None,
    countries: pd.DataFrame | None = None,
) -> str:
    """Summarize the scores of a test in Markdown.

    Takes the results of :func:`~torchgeo_channelmae.evaluation.metrics.evaluate`,
    :func:`~torchgeo_channelmae.evaluation.metrics.per_class` and :func:`per_country`,
    with the number ``val_patches`` that tuned thresholds if known, and a `note` to
    print above the scores.
    """
    rows = [
        [title, *(scores.get(pattern.format(name), '') for name in _COLUMNS)]
        for title, pattern in _ROWS.items()
        if pattern.format('F1_micro') in scores
    ]
    summary = pd.DataFrame(rows, columns=['in percent', *_COLUMNS])
    table = classes.assign(threshold=classes['threshold'].map('{:.3f}'.format))
    if 'F1_micro_tuned' not in scores:
        table[['F1_tuned', 'threshold']] = ''
    table = table[['support', 'AP', 'F1', 'F1_tuned', 'threshold']].reset_index()
    table.columns = ['class', 'support', 'AP', 'F1 at 0.5', 'F1 tuned', 'threshold']
    tuned = scores.get('val_patches')
    parts = [
        '# Test scores',
        f'**{note}**' if note else '',
        _markdown(summary),
        f'{int(scores["num_samples"])} patches; macro over the '
        f'{int(scores["num_classes"])} classes that occur among them. Subsets: the '
        f'test set split at random into {groups} groups with the seeds '
        f'{", ".join(map(str, seeds))} ({groups * len(seeds)} subsets); the standard '
        f'deviation is over the subsets, not over trainings.',
        f'Thresholds were tuned on {tuned:.0f} validation patches.' if tuned else '',
        '' if verdict is None else overlap_table(verdict),
        _markdown(table),
    ]
    if countries is not None and len(countries):
        parts.append(_markdown(countries.reset_index(names='country')))
    return '\n\n'.join(part for part in parts if part) + '\n'


def overlap_table(verdict: Verdict) -> str:
    """Describe in Markdown what a test shares with pretraining, claim by claim."""
    sources = _sensors(n for one in verdict.pretraining for n in one.data.sensors)
    reasons = (
        f'the test reads {_sensors(verdict.targets)}, pretraining read {sources}',
        f'test patches on MGRS tiles that pretraining read: {_counted(verdict.places)}',
        _LABEL_REASONS[verdict.label_free],
        'of sensors only; for places and labels see above',
    )
    answers = [f'**{_answer(verdict, name)}**' for name in CLAIMS]
    head = 'is the test free of what pretraining read?'
    claims = pd.DataFrame({head: CLAIMS, '': answers, ' ': reasons})
    return (
        f'{_markdown(claims)}\n\n{_history(verdict)} Test patches that pretraining '
        f'read: {_counted(verdict.patches)}. Test patches whose labels were trained '
        f'on: {_counted(verdict.trained)}.'
    )


def overlap_line(verdict: Verdict) -> str:
    """Describe in one line what a task shares with pretraining, before any test."""
    if not verdict.pretraining:
        return _history(verdict)
    claims = [name for name in CLAIMS if name != 'place_free']
    answers = ', '.join(f'{name} {_answer(verdict, name)}' for name in claims)
    return (
        f'{_history(verdict)} This task reads {_sensors(verdict.targets)}: {answers} '
        f'(of sensors only). A test reports place_free.'
    )


def write_files(folder: str | Path | None, files: Mapping[str, str]) -> None:
    """Write text files, moving older ones of the same names aside."""
    for name, text in files.items():
        path = Path(folder or '.') / name
        move_aside(path)
        with whole(path) as part:
            part.write_text(text)


def predictions_csv(
    patch_ids: Sequence[str], probabilities: Tensor, names: Sequence[str]
) -> str:
    """Format predictions: one row per patch, its id and one probability per class.

    Nine digits give the same float32 values back.
    """
    index = pd.Index(list(patch_ids), name='patch_id')
    table = pd.DataFrame(probabilities.numpy(), index, list(names))
    return str(table.to_csv(float_format='%.9g'))


def _markdown(table: pd.DataFrame) -> str:
    """Format a table with its fractions in percent."""
    table = table.map(lambda x: f'{100 * x:.2f}' if isinstance(x, float) else str(x))
    table = table.replace('nan', '-')
    return str(table.to_markdown(index=False, disable_numparse=True, stralign=None))


def _answer(verdict: Verdict, claim: str) -> str:
    return {True: 'yes', False: 'no', None: 'unknown'}[getattr(verdict, claim)]


def _sensors(names: Iterable[str]) -> str:
    """List sensors, with unknown data last."""
    found = sorted(set(names), key=lambda name: (name == 'unknown', name))
    return ', '.join(found).replace('unknown', 'unknown data') or 'nothing'


def _history(verdict: Verdict) -> str:
    """Describe what each pretraining read, e.g. ``Pretraining read So2Sat (...).``."""
    if not verdict.pretraining:
        return 'Nothing was pretrained: the weights started from scratch.'
    return f'Pretraining read {", then ".join(map(_described, verdict.pretraining))}.'


def _described(training: Training) -> str:
    data, labels = training.data, _LABELS[label_free([training])]
    if training.record is None:
        return f'unknown data ({labels})'
    hashes = max(1, len(data.name_spaces))  # per patch, one per kind of name
    patches = 'unknown' if data.patches is None else f'{len(data.patches) // hashes:,}'
    tiles = 'unknown' if data.tiles is None else f'{len(data.tiles):,}'
    return (
        f'{data.dataset} ({", ".join(data.sensors)}: {", ".join(data.bands)}; '
        f'patches: {patches}; tiles: {tiles}; {labels})'
    )


def _counted(overlap: Overlap | None) -> str:
    """Format how many of the test patches, e.g. ``3 of 21 (14.29 %)``."""
    if overlap is None or 0 < overlap.unknown == overlap.total:
        return 'unknown'
    if not overlap.total:
        return 'none'
    share = 100 * overlap.shared / overlap.total
    counted = f'{overlap.shared} of {overlap.total} ({share:.2f} %)'
    if overlap.unknown:
        return f'at least {counted}, unknown of {overlap.unknown}'
    return counted
