"""The files of a table."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...evaluation.metrics import multilabel_scores, per_class
from ..bootstrap import Interval
from ..predictions import Predictions
from .figure import figure
from .latex import latex
from .markdown import markdown
from .results import SCORES, TUNED, Results
from .unchanged_page import unchanged_rows

_PLACES = {'mAP_micro': 0, 'F1_micro': 1}


def write_table(results: Results, folder: Path) -> Path:
    """Write a table's files, moving older ones aside that differ.

    Args:
        results: The table.
        folder: Where to; made where it is missing.

    Returns:
        The Markdown page. Beside it: ``results.csv``, ``runs.csv``, ``per_class.csv``,
        ``per_country.csv``, ``table.tex`` and ``table.png``, and ``unchanged.csv``
        where heads were tested unchanged. None holds times or paths: equal runs give
        equal files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure(results).savefig(picture, format='png', dpi=160, metadata={'Software': None})
    files = {
        'results.csv': _csv(pd.DataFrame(list(_rows(results)))),
        'runs.csv': _csv(pd.DataFrame(list(_runs(results)))),
        'per_class.csv': _csv(pd.DataFrame(list(_classes(results)))),
        'per_country.csv': _csv(pd.DataFrame(list(_countries(results)))),
        'table.tex': latex(results).encode(),
        'table.png': picture.getvalue(),
        'table.md': markdown(results).encode(),
    }
    if results.tests:
        files['unchanged.csv'] = _csv(pd.DataFrame(list(unchanged_rows(results))))
    for name, content in files.items():
        _replace(folder / name, content)
    return folder / 'table.md'


def _rows(results: Results) -> Iterator[dict[str, Any]]:
    """One row a cell and score, in percent."""
    for row in results.table.rows:
        for cell in row.cells:
            shared = {
                'table': results.table.name,
                'row': row.name,
                'target': cell.target,
                'fraction': cell.fraction,
            }
            done = results.cells.get(cell.name)
            if done is None:
                yield {**shared, 'missing': results.missing[cell.name]}
                continue
            for score in (*SCORES, *TUNED):
                whole = results.whole(cell, score)
                if whole is None:
                    continue
                place = _PLACES.get(score)
                printed = row.paper.get(cell.target)
                difference = results.difference(cell, score)
                yield {
                    **shared,
                    'missing': '',
                    'score': score,
                    'seeds': ' '.join(map(str, results.seeds)),
                    'base_lr': done.base_lr,
                    **_interval('whole', whole),
                    'training_std': 100 * results.training_std(cell, score),
                    'subsets_mean': 100 * done.subsets[score][0],
                    'subsets_std': 100 * done.subsets[score][1],
                    **_interval('difference', difference),
                    'differs': '' if difference is None else difference.excludes_zero,
                    **_interval('recovered', results.recovered(cell, score), 1),
                    'floor': 100 * results.floor[cell.target].get(score, math.nan),
                    'paper': printed[2 * place]
                    if printed and place is not None
                    else math.nan,
                    'paper_std': printed[2 * place + 1]
                    if printed and place is not None
                    else math.nan,
                }


def _interval(
    name: str, interval: Interval | None, scale: float = 100
) -> dict[str, float]:
    values = (
        (math.nan,) * 3
        if interval is None
        else (interval.estimate, interval.low, interval.high)
    )
    ends = (name, f'{name}_low', f'{name}_high')
    return {key: scale * value for key, value in zip(ends, values, strict=True)}


def _runs(results: Results) -> Iterator[dict[str, Any]]:
    """One row a training run and score, in percent."""
    for name, done in results.cells.items():
        for score, values in results.compared[done.cell.target].whole[name].items():
            for seed, value in zip(results.seeds, values, strict=True):
                yield {'cell': name, 'seed': seed, 'score': score, 'value': 100 * value}


def _classes(results: Results) -> Iterator[dict[str, Any]]:
    """One row a cell and class: means over the training runs, in percent."""
    for name, done in results.cells.items():
        tables = [
            per_class(*_tensors(run), None if run.thresholds is None else
                      torch.tensor(run.thresholds), list(run.classes))
            for run in done.runs
        ]  # fmt: skip
        for position, title in enumerate(done.runs[0].classes):
            rows = [table.iloc[position] for table in tables]
            columns = [
                'AP',
                'F1',
                *(['F1_tuned'] if done.runs[0].thresholds is not None else []),
            ]
            yield {
                'cell': name,
                'class': title,
                'support': int(rows[0]['support']),
                **{c: 100 * float(np.mean([row[c] for row in rows])) for c in columns},
            }


def _countries(results: Results) -> Iterator[dict[str, Any]]:
    """One row a cell and country: means over the training runs, in percent."""
    for name, done in results.cells.items():
        countries = done.runs[0].countries
        for country in sorted(set(countries) - {''}):
            chosen = torch.from_numpy((countries == country).nonzero()[0])
            found = []
            for run in done.runs:
                probabilities, labels = _tensors(run)
                cuts = 0.5 if run.thresholds is None else torch.tensor(run.thresholds)
                found.append(
                    multilabel_scores(probabilities[chosen], labels[chosen], cuts)
                )
            yield {
                'cell': name,
                'country': country,
                'patches': len(chosen),
                **{
                    score: 100 * float(np.mean([scores[score] for scores in found]))
                    for score in found[0]
                },
            }


def _tensors(run: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.from_numpy(run.labels.astype(np.int64))
    return torch.from_numpy(run.probabilities), labels


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format='%.4f', lineterminator='\n').encode()


def _replace(path: Path, content: bytes) -> None:
    """Write a file, keeping an older one that differs under the next number."""
    if path.exists():
        if path.read_bytes() == content:
            return
        number = 1
        while (older := path.with_name(f'{path.stem}.{number}{path.suffix}')).exists():
            number += 1
        path.rename(older)
    part = path.with_name(f'{path.name}.part')
    part.write_bytes(content)
    part.replace(path)
