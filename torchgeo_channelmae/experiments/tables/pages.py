"""The files of a table: pages in Markdown and LaTeX, CSV files and a picture."""

import io
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import jinja2
import pandas as pd

from ...files import move_aside, whole
from ..replicates import SCORES
from .figures import figure
from .protocol import power
from .results import Record, Results, ends
from .spec import PRINTED, title_of

_MAP = 'mAP_micro'


def write_table(results: Results, folder: Path) -> Path:
    """Write the files of a table, moving older ones aside if they differ.

    Args:
        results: The table.
        folder: Where to write them; created if missing.

    Returns:
        The Markdown page. Beside it: ``results.csv``, ``runs.csv``, ``per_class.csv``,
        ``per_country.csv``, ``table.tex`` and ``table.png``, and ``unchanged.csv`` if
        there are zero-shot tests. Equal runs give equal files.
    """
    files = {
        name: frame.to_csv(index=False, float_format='%.4f', lineterminator='\n')
        for name, frame in results.frames().items()
    }
    files |= {name: page(results, name) for name in ('table.tex', 'table.md')}
    contents = {name: text.encode() for name, text in files.items()}
    picture = io.BytesIO()
    figure(results).savefig(picture, format='png', dpi=160, metadata={'Software': None})
    contents['table.png'] = picture.getvalue()
    for name, content in contents.items():
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
    parts = (as_printed, believed, by_unit, contrasts, gains, heads, primary, rates,
             recovered, validated, zero_shot)  # fmt: skip
    environment.globals |= {part.__name__: part for part in (*parts, title_of)}
    return environment.get_template(f'{name}.jinja').render(
        results=results,
        table=results.table,
        preset=results.preset,
        power=power(results.preset, len(results.seeds)),
    )


def as_printed(results: Results) -> pd.DataFrame:
    """Return our scores in the paper's protocol, with the printed ones beside them."""
    table = results.table
    columns: dict[tuple[str, str], list[str]] = {}
    for target, score in product(table.targets, PRINTED):
        ours, theirs, floor = [], [], math.nan
        for row in table.rows:
            record = results.by_name.get((f'{row}:{target}', score))
            cell, text = table.cells.get(f'{row}:{target}'), '-'
            if record:
                floor = record['floor']
                text = f'{record["subsets_mean"]:.2f} ± {record["subsets_std"]:.2f}'
            ours.append(text)
            paper = cell.paper.get(score) if cell else None
            theirs.append('{:.2f} ± {:.2f}'.format(*paper) if paper else '')
        top, head = title_of(target), score.removesuffix('_micro')
        columns[top, head] = [*ours, _number(floor)]
        if table.printed:
            columns[top, f'{head}, paper'] = [*theirs, '']
    return pd.DataFrame(columns, [*table.rows.values(), 'class frequencies (floor)'])


def believed(results: Results, target: str) -> pd.DataFrame:
    """Return scores of the whole test set and differences to scratch."""
    rows: dict[str, list[str]] = {}
    for name, cell in results.done.items():
        if cell.target == target:
            records = [results.by_name[name, score] for score in SCORES]
            rows[cell.title] = [f(r) for r in records for f in (_interval, _difference)]
    names = [score.replace('_', ' ') for score in SCORES]
    columns = [each for name in names for each in (name, 'pretrained - scratch')]
    return pd.DataFrame.from_dict(rows, orient='index', columns=columns)


def primary(results: Results) -> str:
    """Return the primary comparison as a sentence, bold if its interval excludes 0."""
    one, other = (results.table.cells.get(name) for name in results.table.primary)
    if not one or not other:
        return f'{" - ".join(results.table.primary)}, which this table does not have'
    found = results.difference(one.name, other.name, _MAP)
    text = _difference(ends('difference', found))
    mark = '**' if found and found.excludes_zero else ''
    where = f'on {title_of(one.target)}, mAP micro'
    return f'{one.title} - {other.title} {where}: {mark}{text}{mark}'


def contrasts(results: Results, target: str) -> pd.DataFrame:
    """Return differences between rows that are no pair of pretrained and scratch."""
    rows = {}
    for one, other in results.table.contrasts:
        cell, compared = results.table.cells[one], results.table.cells[other]
        if cell.target == target:
            found = [results.difference(one, other, score) for score in SCORES]
            texts = [_difference(ends('difference', each)) for each in found]
            rows[f'{cell.title} - {compared.title}'] = texts
    names = [score.replace('_', ' ') for score in SCORES]
    return pd.DataFrame.from_dict(rows, orient='index', columns=names)


