"""A table as Markdown, and the sentences that say what its figures hold."""

import math
from collections.abc import Iterator

from ..bootstrap import Interval
from .cells import Cell, Row, Target
from .results import Results
from .sensors import title_of

PAPER = 'paper (averaging not stated)'
#: Scores of the paper's table, which leads with those that are micro-averaged.
SHOWN = (('mAP', 'mAP_micro'), ('F1', 'F1_micro'))
_BELIEVED = (
    ('mAP micro', 'mAP_micro'),
    ('F1 micro', 'F1_micro'),
    ('F1 micro, tuned', 'F1_micro_tuned'),
    ('mAP macro', 'mAP_macro'),
    ('F1 macro', 'F1_macro'),
)


def markdown(results: Results) -> str:
    """Write a table as a page of Markdown."""
    table, preset = results.table, results.preset
    lines = [f'# Table {table.name}: {table.title}', '']
    if preset.about:
        lines += [f'**{preset.about}**', '']
    lines += [
        f'Preset {preset.name}, training seeds {", ".join(map(str, results.seeds))}; '
        f'{policy(results)}. In percent; micro-averaged unless said otherwise.',
        '',
    ]
    if table.name == 'matrix':
        from .grid import grid_lines
        from .unchanged_page import unchanged_lines

        lines += grid_lines(results)
        lines += unchanged_lines(results)
    lines += [
        '## As the paper has it',
        '',
        *_as_the_paper(results),
        '',
        protocol_note(results),
        '',
    ]
    for target in table.targets:
        if target in results.compared:
            lines += _believed(results, target)
    signs = list(sign_lines(results))
    if signs:
        lines += ["## Does this run show the paper's signs?", '', *signs, '']
    lines += _missing(results)
    lines += _rates(results)
    return '\n'.join(lines).rstrip() + '\n'


def policy(results: Results) -> str:
    """Say what a training seed is."""
    if results.preset.pretrainings == 'each':
        return 'each seed has a pretraining and a fine-tuning of its own'
    return 'one pretraining a row, the seeds are of the fine-tuning'


def protocol_note(results: Results) -> str:
    """Say what the figures of the paper's protocol hold."""
    groups, seeds = results.groups
    listed = ', '.join(map(str, seeds))
    paper = f' {PAPER}: its numbers as printed.' if has_paper(results) else ''
    return (
        f"The paper's protocol: mean ± standard deviation over the "
        f'{groups * len(seeds)} subsets that random cuts of the test set into {groups} '
        f'groups with the seeds {listed} give, the same for every model. The ± is of '
        f'fifths of the test set and holds no variance of training.{paper}'
    )


def _as_the_paper(results: Results) -> list[str]:
    targets = results.table.targets
    printed = has_paper(results)
    heads = [
        head
        for target in targets
        for name, _ in SHOWN
        for head in (f'{title_of(target)} {name}', *([PAPER] if printed else []))
    ]
    lines = [_line(['', *heads]), _line(['--', *['--:'] * len(heads)])]
    ruled = False
    for row in results.table.rows:
        if row.is_control and not ruled and any(r.paper for r in results.table.rows):
            ruled = True
            lines.append(_line(['*controls that the paper lacks*', *[''] * len(heads)]))
        lines.append(_line([row.title, *paper_cells(results, row)]))
    floors = [
        text
        for target in targets
        for _, score in SHOWN
        for text in (
            percent(results.floor.get(target, {}).get(score)),
            *([''] if printed else []),
        )
    ]
    return [*lines, _line(['class frequencies (floor)', *floors])]


def has_paper(results: Results) -> bool:
    """Whether the paper has any of the table's rows."""
    return any(row.paper for row in results.table.rows)


def paper_cells(results: Results, row: Row) -> list[str]:
    """Our figure and the paper's for each target and score of a row."""
    found: list[str] = []
    for target in results.table.targets:
        cell = next((c for c in row.cells if c.target == target), None)
        for place, (_, score) in enumerate(SHOWN):
            done = results.cells.get(cell.name) if cell else None
            ours = done.subsets[score] if done else None
            printed = row.paper.get(target)
            found.append('-' if ours is None else plus_minus(*ours))
            if has_paper(results):
                theirs = '' if printed is None else plus_minus_printed(printed, place)
                found.append(theirs)
    return found


def plus_minus(mean: float, std: float) -> str:
    """Write a mean and a standard deviation in percent."""
    return f'{percent(mean)} ± {percent(std)}'


def plus_minus_printed(paper: tuple[float, ...], place: int) -> str:
    """Write the paper's numbers as it does."""
    return f'{paper[2 * place]:.2f} ± {paper[2 * place + 1]:.2f}'


def percent(value: float | None) -> str:
    """Write a share in percent, '-' for none."""
    return '-' if value is None or math.isnan(value) else f'{100 * value:.2f}'


