"""Any sensor to any sensor: the gain of every source on every target at a glance."""

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ..bootstrap import Interval
from .markdown import difference_text, interval_text, percent
from .results import Results
from .sensors import title_of

_SCORE = 'mAP_micro'
_LETTERS = 14  # to an inch, of the smallest writing
_SURE: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 2.5}
_CEILING: dict[str, Any] = {'fill': False, 'ec': 'black', 'lw': 1, 'ls': (0, (4, 3))}


def sources(results: Results) -> list[str]:
    """Names of the rows with a pretraining, in order."""
    return [
        row.name
        for row in results.table.rows
        if any(cell.pretraining is not None for cell in row.cells)
    ]


def grid_lines(results: Results) -> list[str]:
    """Write the gains as a table of Markdown, a row a source and a column a target."""
    targets = results.table.targets
    cells = results.table.cells
    titles = {row.name: row.title for row in results.table.rows}
    lines = [
        '## Gain over scratch in mAP micro, points',
        '',
        f'| pretrained on | {" | ".join(f"to {title_of(t)}" for t in targets)} |',
        f'| -- | {" | ".join(["--:"] * len(targets))} |',
    ]
    for name in sources(results):
        texts = [
            difference_text(results.difference(cells[f'{name}:{target}'], _SCORE))
            for target in targets
        ]
        lines.append(f'| {titles[name]} | {" | ".join(texts)} |')
    texts = [
        interval_text(results.whole(cells[f'scratch-p16:{target}'], _SCORE))
        for target in targets
    ]
    return [
        *lines,
        f'| *scratch: mAP micro* | {" | ".join(texts)} |',
        '',
        'Rows pretrain on a sensor, columns fine-tune and test on one. On the diagonal '
        'both are the same: the ceiling, which no other source is asked to reach. '
        '**Bold** only where the 95 % interval excludes 0.',
        '',
    ]


def heat_map(results: Results) -> Figure:
    """Draw the gains, with their intervals, a row a source and a column a target."""
    targets, rows = results.table.targets, sources(results)
    cells = results.table.cells
    found = [
        [results.difference(cells[f'{name}:{target}'], _SCORE) for target in targets]
        for name in rows
    ]
    gains = np.array(
        [[np.nan if i is None else 100 * i.estimate for i in row] for row in found]
    )
    largest = float(np.nanmax(np.abs(gains))) if np.isfinite(gains).any() else 1.0
    width = 3.4 + 1.5 * len(targets)
    drawing = Figure(figsize=(width, 2.6 + 0.8 * len(rows)), layout='constrained')
    panel = drawing.subplots()
    end = 1.6 * largest or 1.0  # so that black is read on the darkest colour
    image = panel.imshow(gains, cmap='RdBu', vmin=-end, vmax=end, aspect='auto')
    for y, row in enumerate(found):
        for x, gain in enumerate(row):
            is_ceiling = rows[y] == f'{targets[x].lower()}-p16'
            _draw_cell(panel, x, y, gain, is_ceiling)
    scratch = [results.whole(cells[f'scratch-p16:{t}'], _SCORE) for t in targets]
    panel.set_xticks(
        range(len(targets)),
        [
            f'{title_of(target)}\nscratch: {percent(base.estimate if base else None)}'
            for target, base in zip(targets, scratch, strict=True)
        ],
        fontsize=9,
    )
    titles = {row.name: row.title for row in results.table.rows}
    panel.set_yticks(range(len(rows)), [titles[name] for name in rows], fontsize=9)
    panel.tick_params(length=0)
    panel.set_xlabel('fine-tuned and tested on', fontsize=10)
    panel.set_ylabel('pretrained on', fontsize=10)
    bar = drawing.colorbar(image, ax=panel, shrink=0.9)
    bar.set_label('gain over scratch, points', fontsize=8)
    bar.ax.tick_params(labelsize=8)
    drawing.legend(
        handles=[
            Patch(**_SURE, label='95 % interval excludes 0'),
            Patch(**_CEILING, label='the target itself: the ceiling'),
        ],
        loc='outside lower center',
        ncols=2,
        fontsize=8,
        frameon=False,
        handleheight=1.2,
    )
    about = textwrap.wrap(results.preset.about, int(_LETTERS * width))
    title = [f'{results.table.title}: gain over scratch in mAP micro, points', *about]
    drawing.suptitle('\n'.join(title), fontsize=8.5)
    return drawing


def _draw_cell(
    panel: Axes, x: int, y: int, gain: Interval | None, is_ceiling: bool
) -> None:
    """Write a gain and its interval, and frame what is sure and what is a ceiling."""
    centred: dict[str, Any] = {'ha': 'center', 'va': 'center'}
    if is_ceiling:
        panel.add_patch(Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, **_CEILING))
    if gain is None or math.isnan(gain.estimate):
        panel.text(x, y, 'not run', **centred, fontsize=8, color='dimgray')
        return
    sure = gain.excludes_zero
    if sure:
        panel.add_patch(Rectangle((x - 0.485, y - 0.475), 0.97, 0.95, **_SURE))
    panel.text(
        x,
        y - 0.1,
        f'{100 * gain.estimate:+.2f}',
        **centred,
        fontsize=12,
        fontweight='bold' if sure else 'normal',
    )
    interval = f'[{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]'
    if math.isfinite(gain.low):
        panel.text(x, y + 0.19, interval, **centred, fontsize=8)
