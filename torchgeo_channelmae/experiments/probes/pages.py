"""The pages of ``channelmae probe`` and ``channelmae why``."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...plotting import wrap
from .encoders import UNTRAINED

_SCORES = {
    'mAP_micro': 'mAP micro',
    'mAP_macro': 'mAP macro',
    'F1_micro': 'F1 micro',
    'F1_macro': 'F1 macro',
    'F1_micro_tuned': 'F1 micro, tuned',
}
_FEW = 1000  # scored samples

_COLOURS = ('#8a8a8a', '#1f5a92', '#b3541e', '#3d7a3a', '#7b4fa0', '#a08a1e')
_STYLES: tuple[dict[str, Any], ...] = (
    {'linestyle': '-', 'marker': 'o', 'markersize': 3},
    {'linestyle': '--', 'marker': 's', 'markersize': 3},
)
_READING = (
    'Probes: linear, mAP micro on samples they did not learn from. CKA (debiased): 1 '
    'if both sensors arrange the places alike, 0 if not at all. Neighbours: the share '
    "of a place's nearest places that both sensors agree on. Retrieval: how often a "
    "place's image of the other sensor is among the 10 most similar."
)


def probe_page(
    table: pd.DataFrame,
    note: str | None,
    about: str,
    neighbors: int,
    seconds: tuple[float, float],
) -> str:
    """Return the Markdown page of ``channelmae probe``.

    Args:
        table: One row for chance and one per encoder, depth and probe.
        note: A warning about scores on these data.
        about: What the data and the features are.
        neighbors: Number of neighbours that vote.
        seconds: Time until features were extracted, and in all.
    """
    scored = int(table['test' if 'test' in table else 'val'].iloc[0])
    columns = [name for name in _SCORES if name in table]
    titles = {'knn': f'{neighbors} neighbours', 'linear': 'linear', '': ''}
    shown = pd.DataFrame(
        {
            'encoder': table['encoder'].replace('chance', 'chance: class frequencies'),
            'depth': table['depth'],
            'probe': table['probe'].map(titles),
            **{
                _SCORES[name]: table.apply(_percent, args=(name,), axis=1)
                for name in columns
            },
        }
    )
    if table['depth'].nunique() <= 2:  # chance has none
        shown = shown.drop(columns='depth')
    reading = (
        'In percent; ±: standard deviation over random groups of the samples scored, '
        'not over trainings. What pretraining taught is what an encoder has over the '
        'untrained one, not over chance.'
    )
    if 'F1_micro_tuned' in table:
        reading += (
            ' F1 at 0.5; tuned: each class at its best threshold where C is chosen.'
        )
    if scored < _FEW:
        reading += (
            f' With {scored:,} samples scored, differences of a few percent are noise.'
        )
    parts = [
        '# How well frozen features predict labels',
        *([f'**{note}**'] if note else []),
        about,
        markdown(shown, len(columns)),
        reading,
        f'{seconds[1]:.0f} s in all, {seconds[0]:.0f} s of them for the features.',
    ]
    return '\n\n'.join(parts) + '\n'


def why_page(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    neighbors: int,
    about: str,
    note: str | None = None,
) -> str:
    """Return the Markdown page of ``channelmae why``.

    It has a row for chance, and for each encoder the depth where the sensors agree best
    and the last.

    Args:
        table: One row per encoder and depth.
        titles: Titles of the sensors ``first`` and ``second``.
        neighbors: Number of neighbours that were compared.
        about: What the data and the encoder are.
        note: A warning about scores on these data.
    """
    one, other = titles['first'], titles['second']
    rows = []
    for _, each in table.groupby('encoder', sort=False):
        known = each.dropna(subset='cka').sort_values('cka', kind='stable')
        rows += [known.iloc[-1:], each.iloc[-1:]]
    best = pd.concat(rows).drop_duplicates(['encoder', 'depth'])
    chance = table.iloc[:1].assign(encoder='chance', depth='')
    shown = pd.concat([chance, best])
    cka = [
        f'{cka:.3f} ({round(shuffled, 3) + 0.0:.3f})'
        for cka, shuffled in zip(best['cka'], best['cka_shuffled'], strict=True)
    ]
    columns = {
        f'shared of {neighbors} neighbours, %': ('overlap', 'overlap_chance'),
        f'{one} finds {other} in 10, %': (
            'recall10_first_to_second',
            'recall10_chance',
        ),
        f'{other} finds {one} in 10, %': (
            'recall10_second_to_first',
            'recall10_chance',
        ),
    }
    if 'first_linear_mAP_micro' in table:
        for sensor, title in titles.items():
            column = f'{sensor}_linear_mAP_micro', 'mAP_micro_chance'
            columns[f'probe {title}, mAP micro, %'] = column
    percents = {
        title: [
            f'{100 * value:.1f}' for value in [chance[level].iloc[0], *best[column]]
        ]
        for title, (column, level) in columns.items()
    }
    cells = {'encoder': shown['encoder'], 'depth': shown['depth']}
    cells |= {'CKA (shuffled)': ['0', *cka], **percents}
    parts = [
        f'# What {one} and {other} share in an encoder',
        *([f'**{note}**'] if note else []),
        about,
        '![all depths](why.png)',
        _READING,
        markdown(pd.DataFrame(cells), len(columns) + 1),
        'The depth of the highest CKA and the last depth of each encoder. What training '
        f'did is the difference to {UNTRAINED}; all depths are in why.csv.',
    ]
    return '\n\n'.join(parts) + '\n'


def markdown(table: pd.DataFrame, numbers: int) -> str:
    """Return a table of strings in Markdown, the last columns aligned right."""
    align = ['left'] * (table.shape[1] - numbers) + ['right'] * numbers
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)


def _percent(row: pd.Series, name: str) -> str:
    """Return a score in percent, with its std over random groups if there is one."""
    spread = row.get(f'{name}_std')
    text = f'{100 * row[name]:.1f}'
    return text if spread is None or pd.isna(spread) else f'{text} ± {100 * spread:.1f}'


def why_figure(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    neighbors: int,
    about: str,
    note: str | None = None,
) -> Figure:
    """Draw four panels over depth, one colour per encoder; arguments as the page's."""
    one, other = titles['first'], titles['second']
    figure = Figure(figsize=(10.5, 9), layout='constrained')
    head = [f'What {one} and {other} share in an encoder', *wrap(note or '', 10, 9)]
    style: dict[str, Any] = {'x': 0.01, 'ha': 'left', 'parse_math': False}
    figure.suptitle('\n'.join(head), weight='bold', fontsize=9, **style)
    foot = [line for text in (about, _READING) for line in wrap(text, 10, 8)]
    figure.supxlabel('\n'.join(foot), fontsize=8, **style)
    probed, cka, shared, retrieved = figure.subplots(2, 2).flat
    if 'first_linear_mAP_micro' in table:
        columns = {'first_linear_mAP_micro': one, 'second_linear_mAP_micro': other}
        _draw(probed, table, columns, 'mAP_micro_chance', 'linear probe, mAP micro, %')
    else:
        probed.text(0.5, 0.5, 'not probed', ha='center', transform=probed.transAxes)
        probed.set_axis_off()
    title = f'debiased linear CKA, {one} with {other}'
    _draw(cka, table, {'cka': ''}, None, title, scale=1)
    encoders = [
        Line2D([], [], color=colour, lw=3, label=encoder)
        for encoder, colour in zip(table['encoder'].unique(), cycle(_COLOURS))  # noqa: B905
    ]
    cka.legend(handles=encoders, fontsize=7)
    title = f'shared of {neighbors} nearest neighbours, %'
    _draw(shared, table, {'overlap': ''}, 'overlap_chance', title)
    columns = {
        'recall10_first_to_second': f'{one} finds {other}',
        'recall10_second_to_first': f'{other} finds {one}',
    }
    title = 'place found among 10 nearest, %'
    _draw(retrieved, table, columns, 'recall10_chance', title)
    return figure


def _draw(
    panel: Axes,
    table: pd.DataFrame,
    columns: Mapping[str, str],
    chance: str | None,
    label: str,
    scale: float = 100,
) -> None:
    """Draw columns over depth: one colour per encoder, one line style per column."""
    depths = list(table['depth'].unique())
    groups = table.groupby('encoder', sort=False)
    for (_, rows), colour in zip(groups, cycle(_COLOURS)):  # noqa: B905
        for column, style in zip(columns, _STYLES):  # noqa: B905
            panel.plot(depths, scale * rows[column], color=colour, **style)
    level = 0.0 if chance is None else scale * float(table[chance].iloc[0])
    line = panel.axhline(level, color='black', lw=0.8, ls=':', label='chance')
    keys = [
        Line2D([], [], color='black', label=title, **style)
        for title, style in zip(columns.values(), _STYLES)  # noqa: B905
        if title
    ]
    panel.legend(handles=[*keys, line], fontsize=7)
    panel.set_xlabel('depth: blocks passed; out: after the last norm')
    panel.set_ylabel(label)
    panel.grid(alpha=0.3)
