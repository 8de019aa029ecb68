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
from .plan import Plan, Tuned
from .runner import Outcome, best_run, last_value, validation_score
from .spec import Cell, Preset, Table
from .zero_shot import ZeroShotTest

Record = dict[str, Any]
Runs = Sequence[Predictions]

_DECAY = 'model.init_args.layer_decay'


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
        tried: For each cell what was tried, with the validation score of each choice.
        validated: For each cell the number of validation patches, NaN if unknown.
        regressions: For each cell that trains only the head, the validation score of
            the head and of logistic regression on the same features.
        compared: For each target the bootstrap over its cells and tests.
        otherwise: For each target that of the next smaller unit than ``compared``'s.
        protocol: Whether a protocol was fixed before, and whether this is what it has.
    """

    table: Table
    preset: Preset
    seeds: tuple[int, ...]
    tests: tuple[ZeroShotTest, ...]
    missing: Mapping[str, str]
    runs: Mapping[str, Runs]
    settings: Mapping[str, Mapping[str, Any]]
    tried: Mapping[str, Sequence[tuple[Tuned, float]]]
    validated: Mapping[str, float]
    regressions: Mapping[str, tuple[float, float]]
    compared: Mapping[str, Bootstrap]
    otherwise: Mapping[str, Bootstrap]
    protocol: str

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

    def difference(self, one: str, other: str, score: str) -> Interval | None:
        """Compare two cells of a target; None if either is missing."""
        if not {one, other} <= set(self.runs):
            return None
        return self.compared[self.table.cells[one].target].difference(one, other, score)

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
        if self.table.contrasts:
            frames['contrasts.csv'] = pd.DataFrame(_contrast_records(self))
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
    protocol: str = '',
) -> Results:
    """Read the predictions of finished runs and compare the cells by a bootstrap.

    The outcome says why each run failed, None for those that are done. The folder is
    that of all runs. The protocol is what the page says of one.
    """
    missing = dict(plan.left_out)
    found: dict[str, Runs] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    tried: dict[str, list[tuple[Tuned, float]]] = {}
    validated: dict[str, float] = {}
    regressions: dict[str, tuple[float, float]] = {}
    targets: dict[str, dict[str, Runs]] = {target: {} for target in table.targets}
    cells = {**table.cells, **{test.name: test.cell for test in tests}}
    for name, cell in cells.items():
        if name in missing or (name != cell.name and cell.name not in found):
            continue
        choices = plan.tried.get(name, {})
        names = [*choices, *plan.by_cell.get(name, ())]
        failed = [reason for run in names if (reason := outcome[run])]
        if failed or not names:
            missing[name] = f'failed: {failed[0]}' if failed else 'not selected'
            continue
        first = folder / names[0]
        if choices:
            scores = {run: validation_score(folder / run) for run in choices}
            tried[name] = [(choices[run], score) for run, score in scores.items()]
            names = [best_run(choices, folder), *plan.by_cell[name]]
        if name in table.cells:
            validated[name] = last_value(first, 'val_patches')
        if not math.isnan(score := last_value(first, 'probe_linear_mAP_micro')):
            regressions[name] = validation_score(folder / names[0]), score
        runs = [read_predictions(folder / run / 'test') for run in names]
        found[name] = targets[cell.target][name] = runs
        settings[name] = yaml.safe_load((folder / f'{names[0]}.yaml').read_text())
    compared = {t: bootstrap(of, resamples) for t, of in targets.items() if of}
    otherwise = {}
    for target in compared:
        tested = next(iter(targets[target].values()))[0]
        units = known_units(tested)
        # Single patches are no choice where more is known, one acquisition neither.
        if units[1:-1] and len(set(tested.acquisitions)) > 1:
            otherwise[target] = bootstrap(targets[target], resamples, unit=units[1])
    return Results(table, preset, tuple(seeds), tuple(tests), missing, found, settings,
                   tried, validated, regressions, compared, otherwise,
                   protocol)  # fmt: skip


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
            gain = results.difference(name, str(base), score)
            share = None
            if base and gain and ceiling in done:
                share = compared.recovered(name, base, str(ceiling), score)
            paper, paper_std = cell.paper.get(score, (math.nan, math.nan))
            yield {
                **shared,
                'missing': '',
                'score': score,
                'seeds': ' '.join(map(str, results.seeds)),
                'base_lr': float(results.settings[name]['model.init_args.base_lr']),
                'layer_decay': results.settings[name].get(_DECAY, math.nan),
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


def _contrast_records(results: Results) -> Iterator[Record]:
    for one, other in results.table.contrasts:
        for score in SCORES:
            found = ends('difference', results.difference(one, other, score))
            yield {'cell': one, 'other': other, 'score': score, **found}


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
