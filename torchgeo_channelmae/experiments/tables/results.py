"""What the finished runs of a table say, as numbers."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from ...evaluation.metrics import evaluate, multilabel_scores, per_class
from ..bootstrap import Bootstrap, Interval, bootstrap
from ..predictions import Predictions, read_predictions
from ..replicates import SCORES, TUNED
from .plan import Plan
from .runner import Outcome, best_run, validation_score
from .spec import Cell, Preset, Table
from .zero_shot import ZeroShotTest

Record = dict[str, Any]
Runs = Sequence[Predictions]

PRINTED = {'mAP_micro': 0, 'F1_micro': 2}
"""Scores that the paper prints, with the place of each in ``Cell.paper``."""


@dataclass(frozen=True)
class Results:
    """All that a table shows. Scores in its frames are in percent.

    Attributes:
        table: The table.
        preset: How large it was run.
        seeds: Training seeds.
        tests: Zero-shot tests.
        missing: Why a cell or test is not there, by name.
        runs: Test predictions by name of a cell or test, one per training seed.
        settings: Settings of the first run of each cell and test.
        tried: For each cell the validation score of each learning rate, if several.
        compared: For each target the bootstrap over its cells and tests.
    """

    table: Table
    preset: Preset
    seeds: tuple[int, ...]
    tests: tuple[ZeroShotTest, ...]
    missing: Mapping[str, str]
    runs: Mapping[str, Runs]
    settings: Mapping[str, Mapping[str, Any]]
    tried: Mapping[str, Mapping[float, float]]
    compared: Mapping[str, Bootstrap]

    @property
    def done(self) -> dict[str, Cell]:
        """Cells that are done."""
        return {n: cell for n, cell in self.table.cells.items() if n in self.runs}

    @cached_property
    def scores(self) -> list[Record]:
        """Records per cell and score."""
        return list(_score_records(self))

    @cached_property
    def zero_shot(self) -> list[Record]:
        """Records per zero-shot test and score, with the score of the cell itself."""
        return list(_zero_shot_records(self))

    @cached_property
    def by_name(self) -> dict[tuple[str, str], Record]:
        """Records of the cells and tests that are done, by name and score."""
        named = [(f'{r["row"]}:{r["target"]}', r) for r in self.scores]
        for r in self.zero_shot:
            cell = f'{r["row"]}:{r["trained_on"].upper()}'
            named.append((f'{cell} on {r["tested_on"]}', r))
        return {(name, r['score']): r for name, r in named if not r['missing']}

    @property
    def protocols(self) -> list[tuple[int, tuple[int, ...]]]:
        """Different protocols of the cells that are done."""
        return list(dict.fromkeys(map(self.protocol, self.done)))

    def described(self, target: str) -> str:
        """Return which variance the intervals of a target hold."""
        return self.compared[target].describe(next(iter(self.compared[target].whole)))

    def protocol(self, name: str) -> tuple[int, tuple[int, ...]]:
        """Return the random groups of a cell's test set and the seeds of the cuts."""
        values = self.settings[name]
        seeds = values.get('data.init_args.test_group_seeds', (0, 1, 2))
        return int(values.get('data.init_args.test_groups', 5)), tuple(seeds)

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the contents of the CSV files by name."""
        records: dict[str, Iterable[Record]] = {
            'results.csv': self.scores,
            'runs.csv': _run_records(self),
            'per_class.csv': _class_records(self),
            'per_country.csv': _country_records(self),
        }
        if self.tests:
            records['unchanged.csv'] = self.zero_shot
        return {name: pd.DataFrame(found) for name, found in records.items()}


def read_results(
    table: Table,
    preset: Preset,
    plan: Plan,
    outcome: Outcome,
    folder: Path,
    seeds: Sequence[int],
    resamples: int,
    tests: Sequence[ZeroShotTest] = (),
) -> Results:
    """Read the predictions of finished runs and compare the cells.

    Args:
        table: The table.
        preset: How large it was run.
        plan: Its runs.
        outcome: Why each run failed, None for those that are done.
        folder: Folder of all runs.
        seeds: Training seeds.
        resamples: Resamples of the bootstrap.
        tests: Zero-shot tests.

    Raises:
        FileNotFoundError: If a file of a run is missing.
        ValueError: If files do not belong together.
    """
    missing = dict(plan.left_out)
    found: dict[str, Runs] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    tried: dict[str, dict[float, float]] = {}
    targets: dict[str, dict[str, Runs]] = {target: {} for target in table.targets}
    cells = {test.name: test.cell for test in tests}
    for name, cell in {**table.cells, **cells}.items():
        if name in missing or (name in cells and cell.name not in found):
            continue
        if name not in plan.by_cell:
            missing[name] = 'was not asked for'
            continue
        rates = plan.tried.get(name, {})
        names = [*rates, *plan.by_cell[name]]
        if failed := [outcome[run] for run in names if outcome[run]]:
            missing[name] = f'failed: {failed[0]}'
            continue
        if rates:
            tried[name] = {lr: validation_score(folder / r) for r, lr in rates.items()}
            names = [best_run(rates, folder), *plan.by_cell[name]]
        runs = [read_predictions(folder / run / 'test') for run in names]
        if name in cells and not _comparable(runs, found[cell.name]):
            missing[name] = (
                f'was tested on {len(runs[0].patch_ids)} patches, which are not those '
                f'of {cell.name}: they cannot be compared'
            )
            continue
        found[name] = targets[cell.target][name] = runs
        settings[name] = yaml.safe_load((folder / f'{names[0]}.yaml').read_text())
    compared = {t: bootstrap(of, resamples) for t, of in targets.items() if of}
    return Results(table, preset, tuple(seeds), tuple(tests), missing, found, settings,
                   tried, compared)  # fmt: skip


def _comparable(runs: Runs, others: Runs) -> bool:
    return all(
        np.array_equal(run.patch_ids, others[0].patch_ids)
        and np.array_equal(run.labels, others[0].labels)
        for run in runs
    )


def _score_records(results: Results) -> Iterator[Record]:
    for name, cell in results.table.cells.items():
        shared = {
            'table': results.table.name,
            'row': cell.row,
            'target': cell.target,
            'fraction': cell.fraction,
        }
        if name not in results.runs:
            yield {**shared, 'missing': results.missing[name]}
            continue
        compared, runs = results.compared[cell.target], results.runs[name]
        cuts = results.protocol(name)
        subsets = pd.DataFrame([evaluate(*_tensors(run), *cuts) for run in runs]).mean()
        for score in (*SCORES, *TUNED):
            if not _have(compared, score, name):
                continue
            values = compared.whole[name][score]
            gain = share = None
            base, ceiling = cell.scratch or '', cell.ceiling or ''
            if _have(compared, score, base):
                gain = compared.difference(name, base, score)
                if _have(compared, score, ceiling):
                    share = compared.recovered(name, base, ceiling, score)
            paper: tuple[float, ...] = (math.nan, math.nan)
            if cell.paper and score in PRINTED:
                paper = cell.paper[PRINTED[score] :][:2]
            yield {
                **shared,
                'missing': '',
                'score': score,
                'seeds': ' '.join(map(str, results.seeds)),
                'base_lr': float(results.settings[name]['model.init_args.base_lr']),
                **_ends('whole', compared.interval(name, score)),
                'training_std': 100 * float(pd.Series(values).std()),
                'subsets_mean': 100 * subsets[f'{score}_mean'],
                'subsets_std': 100 * subsets[f'{score}_std'],
                **_ends('difference', gain),
                'differs': gain.excludes_zero if gain else '',
                **_ends('recovered', share, 1),
                'floor': 100 * runs[0].floor.get(score, math.nan),
                'paper': paper[0],
                'paper_std': paper[1],
            }


def _zero_shot_records(results: Results) -> Iterator[Record]:
    for test in results.tests:
        name, cell = test.name, test.cell
        shared = {
            'row': cell.row,
            'trained_on': cell.target.lower(),
            'tested_on': test.tested,
            'bands': len(test.bands),
            'known_of_other': test.known,
            'missing': '',
        }
        if name not in results.runs:
            of_cell = f'its fine-tuning {results.missing.get(cell.name)}'
            yield {**shared, 'missing': results.missing.get(name, of_cell)}
            continue
        compared, runs = results.compared[cell.target], results.runs[cell.name]
        for score in (*SCORES, *TUNED):
            if _have(compared, score, name) and _have(compared, score, cell.name):
                yield {
                    **shared,
                    'score': score,
                    'seeds': ' '.join(map(str, results.seeds)),
                    **_ends('whole', compared.interval(name, score)),
                    **_ends('on_a', compared.interval(cell.name, score)),
                    **_ends('difference', compared.difference(name, cell.name, score)),
                    'floor': 100 * runs[0].floor.get(score, math.nan),
                }


def _run_records(results: Results) -> Iterator[Record]:
    for name, cell in results.done.items():
        for score, values in results.compared[cell.target].whole[name].items():
            for seed, value in zip(results.seeds, 100 * values, strict=True):
                yield {'cell': name, 'seed': seed, 'score': score, 'value': value}


def _class_records(results: Results) -> Iterator[Record]:
    for name in results.done:
        runs = results.runs[name]
        tables = [per_class(*_tensors(run), list(run.classes)) for run in runs]
        columns = [
            'AP',
            'F1',
            *(['F1_tuned'] if _tensors(runs[0])[2] is not None else []),
        ]
        means = 100 * pd.concat(tables).groupby(level=0)[columns].mean()
        for label, support in tables[0]['support'].items():
            shared = {'cell': name, 'class': label, 'support': int(support)}
            yield {**shared, **means.loc[str(label)]}


def _country_records(results: Results) -> Iterator[Record]:
    for name in results.done:
        runs = results.runs[name]
        for country in sorted(set(runs[0].countries) - {''}):
            chosen = torch.from_numpy(runs[0].countries == country)
            found = []
            for run in runs:
                scores, labels, cuts = _tensors(run)
                cuts = 0.5 if cuts is None else cuts
                found.append(multilabel_scores(scores[chosen], labels[chosen], cuts))
            shared = {'cell': name, 'country': country, 'patches': int(chosen.sum())}
            yield {**shared, **(100 * pd.DataFrame(found).mean())}


def _have(compared: Bootstrap, score: str, name: str) -> bool:
    return score in compared.whole.get(name, {})


def _tensors(run: Predictions) -> tuple[torch.Tensor, torch.Tensor, Any]:
    labels = torch.from_numpy(run.labels.astype(np.int64))
    cuts = None if run.thresholds is None else torch.tensor(run.thresholds)
    return torch.from_numpy(run.probabilities), labels, cuts


def _ends(name: str, interval: Interval | None, scale: float = 100) -> Record:
    found = interval or Interval(math.nan, math.nan, math.nan)
    values = (found.estimate, found.low, found.high)
    keys = (name, f'{name}_low', f'{name}_high')
    return {key: scale * value for key, value in zip(keys, values, strict=True)}
