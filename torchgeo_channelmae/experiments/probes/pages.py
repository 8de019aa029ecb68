"""The pages of ``channelmae probe`` and ``channelmae why``."""

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
_READING = (
    'Probes: linear, mAP micro. CKA (debiased): 1 if both sensors arrange the places '
    "alike, 0 if not at all. Neighbors: share of a place's nearest that both agree "
    "on. Retrieval: how often a place's other image is among the 10 most similar."
)
_SHARES = {  # title and chance level of each column
    'first_linear_mAP_micro': ('probe {0}, mAP micro', 'mAP_micro_chance'),
    'second_linear_mAP_micro': ('probe {1}, mAP micro', 'mAP_micro_chance'),
    'overlap': ('shared neighbors', 'overlap_chance'),
    'recall10_first_to_second': ('{0} finds {1} in 10', 'recall10_chance'),
    'recall10_second_to_first': ('{1} finds {0} in 10', 'recall10_chance'),
}
_PANELS = {
    'linear probe, mAP micro, %': list(_SHARES)[:2],
    'debiased linear CKA between the sensors': ['cka'],
    'shared nearest neighbors, %': ['overlap'],
    'place found among 10 nearest, %': list(_SHARES)[3:],
}


def probe_page(table: pd.DataFrame, note: str | None, about: str) -> str:
    """Return the Markdown page of ``channelmae probe``."""
    titles = {'knn': 'neighbors', 'chance': 'chance: class frequencies'}
    shown = table[['encoder', 'depth', 'probe']].replace(titles)
    scores = {name: title for name, title in _SCORES.items() if name in table}
    for name, title in scores.items():
        shown[title] = (100 * table[name]).map('{:.1f}'.format)
        if f'{name}_std' in table:
            spread = (100 * table[f'{name}_std']).map(' ± {:.1f}'.format)
            shown[title] += spread.replace(' ± nan', '')
    reading = (
        'In percent; ±: standard deviation over random groups of samples, not over '
        'trainings. What pretraining taught is the difference to the untrained encoder.'
    )
    if 'F1_micro_tuned' in table:
        reading += ' F1 at 0.5; tuned: each class at its best threshold on validation.'
    title = 'How well frozen features predict labels'
    return _page(title, note, about, markdown(shown, len(scores)), reading)


def why_page(
    table: pd.DataFrame, sensors: tuple[str, str], about: str, note: str | None = None
) -> str:
    """Return the Markdown page of ``channelmae why``.

    It has a row for chance, and for each encoder the depth where the sensors agree best
    and the last.
    """
    known = table.fillna({'cka': -2}).groupby('encoder')
    shown = table.loc[sorted({*known['cka'].idxmax(), *known.tail(1).index})]
    pairs = zip(shown['cka'], shown['cka_shuffled'], strict=True)
    cells = {
        'encoder': ['chance', *shown['encoder']],
        'depth': ['', *shown['depth']],
        'CKA (shuffled)': ['0', *(f'{cka:.3f} ({wrong:z.3f})' for cka, wrong in pairs)],
    }
    for column, (title, chance) in _SHARES.items():
        if column in table:
            values = [table[chance].iloc[0], *shown[column]]
            cells[f'{title}, %'.format(*sensors)] = [f'{100 * x:.1f}' for x in values]
    return _page(
        f'What {" and ".join(sensors)} share in an encoder',
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
    table: pd.DataFrame, sensors: tuple[str, str], about: str, note: str | None = None
) -> Figure:
    """Draw four panels over depth, one color per encoder; arguments as the page's."""
    figure = Figure(figsize=(10.5, 9), layout='constrained')
    title = f'What {" and ".join(sensors)} share in an encoder'
    foot = [line for text in (about, _READING) for line in wrap(text, 10, 8)]
    style: dict[str, Any] = {'x': 0.01, 'ha': 'left', 'parse_math': False, 'size': 8}
    head = [title, *wrap(note or '', 10, 8)]
    figure.suptitle('\n'.join(head), weight='bold', **style)
    figure.supxlabel('\n'.join(foot), **style)
    axes = figure.subplots(2, 2).flat
    for panel, (label, columns) in zip(axes, _PANELS.items(), strict=True):
        panel.set(xlabel='depth: blocks passed; out: after the last norm', ylabel=label)
        panel.grid(alpha=0.3)
        if not set(columns) <= set(table):
            panel.text(0.5, 0.5, 'not probed', ha='center', transform=panel.transAxes)
            continue
        level = 0.0
        for column, line in zip(columns, ('o-', 's--'), strict=False):
            what, chance = _SHARES.get(column, ('', ''))
            scale, level = (100, 100 * table[chance].iloc[0]) if chance else (1, 0.0)
            groups = table.groupby('encoder', sort=False)
            for number, (encoder, rows) in enumerate(groups):
                key = f'{encoder}: {what}'.format(*sensors) if columns[1:] else encoder
                y = scale * rows[column]
                style = {'color': f'C{number}', 'markersize': 3, 'label': key}
                panel.plot(rows['depth'], y, line, **style)
        panel.axhline(level, color='black', lw=0.8, ls=':', label='chance')
        panel.legend(fontsize=6)
    return figure
