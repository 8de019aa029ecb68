"""The pages of ``channelmae probe`` and ``channelmae why``."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ...plotting import wrap
from ..report import markdown

_SCORES = {
    'mAP_micro': 'mAP micro',
    'mAP_macro': 'mAP macro',
    'F1_micro': 'F1 micro',
    'F1_macro': 'F1 macro',
    'F1_micro_tuned': 'F1 micro, tuned',
}
_FEW = 1000  # scored samples
_COLOURS = ('#8a8a8a', '#1f5a92', '#b3541e', '#3d7a3a', '#7b4fa0', '#a08a1e')
_READING = (
    'Probes: linear, mAP micro on samples they did not learn from. CKA (debiased): 1 '
    'if both sensors arrange the places alike, 0 if not at all. Neighbours: the share '
    "of a place's nearest places that both sensors agree on. Retrieval: how often a "
    "place's image of the other sensor is among the 10 most similar."
)


def probe_page(
    table: pd.DataFrame, note: str | None, about: str, neighbors: int, seconds: float
) -> str:
    """Return the Markdown page of ``channelmae probe``.

    Args:
        table: One row for chance and one per encoder, depth and probe.
        note: A warning about scores on these data.
        about: What the data and the features are.
        neighbors: Number of neighbours that vote.
        seconds: How long it took.
    """
    probes = {'knn': f'{neighbors} neighbours', 'linear': 'linear', '': ''}
    shown = table[['encoder', 'depth', 'probe']].replace({'probe': probes})
    if table['depth'].nunique() == 2:  # that of all encoders, and none of chance
        shown = shown.drop(columns='depth')
    shown = shown.replace({'encoder': {'chance': 'chance: class frequencies'}})
    numbers = [name for name in _SCORES if name in table]
    for name in numbers:
        spreads = table.get(f'{name}_std', pd.Series(index=table.index, dtype=float))
        shown[_SCORES[name]] = [
            f'{100 * value:.1f}' + ('' if pd.isna(std) else f' ± {100 * std:.1f}')
            for value, std in zip(table[name], spreads, strict=True)
        ]
    scored = int(table['test' if 'test' in table else 'val'].iloc[0])
    reading = (
        'In percent; ±: standard deviation over random groups of the samples scored, '
        'not over trainings. What pretraining taught is the difference to the '
        'untrained encoder, not to chance.'
    )
    if 'F1_micro_tuned' in table:
        reading += ' F1 at 0.5; tuned: each class at its best threshold on validation.'
    if scored < _FEW:
        reading += f' With {scored} samples, differences of a few percent are noise.'
    title = 'How well frozen features predict labels'
    body = markdown(shown, len(numbers)), reading, f'{seconds:.0f} s in all.'
    return _page(title, note, about, *body)


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
        f'probe {one}, mAP micro, %': ('first_linear_mAP_micro', 'mAP_micro_chance'),
        f'probe {other}, mAP micro, %': ('second_linear_mAP_micro', 'mAP_micro_chance'),
    }
    groups = table.groupby('encoder', sort=False)
    best = [rows.index[int(rows['cka'].fillna(-2).argmax())] for _, rows in groups]
    last = [rows.index[-1] for _, rows in groups]
    shown = table.loc[sorted({*best, *last})]
    pairs = zip(shown['cka'], shown['cka_shuffled'], strict=True)
    cells = {
        'encoder': ['chance', *shown['encoder']],
        'depth': ['', *shown['depth']],
        'CKA (shuffled)': ['0', *(f'{cka:.3f} ({wrong:z.3f})' for cka, wrong in pairs)],
    }
    for title, (column, chance) in columns.items():
        if column in table:
            values = [table[chance].iloc[0], *shown[column]]
            cells[title] = [f'{100 * value:.1f}' for value in values]
    return _page(
        f'What {one} and {other} share in an encoder',
        note,
        about,
        '![all depths](why.png)',
        _READING,
        markdown(pd.DataFrame(cells), len(cells) - 2),
        'The depth of the highest CKA and the last depth of each encoder; all depths '
        'are in why.csv. What training did is the difference to the untrained encoder.',
    )


def _page(title: str, note: str | None, *parts: str) -> str:
    warning = [f'**{note}**'] if note else []
    return '\n\n'.join([f'# {title}', *warning, *parts]) + '\n'


def why_figure(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    neighbors: int,
    about: str,
    note: str | None = None,
) -> Figure:
    """Draw four panels over depth, one colour per encoder; arguments as the page's."""
    one, other = titles['first'], titles['second']
    probes = {'first_linear_mAP_micro': one, 'second_linear_mAP_micro': other}
    recalls = {
        'recall10_first_to_second': f'{one} finds {other}',
        'recall10_second_to_first': f'{other} finds {one}',
    }
    panels: list[tuple[str, dict[str, str], str]] = [
        ('linear probe, mAP micro, %', probes, 'mAP_micro_chance'),
        (f'debiased linear CKA, {one} with {other}', {'cka': ''}, 'zero'),
        (f'shared of {neighbors} nearest, %', {'overlap': ''}, 'overlap_chance'),
        ('place found among 10 nearest, %', recalls, 'recall10_chance'),
    ]
    figure = Figure(figsize=(10.5, 9), layout='constrained')
    head = [f'What {one} and {other} share in an encoder', *wrap(note or '', 10, 9)]
    foot = [line for text in (about, _READING) for line in wrap(text, 10, 8)]
    style: dict[str, Any] = {'x': 0.01, 'ha': 'left', 'parse_math': False}
    figure.suptitle('\n'.join(head), weight='bold', fontsize=9, **style)
    figure.supxlabel('\n'.join(foot), fontsize=8, **style)
    shares = [c for c in map(str, table.select_dtypes('number')) if c[:3] != 'cka']
    shown = table.assign(**(100 * table[shares]), zero=0.0)  # in percent
    groups = shown.groupby('encoder', sort=False)
    axes = figure.subplots(2, 2).flat
    for panel, (label, columns, chance) in zip(axes, panels, strict=True):
        panel.set(xlabel='depth: blocks passed; out: after the last norm', ylabel=label)
        panel.grid(alpha=0.3)
        if not set(columns) <= set(table):
            panel.text(0.5, 0.5, 'not probed', ha='center', transform=panel.transAxes)
            continue
        for (column, title), line in zip(columns.items(), ('o-', 's--'), strict=False):
            for (encoder, rows), colour in zip(groups, cycle(_COLOURS), strict=False):
                panel.plot(
                    rows['depth'],
                    rows[column],
                    line,
                    color=colour,
                    markersize=3,
                    label=f'{encoder}: {title}' if title else encoder,
                )
        level = shown[chance].iloc[0]
        panel.axhline(level, color='black', lw=0.8, ls=':', label='chance')
        panel.legend(fontsize=6)
    return figure
