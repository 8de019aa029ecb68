"""The picture of a table: points with error bars, or a heat map."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .results import Results
from .spec import title_of

_SCORE = 'mAP_micro'
_SURE: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 2.5}
_CEILING: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 1, 'ls': '--'}


def figure(results: Results) -> Figure:
    """Draw the mAP of each cell with 95 % intervals, and the paper's beside it."""
    table = results.table
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
    drawing.suptitle(f'{table.title}\n{results.preset.about}'.strip(), wrap=True)
    return drawing


def _points(panel: Axes, results: Results, target: str) -> None:
    rows, printed = results.table.rows, results.table.printed
    for y, row in enumerate(rows):
        found = results.by_name.get((f'{row}:{target}', _SCORE))
        cell = results.table.cells.get(f'{row}:{target}')
        if cell and cell.paper:
            label = 'paper (averaging not stated)'
            panel.plot(cell.paper[_SCORE][0], y, 'D', mfc='none', c='C1', label=label)
        if found is None:
            panel.text(0.02, y, 'not run', transform=panel.get_yaxis_transform())
            continue
        value, low, high = (found[f'whole{end}'] for end in ('', '_low', '_high'))
        color, kind = 'C0', 'this run'
        if printed and row not in printed:
            color, kind = 'gray', 'control'
        ends = np.abs([[value - low], [high - value]])
        label = f'{kind}, 95 % interval'
        panel.errorbar(value, y, xerr=ends, fmt='o', c=color, label=label, capsize=3)
        if row == 'scratch-p16':
            panel.axvline(value, color='gray', lw=0.8, ls=':')
    xlabel = 'mAP micro, whole test set, %'
    panel.set(title=title_of(target), xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    panel.set_yticks(range(len(rows)), list(rows.values()))
    panel.grid(axis='x', alpha=0.3)


def _heat_map(results: Results) -> Figure:
    """Draw gains over scratch with intervals: a row per source, a column per target."""
    targets, by_name = results.table.targets, results.by_name
    rows = {c.row: c.title for c in results.table.cells.values() if c.pretrain}
    size = (3.4 + 1.5 * len(targets), 2.6 + 0.8 * len(rows))
    drawing = Figure(figsize=size, layout='constrained')
    panel = drawing.subplots()
    gains = np.full((len(rows), len(targets)), np.nan)
    for y, row in enumerate(rows):
        for x, target in enumerate(targets):
            gain, low, high = (
                by_name.get((f'{row}:{target}', _SCORE), {}).get(key, np.nan)
                for key in ('difference', 'difference_low', 'difference_high')
            )
            gains[y, x] = gain
            text = 'not run' if np.isnan(gain) else f'{gain:+.2f}'
            if low <= high:
                text += f'\n[{low:+.2f}, {high:+.2f}]'
            weight = 'bold' if low > 0 or high < 0 else 'normal'
            if weight == 'bold':
                panel.add_patch(Rectangle((x - 0.485, y - 0.475), 0.97, 0.95, **_SURE))
            panel.text(x, y, text, ha='center', va='center', fontweight=weight)
            if row == f'{target.lower()}-p16':
                panel.add_patch(Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, **_CEILING))
    end = 1.6 * np.nanmax(np.abs(gains), initial=0) or 1.0  # so that black is legible
    image = panel.imshow(gains, cmap='RdBu', vmin=-end, vmax=end, aspect='auto')
    labels = []
    for target in targets:
        base = by_name.get((f'scratch-p16:{target}', _SCORE))
        scratch = f'{base["whole"]:.2f}' if base else '-'
        labels.append(f'{title_of(target)}\nscratch: {scratch}')
    panel.set_xticks(range(len(targets)), labels)
    panel.set_yticks(range(len(rows)), list(rows.values()))
    panel.set(xlabel='fine-tuned and tested on', ylabel='pretrained on')
    drawing.colorbar(image, ax=panel, label='gain over scratch in mAP micro, points')
    handles = [
        Patch(**_SURE, label='95 % interval excludes 0'),
        Patch(**_CEILING, label='the target itself: the ceiling'),
    ]
    drawing.legend(handles=handles, loc='outside lower center', ncols=2)
    return drawing
