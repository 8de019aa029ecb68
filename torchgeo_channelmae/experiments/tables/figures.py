"""The picture of a table: points with error bars, a curve, or a heat map."""

import math
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .results import Record, Results
from .spec import title_of

_SCORE = 'mAP_micro'
_OURS, _PAPER, _CONTROL = '#1f5a92', '#b3541e', '#6f6f6f'
_SURE: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 2.5}
_CEILING: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 1, 'ls': (0, (4, 3))}


@rc_context({'font.size': 8, 'axes.titlesize': 9, 'legend.frameon': False})
def figure(results: Results) -> Figure:
    """Draw the mAP of each cell with 95 % intervals, and the paper's beside it."""
    table, about = results.table, results.preset.about
    if table.name == 'matrix':
        drawing = _heat_map(results)
    else:
        size = (3 + 3.4 * len(table.targets), 1.8 + 0.36 * len(table.rows))
        drawing = Figure(figsize=size, layout='constrained')
        panels = drawing.subplots(1, len(table.targets), squeeze=False, sharey=True)
        for target, panel in zip(table.targets, panels[0], strict=True):
            _points(panel, results, target)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        drawing.legend(unique.values(), unique, loc='outside lower center', ncols=3)
    drawing.suptitle('\n'.join(filter(None, [table.title, about])), wrap=True)
    return drawing


def _points(panel: Axes, results: Results, target: str) -> None:
    rows = results.table.rows
    for place, row in enumerate(rows):
        found = results.by_name.get((f'{row}:{target}', _SCORE))
        cell = results.table.cells.get(f'{row}:{target}')
        if cell and cell.paper:
            label = 'paper (averaging not stated)'
            panel.plot(cell.paper[0], place, 'D', mfc='none', color=_PAPER, label=label)
        if found is None:
            across = panel.get_yaxis_transform()
            panel.text(0.02, place, 'not run', transform=across, color=_CONTROL)
            continue
        printed = results.table.printed
        is_control = bool(printed) and row not in printed
        value = found['whole']
        panel.errorbar(
            value,
            place,
            xerr=np.abs([[value - found['whole_low']], [found['whole_high'] - value]]),
            fmt='o',
            color=_CONTROL if is_control else _OURS,
            label=f'{"control" if is_control else "this run"}, 95 % interval',
            capsize=3,
        )
        if row == 'scratch-p16':
            panel.axvline(value, color=_CONTROL, lw=0.8, ls=':')
    panel.set(
        title=title_of(target),
        xlabel='mAP micro, whole test set, %',
        ylim=(len(rows) - 0.5, -0.5),
    )
    panel.set_yticks(range(len(rows)), list(rows.values()))
    panel.grid(axis='x', alpha=0.3)


def _heat_map(results: Results) -> Figure:
    """Draw gains over scratch with intervals: a row per source, a column per target."""
    targets, by_name = results.table.targets, results.by_name
    rows = {c.row: c.title for c in results.table.cells.values() if c.pretrain}
    found = [[by_name.get((f'{row}:{t}', _SCORE)) for t in targets] for row in rows]
    gains = np.array([[r['difference'] if r else np.nan for r in row] for row in found])
    end = 1.6 * np.nanmax(np.abs(gains), initial=0) or 1.0  # so that black is legible
    size = (3.4 + 1.5 * len(targets), 2.6 + 0.8 * len(rows))
    drawing = Figure(figsize=size, layout='constrained')
    panel = drawing.subplots()
    image = panel.imshow(gains, cmap='RdBu', vmin=-end, vmax=end, aspect='auto')
    for y, row in enumerate(rows):
        for x, target in enumerate(targets):
            if row == f'{target.lower()}-p16':
                panel.add_patch(Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, **_CEILING))
            _draw_gain(panel, x, y, found[y][x])
    labels = []
    for target in targets:
        base = by_name.get((f'scratch-p16:{target}', _SCORE))
        scratch = f'{base["whole"]:.2f}' if base else '-'
        labels.append(f'{title_of(target)}\nscratch: {scratch}')
    panel.set_xticks(range(len(targets)), labels)
    panel.set_yticks(range(len(rows)), list(rows.values()))
    panel.tick_params(length=0)
    panel.set(xlabel='fine-tuned and tested on', ylabel='pretrained on')
    bar = drawing.colorbar(image, ax=panel, shrink=0.9)
    bar.set_label('gain over scratch in mAP micro, points')
    handles = [
        Patch(**_SURE, label='95 % interval excludes 0'),
        Patch(**_CEILING, label='the target itself: the ceiling'),
    ]
    drawing.legend(handles=handles, loc='outside lower center', ncols=2)
    return drawing


def _draw_gain(panel: Axes, x: int, y: int, record: Record | None) -> None:
    """Write a gain and its interval; frame it if the interval excludes 0."""
    centred: dict[str, Any] = {'ha': 'center', 'va': 'center'}
    if record is None or math.isnan(record['difference']):
        panel.text(x, y, 'not run', **centred, color='dimgray')
        return
    weight = 'normal'
    if record['differs']:
        weight = 'bold'
        panel.add_patch(Rectangle((x - 0.485, y - 0.475), 0.97, 0.95, **_SURE))
    gain = f'{record["difference"]:+.2f}'
    panel.text(x, y - 0.1, gain, **centred, fontsize=12, fontweight=weight)
    low, high = record['difference_low'], record['difference_high']
    if math.isfinite(low):
        panel.text(x, y + 0.19, f'[{low:+.2f}, {high:+.2f}]', **centred)
