"""A table as a picture with error bars."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cells import Row, Target
from .grid import heat_map
from .results import Results
from .sensors import title_of

_OURS, _PAPER, _CONTROL = '#1f5a92', '#b3541e', '#6f6f6f'


def figure(results: Results) -> Figure:
    """Draw the mAP of each row, with 95 % intervals, and the paper's beside it."""
    table = results.table
    if table.name == 'labels':
        return _curve(results)
    if table.name == 'matrix':
        return heat_map(results)
    drawing = Figure(
        figsize=(3 + 3.4 * len(table.targets), 1.8 + 0.36 * len(table.rows)),
        layout='constrained',
    )
    panels = drawing.subplots(1, len(table.targets), squeeze=False, sharey=True)[0]
    for target, panel in zip(table.targets, panels, strict=True):
        _points(panel, results, target)
    panels[0].set_yticks(range(len(table.rows)), [row.title for row in table.rows])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc='outside lower center', ncols=3, fontsize=8)
    drawing.suptitle(_title(results), fontsize=9, wrap=True)
    return drawing


def _points(panel: Axes, results: Results, target: Target) -> None:
    style = {'markersize': 5, 'capsize': 3, 'linestyle': 'none', 'marker': 'o'}
    printed: list[tuple[float, int]] = []
    labelled: set[str] = set()
    for place, row in enumerate(results.table.rows):
        if target in row.paper:
            printed.append((row.paper[target][0], place))
        cell = next((c for c in row.cells if c.target == target), None)
        found = results.whole(cell, 'mAP_micro') if cell else None
        if found is None:
            panel.text(0.02, place, 'not run', transform=panel.get_yaxis_transform(),
                       fontsize=7, color=_CONTROL, va='center')  # fmt: skip
            continue
        label = (
            'control, 95 % interval' if row.is_control else 'this run, 95 % interval'
        )
        panel.errorbar(
            100 * found.estimate,
            place,
            xerr=100
            * np.abs([[found.estimate - found.low], [found.high - found.estimate]]),
            color=_CONTROL if row.is_control else _OURS,
            label=None if label in labelled else label,
            **style,  # type: ignore[arg-type]
        )
        labelled.add(label)
        if cell is not None and cell.name == f'scratch-p16:{target}':
            panel.axvline(100 * found.estimate, color=_CONTROL, lw=0.8, ls=':')
    if printed:
        panel.plot(
            *zip(*printed, strict=True),
            linestyle='none',
            marker='D',
            markersize=5,
            markerfacecolor='none',
            color=_PAPER,
            label='paper (averaging not stated)',
        )
    panel.set_title(title_of(target), fontsize=9)
    panel.set_xlabel('mAP micro, whole test set, %', fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(axis='x', alpha=0.3)


def _curve(results: Results) -> Figure:
    drawing = Figure(figsize=(5.2, 4), layout='constrained')
    panel = drawing.subplots()
    kinds: dict[str, list[Row]] = {}
    for row in results.table.rows:
        kinds.setdefault(row.title.rpartition(', ')[0], []).append(row)
    for colour, (title, rows) in zip((_CONTROL, _OURS), kinds.items(), strict=True):
        points = [
            (100 * (cell.fraction or 1), found)
            for row in rows
            for cell in row.cells
            if (found := results.whole(cell, 'mAP_micro')) is not None
        ]
        if not points:
            continue
        x = [share for share, _ in points]
        panel.plot(
            x, [100 * i.estimate for _, i in points], 'o-', color=colour, label=title
        )
        panel.fill_between(
            x,
            [100 * i.low for _, i in points],
            [100 * i.high for _, i in points],
            color=colour,
            alpha=0.18,
            lw=0,
        )
    panel.set_xscale('log')
    shares = sorted({100 * (c.fraction or 1) for c in results.table.cells.values()})
    panel.set_xticks(shares, [f'{share:g}' for share in shares])
    panel.minorticks_off()
    panel.set_xlabel('share of the training labels, %')
    panel.set_ylabel('mAP micro, whole test set, %; 95 % interval')
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    drawing.suptitle(_title(results), fontsize=8, wrap=True)
    return drawing


def _title(results: Results) -> str:
    about = results.preset.about
    return f'{results.table.title}\n{about}' if about else results.table.title
