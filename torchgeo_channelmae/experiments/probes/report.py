"""Tables of probes, as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

_COLUMNS = {
    'mAP_micro': 'mAP micro',
    'mAP_macro': 'mAP macro',
    'F1_micro': 'F1 micro',
    'F1_macro': 'F1 macro',
    'F1_micro_tuned': 'F1 micro, tuned',
}
_FEW = 1000  # samples scored


def write_probe(
    out: Path,
    table: pd.DataFrame,
    note: str | None,
    about: str,
    neighbors: int,
    seconds: tuple[float, float],
) -> str:
    """Write ``probe.csv`` and ``probe.md`` into a new folder.

    Args:
        out: The folder.
        table: A row for chance and one an encoder, depth and probe.
        note: What a reader of scores on these data has to know first.
        about: What the data and the features are.
        neighbors: Neighbours that vote.
        seconds: Until features were there, and in all.

    Returns:
        The page.
    """
    text = probe_page(table, note, about, neighbors, seconds)
    out.mkdir(parents=True)
    table.to_csv(out / 'probe.csv', index=False, float_format='%.6f')
    (out / 'probe.md').write_text(text)
    return text


def probe_page(
    table: pd.DataFrame,
    note: str | None,
    about: str,
    neighbors: int,
    seconds: tuple[float, float],
) -> str:
    """Return the Markdown page, see :func:`write_probe`."""
    lines = ['# What frozen features tell of labels', '']
    if note:
        lines += [f'**{note}**', '']
    lines += [about, '']
    depths = [depth for depth in table['depth'].unique() if depth]
    head = ['encoder', *(['depth'] if len(depths) > 1 else []), 'probe']
    columns = {name: title for name, title in _COLUMNS.items() if name in table}
    lines += [
        f'| {" | ".join([*head, *columns.values()])} |',
        '| -- ' * len(head) + '| --: ' * len(columns) + '|',
    ]
    titles = {'knn': f'{neighbors} neighbours', 'linear': 'linear', '': ''}
    for row in table.to_dict('records'):
        words = [
            'chance: class frequencies'
            if row['encoder'] == 'chance'
            else row['encoder'],
            *([row['depth']] if len(depths) > 1 else []),
            titles[row['probe']],
        ]
        cells = [percent(row, name) for name in columns]
        lines.append(f'| {" | ".join([*words, *cells])} |')
    lines += ['', _reading(table), '']
    lines.append(
        f'{seconds[1]:.0f} s in all, {seconds[0]:.0f} s of them until features were '
        f'there.'
    )
    return '\n'.join(lines) + '\n'


def percent(row: Mapping[Any, Any], name: str) -> str:
    """Return a score in percent, with its std over random groups where known."""
    value, spread = row.get(name), row.get(f'{name}_std')
    if value is None or pd.isna(value):
        return ''
    text = f'{100 * value:.1f}'
    return text if spread is None or pd.isna(spread) else f'{text} ± {100 * spread:.1f}'


def _reading(table: pd.DataFrame) -> str:
    scored = int(table['test' if 'test' in table else 'val'].iloc[0])
    text = (
        'In percent; ±: standard deviation over random groups of the samples scored, '
        'not over trainings. What pretraining taught is what an encoder has over the '
        'untrained one, not over chance.'
    )
    if 'F1_micro_tuned' in table:
        text += ' F1 at 0.5; tuned: each class at its best threshold where C is chosen.'
    if scored < _FEW:
        text += (
            f' With {scored:,} samples scored, differences of a few percent are noise.'
        )
    return text
