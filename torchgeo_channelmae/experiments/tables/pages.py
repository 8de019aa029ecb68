"""The files of a table: pages in Markdown and LaTeX, CSV files and a picture."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pandas as pd

from ...files import move_aside, whole
from .figures import figure
from .results import PRINTED, Record, Results
from .spec import read_table, title_of

_MAP = 'mAP_micro'
_ENDS = ('', '_low', '_high')
_SHOWN = {
    'mAP micro': _MAP,
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
    files = {
        name: frame.to_csv(
            index=False, float_format='%.4f', lineterminator='\n'
        ).encode()
        for name, frame in results.frames().items()
    }
    picture = io.BytesIO()
    figure(results).savefig(picture, format='png', dpi=160, metadata={'Software': None})
    files['table.png'] = picture.getvalue()
    for name in ('table.tex', 'table.md'):
        files[name] = page(results, name).encode()
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            move_aside(path)
            with whole(path) as part:
                part.write_bytes(content)
    return folder / 'table.md'


def page(results: Results, name: str) -> str:
    """Return a table as ``table.md`` or ``table.tex``, from a template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name('templates')),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {'grid': _grid, 'tex': _tex}
    parts = (as_printed, believed, gains, latex, rates, recovered, signs, zero_shot)
    environment.globals |= {part.__name__: part for part in (*parts, title_of)}
    return environment.get_template(f'{name}.jinja').render(
        results=results, table=results.table, preset=results.preset
    )


def as_printed(results: Results) -> pd.DataFrame:
    """Return our figures in the paper's protocol, with its own beside them."""
    table, by_name = results.table, results.by_name
    columns: dict[tuple[str, str], list[str]] = {}
    for target in table.targets:
        names = [f'{row}:{target}' for row in table.rows]
        for score, place in PRINTED.items():
            top, head = title_of(target), score.removesuffix('_micro')
            ours, theirs, floor = [], [], '-'
            for name in names:
                text = '-'
                if record := by_name.get((name, score)):
                    floor = _number(record['floor'])
                    text = f'{record["subsets_mean"]:.2f} ± {record["subsets_std"]:.2f}'
                ours.append(text)
                paper = table.cells[name].paper if name in table.cells else None
                text = f'{paper[place]:.2f} ± {paper[place + 1]:.2f}' if paper else ''
                theirs.append(text)
            columns[top, head] = [*ours, floor]
            if table.printed:
                columns[top, f'{head}, paper'] = [*theirs, '']
    return pd.DataFrame(columns, [*table.rows.values(), 'class frequencies (floor)'])


def latex(results: Results) -> str:
    """Return the ``tabular`` of a table."""
    frame = as_printed(results)
    align = 'l' + 'r' * frame.shape[1]
    return frame.to_latex(escape=True, column_format=align, multicolumn_format='c')


def believed(results: Results, target: str) -> pd.DataFrame:
    """Return scores of the whole test set and differences to scratch."""
    rows: dict[str, list[str]] = {}
    for name, cell in results.done.items():
        if cell.target == target:
            rows[cell.title] = texts = []
            for score in _SHOWN.values():
                record = results.by_name.get((name, score))
                texts += [_interval(record), _difference(record)]
    heads = [head for name in _SHOWN for head in (name, 'pretrained - scratch')]
    return pd.DataFrame.from_dict(rows, orient='index', columns=heads)


def recovered(results: Results, target: str) -> Iterator[str]:
    """Yield which share of the way from scratch to the ceiling each cell goes."""
    for name, cell in results.done.items():
        if cell.target != target or not {cell.scratch, cell.ceiling} <= {*results.done}:
            continue
        record = results.by_name[name, _MAP]
        share, low, high = (record[f'recovered{end}'] for end in _ENDS)
        text = f'{share:.2f} [{low:.2f}, {high:.2f}]'
        if math.isnan(low):
            text = (
                f'not defined, as the ceiling is not surely above scratch (the '
                f'estimates would give {share:.2f})'
            )
        yield f'{cell.title}: {text}'


