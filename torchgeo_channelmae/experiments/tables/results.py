"""The scores of the finished runs of a table, and their comparisons."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from ...evaluation.metrics import evaluate, per_class
from ...evaluation.report import per_country
from ..bootstrap import Bootstrap, Interval, bootstrap, known_units
from ..predictions import Predictions, read_predictions
from ..replicates import SCORES
from .plan import Plan
from .runner import Outcome, best_run, validation_score
from .spec import Cell, Preset, Table
from .zero_shot import ZeroShotTest

Record = dict[str, Any]
Runs = Sequence[Predictions]


@dataclass(frozen=True)
class Results:
    """All that a table shows. Scores in its frames are in percent.

    Attributes:
        table: The table.
        preset: How large it was run.
        seeds: Training seeds.
        tests: Zero-shot tests.
        missing: Reasons why cells and tests are missing, by name.
        runs: Test predictions by name of a cell or test, one per training seed.
        settings: Settings of the first run of each cell and test.
        tried: For each cell the validation score per learning rate, if several.
        compared: For each target the bootstrap over its cells and tests.
        otherwise: For each target that of the next smaller unit than ``compared``'s.
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
    otherwise: Mapping[str, Bootstrap]

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
        found = {}
        for r in self.scores:
            found[f'{r["row"]}:{r["target"]}', r.get('score', '')] = r
        for r in self.zero_shot:
            name = f'{r["row"]}:{r["trained_on"].upper()} on {r["tested_on"]}'
            found[name, r.get('score', '')] = r
        return found

    @property
    def groups(self) -> tuple[int, tuple[int, ...]]:
        """Number of random groups of the test set per split, and the split seeds."""
        values = next(iter(self.settings.values()), {})
        seeds = values.get('data.init_args.test_group_seeds', (0, 1, 2))
        return int(values.get('data.init_args.test_groups', 5)), tuple(seeds)

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the contents of the CSV files by name."""
        frames = {
            'results.csv': pd.DataFrame(self.scores),
            'runs.csv': pd.DataFrame(_run_records(self)),
            'per_class.csv': pd.DataFrame(_part_records(self, 'support', _classes)),
            'per_country.csv': pd.DataFrame(_part_records(self, 'patches', _countries)),
        }
        if self.tests:
            frames['unchanged.csv'] = pd.DataFrame(self.zero_shot)
        return frames


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
    """Read the predictions of finished runs and compare the cells by a bootstrap.

    The outcome says why each run failed, None for those that are done. The folder is
    that of all runs.
    """
    missing = dict(plan.left_out)
    found: dict[str, Runs] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    tried: dict[str, dict[float, float]] = {}
    targets: dict[str, dict[str, Runs]] = {target: {} for target in table.targets}
    cells = {**table.cells, **{test.name: test.cell for test in tests}}
    for name, cell in cells.items():
        if name in missing or (name != cell.name and cell.name not in found):
            continue
        rates = plan.tried.get(name, {})
        names = [*rates, *plan.by_cell.get(name, ())]
        failed = [reason for run in names if (reason := outcome[run])]
        if failed or not names:
            missing[name] = f'failed: {failed[0]}' if failed else 'not selected'
            continue
        if rates:
            tried[name] = {lr: validation_score(folder / r) for r, lr in rates.items()}
            names = [best_run(rates, folder), *plan.by_cell[name]]
        runs = [read_predictions(folder / run / 'test') for run in names]
        found[name] = targets[cell.target][name] = runs
        settings[name] = yaml.safe_load((folder / f'{names[0]}.yaml').read_text())
    compared = {t: bootstrap(of, resamples) for t, of in targets.items() if of}
    otherwise = {}
    for target in compared:
        first = next(iter(targets[target].values()))[0]
        units = known_units(first)
        # Single patches are no choice where more is known, one acquisition neither.
        if units[1:-1] and len(set(first.acquisitions)) > 1:
            otherwise[target] = bootstrap(targets[target], resamples, unit=units[1])
    return Results(table, preset, tuple(seeds), tuple(tests), missing, found, settings,
                   tried, compared, otherwise)  # fmt: skip


def _score_records(results: Results) -> Iterator[Record]:
    done = results.runs
    for name, cell in results.table.cells.items():
        names = {'table': results.table.name, 'row': cell.row, 'target': cell.target}
        shared = {**names, 'fraction': cell.fraction}
        if name not in done:
            yield {**shared, 'missing': results.missing[name]}
            continue
        compared = results.compared[cell.target]
        base, ceiling = cell.scratch, cell.ceiling
        tests = [evaluate(*_tensors(run), *results.groups) for run in done[name]]
        subsets = pd.DataFrame(tests).mean()
        for score in SCORES:
            gain = share = None
            if base and base in done:
                gain = compared.difference(name, base, score)
                if ceiling and ceiling in done:
                    share = compared.recovered(name, base, ceiling, score)
            paper, paper_std = cell.paper.get(score, (math.nan, math.nan))
            yield {
                **shared,
                'missing': '',
                'score': score,
                'seeds': ' '.join(map(str, results.seeds)),
                'base_lr': float(results.settings[name]['model.init_args.base_lr']),
                **ends('whole', compared.interval(name, score)),
                'training_std': 100 * pd.Series(compared.whole[name][score]).std(),
                'subsets_mean': 100 * subsets[f'{score}_mean'],
                'subsets_std': 100 * subsets[f'{score}_std'],
                **ends('difference', gain),
                'differs': gain.excludes_zero if gain else '',
                **ends('recovered', share, 1),
                'floor': 100 * done[name][0].floor.get(score, math.nan),
                'paper': paper,
                'paper_std': paper_std,
            }


def _zero_shot_records(results: Results) -> Iterator[Record]:
    for test in results.tests:
        name, cell = test.name, test.cell
        sensors = {'trained_on': cell.target.lower(), 'tested_on': test.tested}
        bands = {'bands': len(test.bands), 'known_of_other': test.known}
        shared = {'row': cell.row, **sensors, **bands, 'missing': ''}
        if name not in results.runs:
            of_cell = f'its fine-tuning: {results.missing.get(cell.name)}'
            yield {**shared, 'missing': results.missing.get(name, of_cell)}
            continue
        compared = results.compared[cell.target]
        floor = results.runs[cell.name][0].floor
        for score in SCORES:
            yield {
                **shared,
                'score': score,
                'seeds': ' '.join(map(str, results.seeds)),
                **ends('whole', compared.interval(name, score)),
                **ends('on_a', compared.interval(cell.name, score)),
                **ends('difference', compared.difference(name, cell.name, score)),
                'floor': 100 * floor.get(score, math.nan),
            }


def _run_records(results: Results) -> Iterator[Record]:
    for name, cell in results.done.items():
        for score, values in results.compared[cell.target].whole[name].items():
            for seed, value in zip(results.seeds, 100 * values, strict=True):
                yield {'cell': name, 'seed': seed, 'score': score, 'value': value}


def _part_records(
    results: Results, count: str, score: Callable[[Predictions], pd.DataFrame]
) -> Iterator[Record]:
    """Yield the mean scores of each part, such as a class, over a cell's runs."""
    for name in results.done:
        tables = [score(run) for run in results.runs[name]]
        kind = str(tables[0].index.name)
        for row, part in enumerate(tables[0].index):
            means = pd.DataFrame([table.iloc[row] for table in tables]).mean()
            shared = {'cell': name, kind: part, count: int(means[count])}
            yield {**shared, **(100 * means.drop(count))}


def _classes(run: Predictions) -> pd.DataFrame:
    table = per_class(*_tensors(run), list(run.classes))
    return table.drop(columns='threshold')


def _countries(run: Predictions) -> pd.DataFrame:
    return per_country(*_tensors(run), list(run.countries))


def _tensors(run: Predictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    labels = torch.from_numpy(run.labels).long()
    return torch.from_numpy(run.probabilities), labels, torch.tensor(run.thresholds)


def ends(name: str, interval: Interval | None, scale: float = 100) -> Record:
    """Return a value and the ends of its interval as entries of a record."""
    keys = (name, f'{name}_low', f'{name}_high')
    values = astuple(interval) if interval else (math.nan,) * 3
    return {key: scale * value for key, value in zip(keys, values, strict=True)}
