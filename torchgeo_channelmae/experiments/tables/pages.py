"""The files of a table: pages in Markdown and LaTeX, CSV files and a picture."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ...files import move_aside, whole
from .figures import figure
from .results import Record, Results
from .spec import Cell, read_table, title_of

PAPER = 'paper (averaging not stated)'
#: Scores that the paper prints, with the place of each among its numbers.
_PRINTED = (('mAP', 'mAP_micro', 0), ('F1', 'F1_micro', 2))
_SHOWN = {
    'mAP micro': 'mAP_micro',
    'F1 micro': 'F1_micro',
    'F1 micro, tuned': 'F1_micro_tuned',
    'mAP macro': 'mAP_macro',
    'F1 macro': 'F1_macro',
}


def write_table(results: Results, folder: Path) -> Path:
    """Write the files of a table, moving older ones aside if they differ.

    Args:
        results: The table.
        folder: Where to write them; created if missing.

    Returns:
        The Markdown page. Beside it: ``results.csv``, ``runs.csv``, ``per_class.csv``,
        ``per_country.csv``, ``table.tex`` and ``table.png``, and ``unchanged.csv`` if
        there are zero-shot tests. None has times or paths: equal runs give equal files.
    """
    picture = io.BytesIO()
    figure(results).savefig(picture, format='png', dpi=160, metadata={'Software': None})
    records = {
        'results.csv': results.scores,
        'runs.csv': results.runs,
        'per_class.csv': results.classes,
        'per_country.csv': results.countries,
    }
    if results.tests:
        records['unchanged.csv'] = results.zero_shot
    files = {name: _csv(found).encode() for name, found in records.items()}
    files['table.tex'] = latex(results).encode()
    files['table.png'] = picture.getvalue()
    files['table.md'] = markdown(results).encode()
    for name, content in files.items():
        path = folder / name
        if path.exists() and path.read_bytes() == content:
            continue
        move_aside(path)
        with whole(path) as part:
            part.write_bytes(content)
    return folder / 'table.md'


def _csv(records: list[Record]) -> str:
    table = pd.DataFrame(records)
    return table.to_csv(index=False, float_format='%.4f', lineterminator='\n')


def markdown(results: Results) -> str:
    """Return a table as a page of Markdown."""
    table, preset = results.table, results.preset
    seeds = ', '.join(map(str, results.seeds))
    policy = 'one pretraining per row, the seeds are of the fine-tuning'
    if preset.pretrainings == 'each':
        policy = 'each seed has its own pretraining and fine-tuning'
    parts = [
        f'# Table {table.name}: {table.title}',
        f'**{preset.about}**' if preset.about else '',
        f'Preset {preset.name}, training seeds {seeds}; {policy}. In percent; '
        f'micro-averaged unless said otherwise.',
    ]
    if table.name == 'matrix':
        parts += _gains(results)
    if results.tests:
        parts += _zero_shot(results)
    as_printed = _as_printed(results)
    as_printed.columns = pd.Index(
        [PAPER if head == 'paper' else f'{title} {head}' for title, head in as_printed]
    )
    parts += ['## As the paper has it', _grid(as_printed), _protocol(results)]
    for target in results.described:
        parts += _believed(results, target)
    if signs := list(_signs(results)):
        parts += ["## Does this run show the paper's signs?", '\n'.join(signs)]
    if results.missing:
        listed = [f'- {name}: {why}' for name, why in results.missing.items()]
        parts += ['## Not in this table', '\n'.join(listed)]
    if results.tried:
        parts += _rates(results)
    return '\n\n'.join(part for part in parts if part) + '\n'


def latex(results: Results) -> str:
    """Return a table for LaTeX, with the packages booktabs and graphicx."""
    table, about = results.table, results.preset.about
    frame = _as_printed(results)
    lines = frame.to_latex(
        escape=True,
        column_format='l' + 'r' * len(frame.columns),
        multicolumn_format='c',
    ).splitlines()
    body = lines.index(r'\midrule') + 1
    lines.insert(body + len(table.rows), r'\midrule')  # above the floor
    if table.printed:
        lines.insert(body + len(table.printed), r'\midrule')
    caption = f'{table.title}. {about} {_protocol(results)}'
    for letter in '&%$#_':
        caption = caption.replace(letter, f'\\{letter}')
    text = '\n'.join(
        [
            r'% needs \usepackage{booktabs,graphicx}',
            r'\begin{table}',
            r'\centering',
            rf'\caption{{{caption}}}',
            r'\resizebox{\linewidth}{!}{%',
            *lines[:-1],
            r'\end{tabular}}',
            r'\end{table}',
        ]
    )
    return text.replace('±', r'$\pm$') + '\n'


def _as_printed(results: Results) -> pd.DataFrame:
    """Our figures in the paper's protocol, with its own beside them."""
    table, heads, places = results.table, [], []
    for target in table.targets:
        for head, score, place in _PRINTED:
            heads.append((title_of(target), head))
            places.append((target, score, None))
            if table.printed:
                heads.append((title_of(target), 'paper'))
                places.append((target, score, place))
    rows = {}
    controls = [row for row in table.rows if row not in table.printed]
    for row in (*table.printed, *controls):
        rows[table.rows[row]] = [_figure(results, row, *place) for place in places]
    floors = []
    for target, score, place in places:
        found = [record['floor'] for (name, of), record in results.by_cell.items()
                 if of == score and name.endswith(f':{target}')]  # fmt: skip
        floors.append('' if place is not None else _number(found[0] if found else None))
    rows['class frequencies (floor)'] = floors
    return pd.DataFrame.from_dict(
        rows, orient='index', columns=pd.MultiIndex.from_tuples(heads)
    )