def gains(results: Results) -> pd.DataFrame:
    """Return the gains over scratch: a row per source and a column per target."""
    rows = results.table.rows
    frame = pd.DataFrame(index=pd.Index(rows.values(), name='pretrained on'))
    for target in results.table.targets:
        found = [results.by_name.get((f'{row}:{target}', _MAP)) for row in rows]
        texts = [_interval(found[0]), *map(_difference, found[1:])]
        frame[f'to {title_of(target)}'] = texts
    scratch = frame.index[0]
    return pd.concat([frame[1:], frame[:1].rename({scratch: '*scratch: mAP micro*'})])


def zero_shot(results: Results) -> pd.DataFrame:
    """Return scores on other bands: a row per fine-tuned cell and other sensor."""
    rows = []
    separate = {(t.cell.name, t.other): t.name for t in results.tests if not t.joined}
    for test in results.tests:
        cell, by_name = test.cell, results.by_name
        if not test.joined or cell.name not in results.runs:
            continue
        other = separate.get((cell.name, test.other), '')  # none if A has a part of B
        known = ''
        if test.known < test.added or not other:
            added = f'{test.added} {"bands" if other else "further bands"}'
            known = f' ({test.known} of {added} known)'
        own, only_b, both = (
            by_name.get((name, _MAP)) for name in (cell.name, other, test.name)
        )
        texts = [*map(_interval, (own, only_b, both)), _difference(both)]
        title = f'{cell.title} -> {title_of(cell.target)}'
        floor = _number(by_name[cell.name, _MAP]['floor'])
        rows.append((title, f'{title_of(test.other)}{known}', *texts, floor))
    heads = 'pretrained -> trained on A | B | A itself | B alone | A + B | (A + B) - A'
    columns = [*heads.split(' | '), 'floor']
    return pd.DataFrame(rows, columns=columns).set_index(columns[0])


def signs(results: Results) -> Iterator[str]:
    """Yield the paper's signs against scratch, with ours."""
    printed = read_table('1').cells
    for name, cell in results.table.cells.items():
        if not (cell.paper and cell.pretrain and cell.trainable == 'all'):
            continue
        scratch = printed[f'scratch-p16:{cell.target}'].paper or ()
        for score, place in PRINTED.items():
            gain = cell.paper[place] - scratch[place]
            found = results.by_name.get((name, score))
            verdict = 'not run here'
            if (text := _difference(found)) != '-' and found:
                agrees = (found['difference'] > 0) == (gain > 0)
                word = 'agrees' if agrees else 'disagrees'
                verdict = f'{word if found["differs"] else "cannot tell"} here ({text})'
            head = f'{title_of(cell.target)} {score.removesuffix("_micro")}'
            side = 'above' if gain > 0 else 'below'
            yield (
                f'{cell.title}, {head}: {side} scratch in the paper ({gain:+.2f}); '
                f'{verdict}'
            )


def rates(results: Results) -> pd.DataFrame:
    """Return the validation score of each learning rate, the best one bold."""
    frame = pd.DataFrame(results.tried).T.sort_index(axis='columns')
    texts = frame.map(lambda score: _number(100 * score))
    for name in frame.index:
        best = results.by_name[name, _MAP]['base_lr']
        texts.loc[name, best] = f'**{texts.loc[name, best]}**'
    return texts.rename(columns=lambda rate: f'{rate:g}')


def _grid(frame: pd.DataFrame) -> str:
    if frame.columns.nlevels > 1:
        frame = frame.set_axis([*map(' '.join, frame.columns)], axis='columns')
    align = ('left', *['right'] * frame.shape[1])
    return frame.to_markdown(disable_numparse=True, colalign=align)


def _tex(text: str) -> str:
    for letter in '&%$#_':
        text = text.replace(letter, f'\\{letter}')
    return text


def _interval(record: Record | None) -> str:
    """Write a score with its interval, '-' if there is none."""
    ends = [record[f'whole{end}'] if record else math.nan for end in _ENDS]
    value, low, high = map(_number, ends)
    return '-' if value == '-' else f'{value} [{low}, {high}]'


def _difference(record: Record | None) -> str:
    """Write a difference, bold if its interval excludes 0."""
    ends = [record[f'difference{end}'] if record else math.nan for end in _ENDS]
    value, low, high = (_number(end, '+') for end in ends)
    text = '-' if value == '-' else f'{value} [{low}, {high}]'
    return f'**{text}**' if ends[1] > 0 or ends[2] < 0 else text


def _number(value: float, sign: str = '') -> str:
    return '-' if math.isnan(value) else f'{value:{sign}.2f}'
