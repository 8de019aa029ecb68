"""Files that a test and a prediction leave behind, and the summary a reader sees."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

_COLUMNS = ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')


def score_report(
    scores: Mapping[str, float],
    classes: pd.DataFrame,
    groups: int,
    seeds: Sequence[int],
    note: str | None = None,
) -> str:
    """Summarise the scores of a test in Markdown.

    Args:
        scores: What :func:`~torchgeo_channelmae.metrics.evaluate` returned.
        classes: What :func:`~torchgeo_channelmae.metrics.per_class` returned.
        groups: Number of random groups of the test set.
        seeds: Seeds of the groups.
        note: What the reader has to know before reading on.

    Returns:
        Two tables, of scores in percent, and what they mean.
    """
    lines = ['# Test scores', '']
    if note:
        lines += [f'**{note}**', '']
    lines += ['| in percent | ' + ' | '.join(_COLUMNS) + ' |', '| -- ' * 5 + '|']

    def row(title: str, pattern: str, only: Sequence[str] = _COLUMNS) -> None:
        cells = [
            _percent(scores.get(pattern.format(name))) if name in only else ''
            for name in _COLUMNS
        ]
        lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')

    tuned = 'F1_micro_tuned' in scores
    row('whole test set', '{}')
    if tuned:
        row('at tuned thresholds', '{}_tuned', _COLUMNS[2:])
    row('mean over subsets', '{}_mean')
    row('std over subsets', '{}_std')
    if 'floor_mAP_micro' in scores:
        row('floor: class frequencies', 'floor_{}')
    lines += [
        '',
        f'{int(scores["num_samples"])} patches; macro over the '
        f'{int(scores["num_classes"])} classes that occur among them. Subsets: the '
        f'test set cut at random into {groups} groups with the seeds '
        f'{", ".join(map(str, seeds))} ({groups * len(seeds)} subsets); the standard '
        f'deviation is that of the subsets, not of training.',
        '',
        '| class | support | AP | F1 at 0.5 | F1 tuned | threshold |',
        '| -- | --: | --: | --: | --: | --: |',
    ]
    for name, values in classes.iterrows():
        tuned_cells = (
            (_percent(values['F1_tuned']), f'{values["threshold"]:.3f}')
            if tuned
            else ('', '')
        )
        cells = (_percent(values['AP']), _percent(values['F1']), *tuned_cells)
        lines.append(f'| {name} | {int(values["support"])} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _percent(value: float | None) -> str:
    return '-' if value is None or pd.isna(value) else f'{100 * value:.2f}'


def write_report(folder: str | Path | None, report: str, classes: pd.DataFrame) -> None:
    """Write ``scores.md`` and ``per_class.csv``, moving older ones aside."""
    home = _home(folder)
    _fresh(home / 'scores.md').write_text(report)
    classes.to_csv(_fresh(home / 'per_class.csv'))


def write_predictions(
    folder: str | Path | None,
    patch_ids: Sequence[str],
    probabilities: Tensor,
    names: Sequence[str],
) -> Path:
    """Write ``predictions.csv``, moving an older one aside.

    Args:
        folder: Where to.
        patch_ids: S names.
        probabilities: (S, K).
        names: K class names.

    Returns:
        The path: a row a patch, its id and one probability a class, digits enough to
        give the same scores again.
    """
    path = _fresh(_home(folder) / 'predictions.csv')
    table = pd.DataFrame(probabilities.numpy(), columns=list(names))
    table.insert(0, 'patch_id', list(patch_ids))
    table.to_csv(path, index=False, float_format='%.9g')
    return path


def _home(folder: str | Path | None) -> Path:
    home = Path(folder or '.')
    home.mkdir(parents=True, exist_ok=True)
    return home


def _fresh(path: Path) -> Path:
    """Move a file of that name aside, to the next number before its suffix."""
    number = 1
    while path.exists():
        older = path.with_name(f'{path.stem}.{number}{path.suffix}')
        if not older.exists():
            path.rename(older)
        number += 1
    return path
