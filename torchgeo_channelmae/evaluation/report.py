"""Files that a test and a prediction leave behind, and the summary a reader sees."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from ..provenance.overlap import Overlap, Verdict, label_free
from ..provenance.record import DataRecord, Training

_COLUMNS = ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')


def score_report(
    scores: Mapping[str, float],
    classes: pd.DataFrame,
    groups: int,
    seeds: Sequence[int],
    note: str | None = None,
    verdict: Verdict | None = None,
    countries: pd.DataFrame | None = None,
) -> str:
    """Summarise the scores of a test in Markdown.

    Args:
        scores: What :func:`~torchgeo_channelmae.evaluation.metrics.evaluate` returned.
        classes: What :func:`~torchgeo_channelmae.evaluation.metrics.per_class` returned.
        groups: Number of random groups of the test set.
        seeds: Seeds of the groups.
        note: What the reader has to know before reading on.
        verdict: What the test shares with pretraining.
        countries: What :func:`per_country` returned.

    Returns:
        Tables of scores in percent, what they mean, and what was read before.
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
        *(() if verdict is None else overlap_table(verdict)),
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
    if countries is not None and len(countries):
        lines += ['', *_country_lines(countries)]
    return '\n'.join(lines) + '\n'


def _country_lines(countries: pd.DataFrame) -> list[str]:
    names = [name for name in countries.columns if name != 'patches']
    lines = [
        '| country | patches | ' + ' | '.join(names) + ' |',
        '| -- ' + '| --: ' * (len(names) + 1) + '|',
    ]
    for country, values in countries.iterrows():
        cells = ' | '.join(_percent(values[name]) for name in names)
        lines.append(f'| {country} | {int(values["patches"])} | {cells} |')
    return lines


def overlap_table(verdict: Verdict) -> list[str]:
    """Say in Markdown what a test shares with pretraining, claim by claim, and why."""
    rows = (
        ('sensor_free', verdict.sensor_free, _why_sensors(verdict)),
        ('place_free', verdict.place_free, _why_places(verdict)),
        ('label_free', verdict.label_free, _why_labels(verdict)),
        (
            'overlap_free',
            verdict.overlap_free,
            'of sensors alone, as the word is meant here; of places and labels, see '
            'above',
        ),
    )
    return [
        '| is the test free of what pretraining read? | | |',
        '| -- | -- | -- |',
        *(f'| {name} | **{_answer(value)}** | {why} |' for name, value, why in rows),
        '',
        f'{_before(verdict)} Test patches that pretraining read: '
        f'{_counted(verdict.patches)}. Test patches whose labels were trained on: '
        f'{_counted(verdict.trained)}.',
        '',
    ]


def overlap_line(verdict: Verdict) -> str:
    """Say in a line what a task shares with pretraining, as far as training tells."""
    if not verdict.pretraining:
        return _before(verdict)
    answers = ', '.join(
        f'{name} {_answer(getattr(verdict, name))}'
        for name in ('sensor_free', 'label_free', 'overlap_free')
    )
    return (
        f'{_before(verdict)} This task reads {_targets(verdict)}: {answers} (of '
        f'sensors alone); place_free is for a test to tell.'
    )


def _answer(value: bool | None) -> str:
    return {True: 'yes', False: 'no', None: 'unknown'}[value]


def _before(verdict: Verdict) -> str:
    if not verdict.pretraining:
        return 'Nothing was pretrained: the weights started from scratch.'
    listed = ', then '.join(_described(one) for one in verdict.pretraining)
    return f'Pretraining read {listed}.'


def _described(training: Training) -> str:
    """Say what a training read, e.g. ``So2Sat (Sentinel-2 L1C: B02; ...)``."""
    record = training.record
    used = {True: 'without labels', False: 'with labels', None: 'labels unknown'}
    labels = used[label_free([training])]
    if record is None:
        return f'data that are not known ({labels})'
    parts = (
        f'{", ".join(record.sensors)}: {", ".join(record.bands)}',
        _patches(record),
        'unknown tiles'
        if record.tiles is None
        else _plural(len(record.tiles), 'tile', 'tiles'),
        labels,
    )
    return f'{record.dataset} ({"; ".join(parts)})'


def _patches(record: DataRecord) -> str:
    """Say how many patches: each is recorded by all its names, of one kind or more."""
    if record.patches is None:
        return 'unknown patches'
    count, rest = divmod(len(record.patches), len(record.name_spaces) or 1)
    if rest:
        return f'patches of {len(record.patches):,} names'
    return _plural(count, 'patch', 'patches')


def _plural(count: int, one: str, more: str) -> str:
    return f'{count:,} {one if count == 1 else more}'


def _why_sensors(verdict: Verdict) -> str:
    records = [training.record for training in verdict.pretraining]
    read = sorted({name for record in records if record for name in record.sensors})
    read += ['data that are not known'] * (None in records)
    return (
        f'the test reads {_targets(verdict)}, pretraining read '
        f'{", ".join(read) or "nothing"}'
    )


def _targets(verdict: Verdict) -> str:
    known = [name for name in verdict.targets if name != 'unknown']
    complete = known and len(known) == len(verdict.targets)
    return ', '.join(known if complete else [*known, 'data that are not known'])


def _why_places(verdict: Verdict) -> str:
    if not verdict.pretraining:
        return 'pretraining read nothing'
    return (
        f'test patches on MGRS tiles that pretraining read: {_counted(verdict.places)}'
    )


def _why_labels(verdict: Verdict) -> str:
    return {
        True: 'pretraining neither learned labels nor was sampled by them',
        False: 'pretraining learned labels or was sampled by them',
        None: 'whether pretraining used labels is not known',
    }[verdict.label_free]


def _counted(overlap: Overlap | None) -> str:
    """Say how many of the test patches, e.g. ``3 of 21 (14.29 %)``."""
    if overlap is None:
        return 'unknown'
    if not overlap.total:
        return 'none'
    share = 100 * overlap.shared / overlap.total
    counted = f'{overlap.shared} of {overlap.total} ({share:.2f} %)'
    if not overlap.unknown:
        return counted
    if overlap.unknown == overlap.total:
        return 'unknown'
    return f'at least {counted}, unknown of {overlap.unknown}'


def _percent(value: float | None) -> str:
    return '-' if value is None or pd.isna(value) else f'{100 * value:.2f}'


def write_report(
    folder: str | Path | None,
    report: str,
    classes: pd.DataFrame,
    countries: pd.DataFrame,
    patches: pd.DataFrame,
) -> None:
    """Write a test's report and tables, moving older ones aside.

    Args:
        folder: Where to.
        report: For ``scores.md``.
        classes: For ``per_class.csv``.
        countries: For ``per_country.csv``, not written without rows.
        patches: For ``patches.csv``.
    """
    home = _home(folder)
    _fresh(home / 'scores.md').write_text(report)
    classes.to_csv(_fresh(home / 'per_class.csv'))
    if len(countries):
        countries.to_csv(_fresh(home / 'per_country.csv'))
    patches.to_csv(_fresh(home / 'patches.csv'), index=False)


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
