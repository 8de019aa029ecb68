"""The picture of a table: points with error bars, a curve, or a heat map."""

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .results import Record, Results
from .spec import title_of

_SCORE = 'mAP_micro'
_OURS, _PAPER, _CONTROL = '#1f5a92', '#b3541e', '#6f6f6f'
_LETTERS = 14  # per inch, of the smallest text
_SURE: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 2.5}
_CEILING: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 1, 'ls': (0, (4, 3))}


def figure(results: Results) -> Figure:
    """Draw the mAP of each cell with 95 % intervals, and the paper's beside it."""
    if results.table.name == 'matrix':
        return heat_map(results)
    targets, rows = results.table.targets, results.table.rows
    size = (3 + 3.4 * len(targets), 1.8 + 0.36 * len(rows))
    drawing = Figure(figsize=size, layout='constrained')
    panels = drawing.subplots(1, len(targets), squeeze=False, sharey=True)[0]
    for target, panel in zip(targets, panels, strict=True):
        _points(panel, results, target)
    panels[0].set_yticks(range(len(rows)), list(rows.values()))
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    place = {'loc': 'outside lower center', 'ncols': 3, 'fontsize': 8}
    drawing.legend(unique.values(), unique, **place)
    title = '\n'.join(filter(None, [results.table.title, results.preset.about]))
    drawing.suptitle(title, fontsize=9, wrap=True)
    return drawing


def _points(panel: Axes, results: Results, target: str) -> None:
    for place, row in enumerate(results.table.rows):
        found = results.by_name.get((f'{row}:{target}', _SCORE))
        cell = results.table.cells.get(f'{row}:{target}')
        if cell and cell.paper:
            panel.plot(cell.paper[0], place, 'D', markersize=5, mfc='none',
                       color=_PAPER, label='paper (averaging not stated)')  # fmt: skip
        if found is None:
            panel.text(0.02, place, 'not run', transform=panel.get_yaxis_transform(),
                       fontsize=7, color=_CONTROL, va='center')  # fmt: skip
            continue
        is_control = row not in results.table.printed
        value = found['whole']
        panel.errorbar(
            value,
            place,
            xerr=np.abs([[value - found['whole_low']], [found['whole_high'] - value]]),
            fmt='o',
            color=_CONTROL if is_control else _OURS,
            label=f'{"control" if is_control else "this run"}, 95 % interval',
            markersize=5,
            capsize=3,
        )
        if row == 'scratch-p16':
            panel.axvline(value, color=_CONTROL, lw=0.8, ls=':')
    panel.set_title(title_of(target), fontsize=9)
    panel.set_xlabel('mAP micro, whole test set, %', fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(axis='x', alpha=0.3)


def heat_map(results: Results) -> Figure:
    """Draw gains over scratch with intervals: a row per source, a column per target."""
    targets, by_name = results.table.targets, results.by_name
    pretrained = {c.row: c.title for c in results.table.cells.values() if c.pretrain}
    found = [[by_name.get((f'{row}:{t}', _SCORE)) for t in targets]
             for row in pretrained]  # fmt: skip
    gains = np.array(
        [[r['difference'] if r else math.nan for r in row] for row in found]
    )
    largest = float(np.nanmax(np.abs(gains))) if np.isfinite(gains).any() else 1.0
    end = 1.6 * largest or 1.0  # so that black is legible on the darkest colour
    width = 3.4 + 1.5 * len(targets)
    drawing = Figure(figsize=(width, 2.6 + 0.8 * len(pretrained)), layout='constrained')
    panel = drawing.subplots()
    image = panel.imshow(gains, cmap='RdBu', vmin=-end, vmax=end, aspect='auto')
    for y, row in enumerate(pretrained):
        for x, target in enumerate(targets):
            if row == f'{target.lower()}-p16':
                panel.add_patch(Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, **_CEILING))
            _draw_gain(panel, x, y, found[y][x])
    scratch = [by_name.get((f'scratch-p16:{t}', _SCORE)) for t in targets]
    labels = [
        f'{title_of(target)}\nscratch: {f"{base['whole']:.2f}" if base else "-"}'
        for target, base in zip(targets, scratch, strict=True)
    ]
    panel.set_xticks(range(len(targets)), labels, fontsize=9)
    panel.set_yticks(range(len(pretrained)), list(pretrained.values()), fontsize=9)
    panel.tick_params(length=0)
    panel.set_xlabel('fine-tuned and tested on', fontsize=10)
    panel.set_ylabel('pretrained on', fontsize=10)
    bar = drawing.colorbar(image, ax=panel, shrink=0.9)
    bar.set_label('gain over scratch, points', fontsize=8)
    bar.ax.tick_params(labelsize=8)
    handles = [
        Patch(**_SURE, label='95 % interval excludes 0'),
        Patch(**_CEILING, label='the target itself: the ceiling'),
    ]
    drawing.legend(handles=handles, loc='outside lower center', ncols=2, fontsize=8,
                   frameon=False, handleheight=1.2)  # fmt: skip
    about = textwrap.wrap(results.preset.about, int(_LETTERS * width))
    title = [f'{results.table.title}: gain over scratch in mAP micro, points', *about]
    drawing.suptitle('\n'.join(title), fontsize=8.5)
    return drawing


def _draw_gain(panel: Axes, x: int, y: int, record: Record | None) -> None:
    """Write a gain and its interval; frame it if the interval excludes 0."""
    centred: dict[str, Any] = {'ha': 'center', 'va': 'center'}
    if record is None or math.isnan(record['difference']):
        panel.text(x, y, 'not run', **centred, fontsize=8, color='dimgray')
        return
    weight = 'normal'
    if record['differs']:
        weight = 'bold'
        panel.add_patch(Rectangle((x - 0.485, y - 0.475), 0.97, 0.95, **_SURE))
    gain = f'{record["difference"]:+.2f}'
    panel.text(x, y - 0.1, gain, **centred, fontsize=12, fontweight=weight)
    low, high = record['difference_low'], record['difference_high']
    if math.isfinite(low):
        panel.text(x, y + 0.19, f'[{low:+.2f}, {high:+.2f}]', **centred, fontsize=8)
