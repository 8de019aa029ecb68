"""Any sensor to any sensor: the gain of every source on every target at a glance."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .markdown import difference_text, interval_text
from .results import Results
from .sensors import title_of

_SCORE = 'mAP_micro'


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
    titles = {row.name: row.title for row in results.table.rows}
    found = [
        [results.difference(cells[f'{name}:{target}'], _SCORE) for target in targets]
        for name in rows
    ]
    gains = np.array(
        [[np.nan if i is None else 100 * i.estimate for i in row] for row in found]
    )
    largest = float(np.nanmax(np.abs(gains))) if np.isfinite(gains).any() else 1.0
    drawing = Figure(
        figsize=(3.2 + 1.7 * len(targets), 2.2 + 0.85 * len(rows)), layout='constrained'
    )
    panel = drawing.subplots()
    image = panel.imshow(gains, cmap='RdBu', vmin=-largest, vmax=largest, aspect='auto')
    for y, row in enumerate(found):
        for x, gain in enumerate(row):
            if gain is None:
                panel.text(x, y, 'not run', ha='center', va='center', fontsize=8)
                continue
            low, high = 100 * gain.low, 100 * gain.high
            panel.text(
                x,
                y,
                f'{100 * gain.estimate:+.2f}\n[{low:+.2f}, {high:+.2f}]',
                ha='center',
                va='center',
                fontsize=9,
                fontweight='bold' if gain.excludes_zero else 'normal',
                color='white' if abs(gain.estimate) * 100 > 0.6 * largest else 'black',
            )
    for x, target in enumerate(targets):
        name = f'{target.lower()}-p16'
        if name in rows:  # the ceiling
            corner = (x - 0.47, rows.index(name) - 0.47)
            panel.add_patch(
                Rectangle(corner, 0.94, 0.94, fill=False, ec='black', lw=1, ls='--')
            )
    panel.set_xticks(range(len(targets)), [title_of(t) for t in targets], fontsize=9)
    panel.set_yticks(range(len(rows)), [titles[name] for name in rows], fontsize=9)
    panel.set_xlabel('fine-tuned and tested on', fontsize=9)
    panel.set_ylabel('pretrained on', fontsize=9)
    bar = drawing.colorbar(image, ax=panel, shrink=0.9)
    bar.set_label('gain over scratch, mAP micro, points', fontsize=8)
    bar.ax.tick_params(labelsize=8)
    about = results.preset.about
    drawing.suptitle(
        'Any sensor to any sensor; bold: the 95 % interval excludes 0; dashed: the '
        f'ceiling{chr(10) + about if about else ""}',
        fontsize=8,
        wrap=True,
    )
    return drawing