def _figure(
    results: Results, row: str, target: str, score: str, place: int | None
) -> str:
    """Our figure of a cell, or the paper's if it has a place among its numbers."""
    cell = results.table.cells.get(f'{row}:{target}')
    if place is not None:
        if cell is None or cell.paper is None:
            return ''
        return f'{cell.paper[place]:.2f} ± {cell.paper[place + 1]:.2f}'
    done = results.by_cell.get((cell.name, score)) if cell else None
    if done is None:
        return '-'
    return f'{_number(done["subsets_mean"])} ± {_number(done["subsets_std"])}'


def _protocol(results: Results) -> str:
    cuts = [
        f'{groups * len(seeds)} subsets that random cuts of the test set into {groups} '
        f'groups with the seeds {", ".join(map(str, seeds))} give'
        for groups, seeds in dict.fromkeys(results.protocols.values())
    ]
    paper = f' {PAPER}: its numbers as printed.' if results.table.printed else ''
    return (
        f"The paper's protocol: mean ± standard deviation over the "
        f'{", or the ".join(cuts) or "subsets of the test set"}, the same for every '
        f'model. The ± is of fifths of the test set and holds no variance of '
        f'training.{paper}'
    )


def _believed(results: Results, target: str) -> list[str]:
    cells = [c for c in results.table.cells.values() if c.target == target]
    heads = [head for name in _SHOWN for head in (name, 'pretrained - scratch')]
    rows, shares = {}, []
    for cell in cells:
        if (cell.name, 'mAP_micro') not in results.by_cell:
            continue
        found = [results.by_cell.get((cell.name, score)) for score in _SHOWN.values()]
        rows[cell.title] = [
            text for each in found for text in (_interval(each), _difference(each))
        ]
        shares += _recovered(results, cell)
    title = title_of(target)
    parts = [
        f'## {title}: the figures to believe',
        _grid(pd.DataFrame.from_dict(rows, orient='index', columns=heads)),
        f'Scores of the whole test set, mean over the training seeds, with 95 % '
        f'intervals: {results.described[target]}. A difference is to the same model '
        f'without pretraining and with as much tuning, and **bold** only if its '
        f'interval excludes 0.',
    ]
    if shares:
        parts += [
            f'Recovered gain in mAP, (this - scratch) / (ceiling, pretrained on '
            f'{title}, - scratch):',
            '\n'.join(shares),
        ]
    return parts


def _recovered(results: Results, cell: Cell) -> Iterator[str]:
    if not all(
        (n, 'mAP_micro') in results.by_cell for n in (cell.scratch, cell.ceiling)
    ):
        return
    record = results.by_cell[cell.name, 'mAP_micro']
    share, low, high = (record[f'recovered{end}'] for end in ('', '_low', '_high'))
    text = f'{share:.2f} [{low:.2f}, {high:.2f}]'
    if math.isnan(low):
        why = 'not defined, as the ceiling is not surely above scratch'
        text = f'{why} (the estimates would give {share:.2f})'
    yield f'- {cell.title}: {text}'


def _gains(results: Results) -> list[str]:
    targets, cells = results.table.targets, results.table.cells
    rows = {
        title: [
            _difference(results.by_cell.get((f'{row}:{target}', 'mAP_micro')))
            for target in targets
        ]
        for row, title in results.table.rows.items()
        if any(c.pretrain for c in cells.values() if c.row == row)
    }
    rows['*scratch: mAP micro*'] = [
        _interval(results.by_cell.get((f'scratch-p16:{target}', 'mAP_micro')))
        for target in targets
    ]
    columns = [f'to {title_of(target)}' for target in targets]
    frame = pd.DataFrame.from_dict(rows, orient='index', columns=columns)
    return [
        '## Gain over scratch in mAP micro, points',
        _grid(frame.rename_axis('pretrained on')),
        'Rows pretrain on a sensor, columns fine-tune and test on one. On the diagonal '
        'both are the same: the ceiling, which no other source is asked to reach. '
        '**Bold** only if the 95 % interval excludes 0.',
    ]