def by_unit(results: Results, target: str) -> pd.DataFrame:
    """Return differences to scratch in mAP by both units of the test set."""
    both, rows = (results.compared[target], results.otherwise[target]), {}
    for name, cell in results.done.items():
        if cell.target == target and (base := cell.scratch) in results.done:
            found = [each.difference(name, str(base), _MAP) for each in both]
            rows[cell.title] = [_difference(ends('difference', each)) for each in found]
    columns = [f'{each.clusters} {each.unit}' for each in both]
    return pd.DataFrame.from_dict(rows, orient='index', columns=columns)


def recovered(results: Results, target: str) -> Iterator[str]:
    """Yield for each cell the share of the gain of the ceiling over scratch."""
    for name, cell in results.done.items():
        if cell.target == target and {cell.scratch, cell.ceiling} <= {*results.done}:
            record = results.by_name[name, _MAP]
            text = _interval(record, 'recovered')
            title = results.table.cells[str(cell.ceiling)].title
            if math.isnan(record['recovered_low']):
                why = 'the ceiling is not reliably above scratch'
                text = f'undefined, as {why} ({text})'
            yield f'{cell.title} (ceiling: {title}): {text}'


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
    by_name, rows = results.by_name, []
    separate = {(t.cell.name, t.other): t.name for t in results.tests if not t.joined}
    for test in results.tests:
        cell = test.cell
        if not test.joined or cell.name not in results.runs:
            continue
        only_b = separate.get((cell.name, test.other))  # None if A and B share bands
        other = f'{title_of(test.other)} ({test.known} of {test.added} bands known)'
        found = [by_name.get((str(n), _MAP)) for n in (cell.name, only_b, test.name)]
        trained = f'{cell.title} -> {title_of(cell.target)}'
        floor = _number(by_name[cell.name, _MAP]['floor'])
        texts = *map(_interval, found), _difference(found[-1])
        rows.append((trained, other, *texts, floor))
    first = 'pretrained -> trained on A'
    heads = [first, 'B', 'A itself', 'B alone', 'A + B', '(A + B) - A', 'floor']
    return pd.DataFrame(rows, columns=heads).set_index(first)


def rates(results: Results) -> pd.DataFrame:
    """Return the validation score of each choice: a column per learning rate."""
    rows: dict[str, dict[float, str]] = {}
    for name, choices in results.tried.items():
        used = results.settings[name]
        for tuned, score in choices:
            decay = tuned.get('layer_decay')
            row = name if decay is None else f'{name}, layer decay {decay:g}'
            text = _number(100 * score)
            if all(float(used[f'model.init_args.{k}']) == v for k, v in tuned.items()):
                text = f'**{text}**'
            rows.setdefault(row, {})[tuned['base_lr']] = text
    frame = pd.DataFrame.from_dict(rows, orient='index').sort_index(axis='columns')
    return frame.fillna('-').rename(columns='{:g}'.format)


def heads(results: Results) -> pd.DataFrame:
    """Return the scores of heads on frozen encoders beside logistic regression's."""
    rows = {}
    for name, both in results.regressions.items():
        unlike = abs(both[0] - both[1]) > 0.005
        verdict = '**differs: tune or train the head longer**' if unlike else 'agrees'
        rows[name] = [*(_number(100 * score) for score in both), verdict]
    columns = ['head', 'logistic regression', '']
    return pd.DataFrame.from_dict(rows, orient='index', columns=columns)


def validated(results: Results) -> str:
    """Return how many validation patches chose rates and thresholds."""
    known = pd.Series(results.validated, dtype=float).dropna().astype(int)
    parts = [
        f'{count:,}' + (f' ({", ".join(names)})' if known.nunique() > 1 else '')
        for count, names in known.groupby(known).groups.items()
    ]
    return ', '.join(parts) or 'unknown'


def _grid(frame: pd.DataFrame) -> str:
    if frame.columns.nlevels > 1:
        frame = frame.set_axis([*map(' '.join, frame.columns)], axis='columns')
    align = ('left', *['right'] * frame.shape[1])
    return frame.to_markdown(disable_numparse=True, colalign=align)


def _tex(text: str) -> str:
    return text.translate({ord(letter): f'\\{letter}' for letter in '&%$#_'})


def _interval(record: Record | None, key: str = 'whole', sign: str = '') -> str:
    """Format a value with its interval, '-' if there is none."""
    keys = (key, f'{key}_low', f'{key}_high')
    ends = [_number(record[each] if record else math.nan, sign) for each in keys]
    return '-' if ends[0] == '-' else '{} [{}, {}]'.format(*ends)


def _difference(record: Record | None) -> str:
    """Format a difference with its interval."""
    return _interval(record, 'difference', '+')


def _number(value: float, sign: str = '') -> str:
    return '-' if math.isnan(value) else f'{value:{sign}.2f}'
