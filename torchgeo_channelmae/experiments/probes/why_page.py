"""The page of ``channelmae why``: its plots and its text."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...plotting import wrap
from .encoders import UNTRAINED

_COLOURS = ('#8a8a8a', '#1f5a92', '#b3541e', '#3d7a3a', '#7b4fa0', '#a08a1e')
_STYLES: tuple[dict[str, Any], ...] = (
    {'linestyle': '-', 'marker': 'o'},
    {'linestyle': '--', 'marker': 's'},
)
_WIDTH = 10.5  # inches
_READING = (
    'Probes: linear, mAP micro on samples they did not learn from. CKA (debiased): 1 '
    'where both sensors arrange the places alike, 0 where not at all. Neighbours: the '
    "share of a place's nearest places that both sensors agree on. Retrieval: how "
    "often a place's image of the other sensor is among the 10 most similar."
)


def figure(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    neighbors: int,
    about: str,
    note: str | None = None,
) -> Figure:
    """Draw four panels over depth, a colour for each encoder.

    Args:
        table: What :func:`~.why.compare` returned.
        titles: What the sensors ``first`` and ``second`` are called.
        neighbors: Neighbours that were compared.
        about: What the data and the encoder are.
        note: What a reader has to know first.
    """
    one, other = titles['first'], titles['second']
    said = [
        (line, weight)
        for text, weight in ((note, 'bold'), (about, 'normal'), (_READING, 'normal'))
        if text
        for line in wrap(text, _WIDTH - 0.6, 8)
    ]
    head = 0.55 + 0.16 * len(said)
    drawing = Figure(figsize=(_WIDTH, head + 7.4), layout='constrained')
    top = 1 - head / (head + 7.4)
    drawing.get_layout_engine().set(rect=(0, 0, 1, top))  # type: ignore[union-attr, call-arg]
    drawing.text(
        0.03,
        1 - 0.12 / (head + 7.4),
        f'What {one} and {other} share in an encoder',
        fontsize=12,
        weight='bold',
        va='top',
    )
    for number, (line, weight) in enumerate(said):
        drawing.text(
            0.03,
            1 - (0.42 + 0.16 * number) / (head + 7.4),
            line,
            fontsize=8,
            weight=weight,
            va='top',
            parse_math=False,
        )
    panels = drawing.subplots(2, 2).flat
    probed = 'first_linear_mAP_micro' in table
    panel = next(panels)
    if probed:
        columns = {
            'first_linear_mAP_micro': one,
            'second_linear_mAP_micro': other,
        }
        _lines(panel, table, columns, 'mAP_micro_chance')
        panel.set_ylabel('linear probe, mAP micro, %')
    else:
        panel.text(0.5, 0.5, 'not probed', ha='center', transform=panel.transAxes)
        panel.set_axis_off()
    panel = next(panels)
    _lines(panel, table, {'cka': ''}, None)
    panel.axhline(0, color='black', lw=0.8, ls=':')
    panel.set_ylabel(f'debiased linear CKA, {one} with {other}')
    panel = next(panels)
    _lines(panel, table, {'overlap': ''}, 'overlap_chance')
    panel.set_ylabel(f'shared of {neighbors} nearest neighbours, %')
    panel = next(panels)
    columns = {
        'recall10_first_to_second': f'{one} finds {other}',
        'recall10_second_to_first': f'{other} finds {one}',
    }
    _lines(panel, table, columns, 'recall10_chance')
    panel.set_ylabel('place found among 10 nearest, %')
    encoders = table['encoder'].unique()
    drawing.legend(
        handles=[
            Line2D([], [], color=colour, lw=3, label=encoder)
            for encoder, colour in zip(encoders, cycle(_COLOURS), strict=False)
        ],
        loc='outside lower center',
        ncols=min(len(encoders), 4),
        fontsize=8,
    )
    return drawing


def _lines(
    panel: Axes, table: pd.DataFrame, columns: Mapping[str, str], chance: str | None
) -> None:
    """Draw columns over depth: an encoder a colour, a column a line style."""
    depths = list(table['depth'].unique())
    scale = 1 if 'cka' in columns else 100
    for encoder, colour in zip(
        table['encoder'].unique(), cycle(_COLOURS), strict=False
    ):
        rows = table[table['encoder'] == encoder]
        for column, style in zip(columns, _STYLES, strict=False):
            values = scale * rows[column].to_numpy()
            panel.plot(range(len(depths)), values, color=colour, markersize=3, **style)
    named = [
        Line2D([], [], color='black', markersize=3, label=title, **style)
        for title, style in zip(columns.values(), _STYLES, strict=False)
        if title
    ]
    if chance is not None:
        level = scale * float(table[chance].iloc[0])
        named.append(
            panel.axhline(level, color='black', lw=0.8, ls=':', label='chance')
        )
    if named:
        panel.legend(handles=named, fontsize=7)
    panel.set_xticks(range(len(depths)), depths, fontsize=8)
    panel.set_xlabel('depth: blocks passed; out: after the last norm')
    panel.grid(alpha=0.3)


def page(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    neighbors: int,
    about: str,
    note: str | None = None,
) -> str:
    """Write the page in Markdown: the depth where the sensors agree best, and out."""
    one, other = titles['first'], titles['second']
    lines = [f'# What {one} and {other} share in an encoder', '']
    if note:
        lines += [f'**{note}**', '']
    lines += [about, '', '![all depths](why.png)', '', _READING, '']
    probed = 'first_linear_mAP_micro' in table
    head = [
        'encoder',
        'depth',
        'CKA (shuffled)',
        f'shared of {neighbors} neighbours, %',
    ]
    head += [f'{one} finds {other} in 10, %', f'{other} finds {one} in 10, %']
    if probed:
        head += [f'probe {one}, mAP micro, %', f'probe {other}, mAP micro, %']
    lines += [
        f'| {" | ".join(head)} |',
        '| -- | -- ' + '| --: ' * (len(head) - 2) + '|',
    ]
    first = table.iloc[0]
    chance = [
        'chance',
        '',
        '0',
        f'{100 * first["overlap_chance"]:.1f}',
        *[f'{100 * first["recall10_chance"]:.1f}'] * 2,
    ]
    if probed:
        chance += [f'{100 * first["mAP_micro_chance"]:.1f}'] * 2
    lines.append(f'| {" | ".join(chance)} |')
    for encoder in table['encoder'].unique():
        rows = table[table['encoder'] == encoder]
        known = rows.dropna(subset='cka').sort_values('cka', kind='stable')
        last = rows.iloc[-1]
        best = known.iloc[-1] if len(known) else last
        if best['depth'] != last['depth']:
            lines.append(_row(best, probed))
        lines.append(_row(last, probed))
    lines += [
        '',
        'Of each encoder the depth of the highest CKA, and the last. What training did '
        f'is what an encoder has over {UNTRAINED}; all depths are in why.csv.',
    ]
    return '\n'.join(lines) + '\n'


def _row(row: pd.Series, probed: bool) -> str:
    cells = [
        str(row['encoder']),
        str(row['depth']),
        f'{row["cka"]:.3f} ({round(row["cka_shuffled"], 3) + 0.0:.3f})',
    ]
    columns: Sequence[str] = (
        'overlap',
        'recall10_first_to_second',
        'recall10_second_to_first',
    )
    if probed:
        columns = (*columns, 'first_linear_mAP_micro', 'second_linear_mAP_micro')
    cells += [f'{100 * row[column]:.1f}' for column in columns]
    return f'| {" | ".join(cells)} |'