def _believed(results: Results, target: Target) -> list[str]:
    heads = [h for name, _ in _BELIEVED for h in (name, 'pretrained - scratch')]
    lines = [
        f'## {title_of(target)}: the figures to believe',
        '',
        _line(['', *heads]),
        _line(['--', *['--:'] * len(heads)]),
    ]
    cells = [c for c in results.table.cells.values() if c.target == target]
    titles = {c.name: row.title for row in results.table.rows for c in row.cells}
    described = ''
    for cell in cells:
        if cell.name not in results.cells:
            continue
        described = results.compared[target].describe(cell.name)
        texts = []
        for _, score in _BELIEVED:
            texts += [
                interval_text(results.whole(cell, score)),
                difference_text(results.difference(cell, score)),
            ]
        lines.append(_line([titles[cell.name], *texts]))
    lines += [
        '',
        f'Scores of the whole test set, mean over the training seeds, with 95 % '
        f'intervals: {described}. A difference is to the same model without '
        f'pretraining and with as much tuning, and **bold** only where its interval '
        f'excludes 0.',
        '',
        *_recovered(results, cells),
    ]
    return lines


def interval_text(interval: Interval | None) -> str:
    """Write an estimate with its interval."""
    if interval is None or math.isnan(interval.estimate):
        return '-'
    return (
        f'{percent(interval.estimate)} [{percent(interval.low)}, '
        f'{percent(interval.high)}]'
    )


def difference_text(interval: Interval | None) -> str:
    """Write a difference, bold where its interval excludes zero."""
    if interval is None or math.isnan(interval.estimate):
        return '-'
    low, high = 100 * interval.low, 100 * interval.high
    text = f'{100 * interval.estimate:+.2f} [{low:+.2f}, {high:+.2f}]'
    return f'**{text}**' if interval.excludes_zero else text


def _recovered(results: Results, cells: list[Cell]) -> list[str]:
    lines = []
    titles = {c.name: row.title for row in results.table.rows for c in row.cells}
    for cell in cells:
        share = results.recovered(cell, 'mAP_micro')
        if share is None:
            continue
        if math.isnan(share.low):
            why = 'not defined, as the ceiling is not surely above scratch'
            text = f'{why} (the estimates would give {share.estimate:.2f})'
        else:
            text = f'{share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}]'
        lines.append(f'- {titles[cell.name]}: {text}')
    if lines:
        lines = [
            f'Recovered gain in mAP, (this - scratch) / (ceiling, pretrained on '
            f'{title_of(cells[0].target)}, - scratch):',
            '',
            *lines,
            '',
        ]
    return lines


def sign_lines(results: Results) -> Iterator[str]:
    """Say for each of the paper's rows whether its sign against scratch is seen."""
    from .definitions import table

    scratch = table('1').rows[0].paper
    for row in results.table.rows:
        for cell in row.cells:
            printed = row.paper.get(cell.target)
            if printed is None or cell.pretraining is None or cell.trainable != 'all':
                continue
            for place, (name, score) in enumerate(SHOWN):
                gain = printed[2 * place] - scratch[cell.target][2 * place]
                found = results.difference(cell, score)
                yield (
                    f'- {row.title}, {title_of(cell.target)} {name}: '
                    f'{"above" if gain > 0 else "below"} scratch in the paper '
                    f'({gain:+.2f}); {_verdict(gain, found)}'
                )


def _verdict(gain: float, found: Interval | None) -> str:
    if found is None:
        return 'not run here'
    if not found.excludes_zero:
        return f'cannot tell here ({difference_text(found)})'
    agrees = (found.estimate > 0) == (gain > 0)
    return f'{"agrees" if agrees else "disagrees"} here ({difference_text(found)})'


def _missing(results: Results) -> list[str]:
    if not results.missing:
        return []
    listed = [f'- {name}: {why}' for name, why in results.missing.items()]
    return ['## Not in this table', '', *listed, '']


def _rates(results: Results) -> list[str]:
    """The tuning that every cell had."""
    tried = {n: r for n, r in results.cells.items() if r.tried}
    if not tried:
        return []
    rates = sorted({rate for result in tried.values() for rate in result.tried})
    lines = [
        '## Learning rates tried, by validation mAP at the first seed',
        '',
        _line(['', *(f'{rate:g}' for rate in rates)]),
        _line(['--', *['--:'] * len(rates)]),
    ]
    for name, result in tried.items():
        cells = [
            f'**{percent(result.tried.get(rate))}**'
            if rate == result.base_lr
            else percent(result.tried.get(rate))
            for rate in rates
        ]
        lines.append(_line([name, *cells]))
    return [*lines, '']


def _line(cells: list[str]) -> str:
    return f'| {" | ".join(cells)} |'