def _zero_shot(results: Results) -> list[str]:
    rows = []
    separate = {(t.cell.name, t.other): t for t in results.tests if not t.joined}
    for test in results.tests:
        cell = test.cell
        own = results.by_cell.get((cell.name, 'mAP_micro'))
        if not test.joined or own is None:
            continue
        other = separate.get((cell.name, test.other))  # none if A has a part of B
        kind = 'bands' if other else 'further bands'
        known = f' ({test.known} of {test.added} {kind} known)'
        if other and test.known == test.added:
            known = ''
        joined = results.by_test.get((test.name, 'mAP_micro'))
        only_b = results.by_test.get((other.name, 'mAP_micro')) if other else None
        rows.append(
            (
                f'{cell.title} -> {title_of(cell.target)}',
                f'{title_of(test.other)}{known}',
                _interval(own),
                _interval(only_b),
                _interval(joined),
                _difference(joined),
                _number(own['floor']),
            )
        )
    heads = ('pretrained -> trained on A', 'B', 'A itself', 'B alone', 'A + B',
             '(A + B) - A', 'floor')  # fmt: skip
    return [
        '## The same head on other bands, without training',
        _grid(pd.DataFrame(rows, columns=heads).set_index(heads[0])),
        'mAP micro of the whole test set with 95 % intervals, from the same draws as '
        'below. Model, head and thresholds are those trained on A; bands of B have the '
        'embeddings of the pretraining, and those that it did not read start as '
        'fresh_bands of conf/unchanged.yaml says. A difference is paired, and **bold** '
        'only if its interval excludes 0. The floor predicts how frequent each '
        'class is. If A has bands of B, A + B adds the further ones, and there is '
        'no B alone.',
    ]


def _signs(results: Results) -> Iterator[str]:
    """Compare the paper's signs against scratch with ours."""
    scratch = read_table('1').cells
    for cell in results.table.cells.values():
        if cell.paper is None or cell.pretrain is None or cell.trainable != 'all':
            continue
        for head, score, place in _PRINTED:
            base = scratch[f'scratch-p16:{cell.target}'].paper
            assert base is not None
            gain = cell.paper[place] - base[place]
            found = results.by_cell.get((cell.name, score))
            text = _difference(found)
            verdict = f'cannot tell here ({text})'
            if found is None or text == '-':
                verdict = 'not run here'
            elif found['differs']:
                agrees = (found['difference'] > 0) == (gain > 0)
                verdict = f'{"agrees" if agrees else "disagrees"} here ({text})'
            yield (
                f'- {cell.title}, {title_of(cell.target)} {head}: '
                f'{"above" if gain > 0 else "below"} scratch in the paper '
                f'({gain:+.2f}); {verdict}'
            )


def _rates(results: Results) -> list[str]:
    rates = sorted({rate for tried in results.tried.values() for rate in tried})
    rows = {}
    for name, tried in results.tried.items():
        best = results.by_cell[name, 'mAP_micro']['base_lr']
        texts = {rate: _number(100 * tried.get(rate, math.nan)) for rate in rates}
        rows[name] = [f'**{t}**' if rate == best else t for rate, t in texts.items()]
    columns = [f'{rate:g}' for rate in rates]
    return [
        '## Learning rates tried, by validation mAP at the first seed',
        _grid(pd.DataFrame.from_dict(rows, orient='index', columns=columns)),
    ]


def _grid(frame: pd.DataFrame) -> str:
    align = ('left', *['right'] * len(frame.columns))
    return frame.to_markdown(disable_numparse=True, colalign=align)


def _interval(record: Record | None) -> str:
    """Write a score with its interval, '-' if there is none."""
    if record is None or math.isnan(record['whole']):
        return '-'
    value, low, high = (_number(record[f'whole{e}']) for e in ('', '_low', '_high'))
    return f'{value} [{low}, {high}]'


def _difference(record: Record | None) -> str:
    """Write a difference, bold if its interval excludes 0."""
    if record is None or math.isnan(record['difference']):
        return '-'
    ends = [record[f'difference{end}'] for end in ('', '_low', '_high')]
    value, low, high = (_number(end, '+') for end in ends)
    text = f'{value} [{low}, {high}]'
    return f'**{text}**' if ends[1] > 0 or ends[2] < 0 else text


def _number(value: float | None, sign: str = '') -> str:
    return '-' if value is None or math.isnan(value) else f'{value:{sign}.2f}'
