"""What unchanged heads score on other sensors, as Markdown and as rows of a table."""

import math
from collections.abc import Iterator
from typing import Any

from ..bootstrap import Interval
from ..resampled import SCORES, TUNED
from .markdown import difference_text, interval_text, percent
from .results import Results
from .sensors import title_of
from .unchanged import Unchanged

_SCORE = 'mAP_micro'


def unchanged_lines(results: Results) -> list[str]:
    """Write a section of Markdown, a row a fine-tuned model and other sensor."""
    if not results.tests:
        return []
    lines = [
        '## The same head on other bands, without training',
        '',
        '| pretrained -> trained on A | B | A itself | B alone | A + B | (A + B) - A | '
        'floor |',
        '| -- | -- | --: | --: | --: | --: | --: |',
    ]
    titles = {row.name: row.title for row in results.table.rows}
    alone = {(t.cell, t.other): t for t in results.tests if not t.joined}
    for test in results.tests:
        cell = results.table.cells[test.cell]
        if not test.joined or test.cell not in results.cells:
            continue
        one = alone.get((test.cell, test.other))  # none where A has a part of B
        more = 'bands' if one else 'further bands'
        known = (
            ''
            if one and test.known == test.added
            else f' ({test.known} of {test.added} {more} known)'
        )
        texts = [
            f'{titles[cell.row]} -> {title_of(cell.target)}',
            f'{title_of(test.other)}{known}',
            interval_text(results.whole(cell, _SCORE)),
            interval_text(_whole(results, one, _SCORE) if one else None),
            interval_text(_whole(results, test, _SCORE)),
            difference_text(_difference(results, test, _SCORE)),
            percent(results.floor[cell.target].get(_SCORE)),
        ]
        lines.append(f'| {" | ".join(texts)} |')
    return [
        *lines,
        '',
        'mAP micro of the whole test set with 95 % intervals, from the same draws as '
        'below. Model, head and thresholds are those trained on A; bands of B have the '
        'embeddings of the pretraining, and those that it did not read start as '
        'fresh_bands of conf/unchanged.yaml says. A difference is paired, and **bold** '
        'only where its interval excludes 0. The floor predicts how frequent each '
        'class is. Where A has bands of B, A + B adds the further ones, and there is '
        'no B alone.',
        '',
    ]


def unchanged_rows(results: Results) -> Iterator[dict[str, Any]]:
    """One row a test and score, in percent, of A itself as well."""
    for test in results.tests:
        cell = results.table.cells[test.cell]
        shared = {
            'row': cell.row,
            'trained_on': cell.target.lower(),
            'tested_on': test.tested,
            'bands': len(test.bands),
            'known_of_other': test.known,
            'missing': '',
        }
        if not _is_there(results, test):
            yield {
                **shared,
                'missing': results.missing.get(test.name, _why(results, test)),
            }
            continue
        for score in (*SCORES, *TUNED):
            whole = _whole(results, test, score)
            if whole is None:
                continue
            yield {
                **shared,
                'score': score,
                'seeds': ' '.join(map(str, results.seeds)),
                **_ends('whole', whole),
                **_ends('on_a', results.whole(cell, score)),
                **_ends('difference', _difference(results, test, score)),
                'floor': 100 * results.floor[cell.target].get(score, math.nan),
            }


def _why(results: Results, test: Unchanged) -> str:
    return f'its fine-tuning {results.missing.get(test.cell, "is not there")}'


def _is_there(results: Results, test: Unchanged) -> bool:
    compared = results.compared.get(test.target)
    return compared is not None and test.name in compared.whole


def _whole(results: Results, test: Unchanged, score: str) -> Interval | None:
    if not _is_there(results, test):
        return None
    compared = results.compared[test.target]
    return (
        compared.interval(test.name, score) if score in _scores(results, test) else None
    )


def _difference(results: Results, test: Unchanged, score: str) -> Interval | None:
    if not _is_there(results, test) or score not in _scores(results, test):
        return None
    return results.compared[test.target].difference(test.name, test.cell, score)


def _scores(results: Results, test: Unchanged) -> set[str]:
    """Scores that both the test and its cell have."""
    whole = results.compared[test.target].whole
    return {*whole[test.name]} & {*whole[test.cell]}


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {
        name: 100 * interval.estimate,
        f'{name}_low': 100 * interval.low,
        f'{name}_high': 100 * interval.high,
    }
