"""What the finished runs of a table say, as numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
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
"""A row of a CSV file; scores are in percent."""

Runs = tuple[Predictions, ...]
"""Test predictions of a cell or zero-shot test, one per training seed."""

_PAPER = {'mAP_micro': 0, 'F1_micro': 2}  # places in Cell.paper


@dataclass(frozen=True)
class Results:
    """All that a table shows.

    Attributes:
        table: The table.
        preset: How large it was run.
        seeds: Training seeds.
        tests: Zero-shot tests.
        missing: Why a cell or test is not there, by name.
        tried: For each cell the validation score of each learning rate, if several.
        protocols: Random groups of the test set and the seeds of the cuts, per cell.
        described: For each target which variance its intervals hold.
        scores: Records per cell and score.
        runs: Records per training run and score.
        classes: Records per cell and class: means over the training runs.
        countries: Records per cell and country: means over the training runs.
        zero_shot: Records per zero-shot test and score, with those of the cell itself.
    """

    table: Table
    preset: Preset
    seeds: tuple[int, ...]
    tests: tuple[ZeroShotTest, ...]
    missing: Mapping[str, str]
    tried: Mapping[str, Mapping[float, float]]
    protocols: Mapping[str, tuple[int, tuple[int, ...]]]
    described: Mapping[str, str]
    scores: list[Record]
    runs: list[Record]
    classes: list[Record]
    countries: list[Record]
    zero_shot: list[Record]

    @cached_property
    def by_cell(self) -> dict[tuple[str, str], Record]:
        """Records of cells that are done, by cell name and score."""
        return {
            (f'{record["row"]}:{record["target"]}', record['score']): record
            for record in self.scores
            if not record['missing']
        }

    @cached_property
    def by_test(self) -> dict[tuple[str, str], Record]:
        """Records of zero-shot tests that are done, by test name and score."""
        named = {(test.cell.row, test.cell.target.lower(), test.tested): test.name
                 for test in self.tests}  # fmt: skip
        return {
            (
                named[record['row'], record['trained_on'], record['tested_on']],
                record['score'],
            ): record
            for record in self.zero_shot
            if not record['missing']
        }


@dataclass(frozen=True)
class _Read:
    """Predictions of cells and tests by name, and bootstraps by target."""

    table: Table
    found: Mapping[str, Runs]
    compared: Mapping[str, Bootstrap]
    missing: Mapping[str, str]
    seeds: tuple[int, ...]

    def scores_of(self, name: str, target: str) -> list[str]:
        if name not in self.found:
            return []
        whole = self.compared[target].whole[name]
        return [score for score in (*SCORES, *TUNED) if score in whole]

    @property
    def done(self) -> Iterator[tuple[Cell, Runs]]:
        for name, cell in self.table.cells.items():
            if name in self.found:
                yield cell, self.found[name]


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
    of_cell = {test.name: test.cell for test in tests}
    for name in (*table.cells, *of_cell):
        if name in missing or (name in of_cell and of_cell[name].name not in found):
            continue
        if name not in plan.by_cell:
            missing[name] = 'was not asked for'
            continue
        rates = plan.tried.get(name, {})
        runs = [*rates, *plan.by_cell[name]]
        if failed := [outcome[run] for run in runs if outcome[run]]:
            missing[name] = f'failed: {failed[0]}'
            continue
        if rates:
            tried[name] = {lr: validation_score(folder / r) for r, lr in rates.items()}
            runs = [best_run(rates, folder), *plan.by_cell[name]]
        read = tuple(read_predictions(folder / run / 'test') for run in runs)
        if name in of_cell and not _comparable(read, found[of_cell[name].name]):
            missing[name] = (
                f'was tested on {len(read[0].patch_ids)} patches, which are not those '
                f'of {of_cell[name].name}: they cannot be compared'
            )
            continue
        found[name] = read
        settings[name] = yaml.safe_load((folder / f'{runs[0]}.yaml').read_text())
    compared = {}
    for target in table.targets:
        names = [n for n, cell in (table.cells | of_cell).items()
                 if n in found and cell.target == target]  # fmt: skip
        if names:
            compared[target] = bootstrap({n: found[n] for n in names}, resamples)
    all_read = _Read(table, found, compared, missing, tuple(seeds))
    protocols = {
        cell.name: (
            int(settings[cell.name].get('data.init_args.test_groups', 5)),
            tuple(
                settings[cell.name].get('data.init_args.test_group_seeds', (0, 1, 2))
            ),
        )
        for cell, _ in all_read.done
    }
    rates_of = {n: float(settings[n]['model.init_args.base_lr']) for n in protocols}
    return Results(
        table=table,
        preset=preset,
        seeds=tuple(seeds),
        tests=tuple(tests),
        missing=missing,
        tried=tried,
        protocols=protocols,
        described={
            cell.target: compared[cell.target].describe(cell.name)
            for cell, _ in all_read.done
        },
        scores=list(_scores(all_read, rates_of, protocols)),
        runs=list(_runs(all_read)),
        classes=list(_classes(all_read)),
        countries=list(_countries(all_read)),
        zero_shot=list(_zero_shot(all_read, tests)),
    )


def _comparable(runs: Runs, others: Runs) -> bool:
    return all(
        np.array_equal(run.patch_ids, others[0].patch_ids)
        and np.array_equal(run.labels, others[0].labels)
        for run in runs
    )


def _scores(
    read: _Read,
    base_lrs: Mapping[str, float],
    protocols: Mapping[str, tuple[int, tuple[int, ...]]],
) -> Iterator[Record]:
    for name, cell in read.table.cells.items():
        shared = {
            'table': read.table.name,
            'row': cell.row,
            'target': cell.target,
            'fraction': cell.fraction,
        }
        if name not in read.found:
            yield {**shared, 'missing': read.missing[name]}
            continue
        compared, runs = read.compared[cell.target], read.found[name]
        subsets = _subset_scores(runs, *protocols[name])
        for score in read.scores_of(name, cell.target):
            values = compared.whole[name][score]
            difference = recovered = None
            base, ceiling = cell.scratch or '', cell.ceiling or ''
            if score in read.scores_of(base, cell.target):
                difference = compared.difference(name, base, score)
                if score in read.scores_of(ceiling, cell.target):
                    recovered = compared.recovered(name, base, ceiling, score)
            printed = (math.nan, math.nan)
            if cell.paper and score in _PAPER:
                printed = cell.paper[_PAPER[score] :][:2]
            yield {
                **shared,
                'missing': '',
                'score': score,
                'seeds': ' '.join(map(str, read.seeds)),
                'base_lr': base_lrs[name],
                **_ends('whole', compared.interval(name, score)),
                'training_std': 100 * float(values.std(ddof=1))
                if len(values) > 1
                else math.nan,
                'subsets_mean': 100 * subsets[score][0],
                'subsets_std': 100 * subsets[score][1],
                **_ends('difference', difference),
                'differs': '' if difference is None else difference.excludes_zero,
                **_ends('recovered', recovered, 1),
                'floor': 100 * runs[0].floor.get(score, math.nan),
                'paper': printed[0],
                'paper_std': printed[1],
            }


def _zero_shot(read: _Read, tests: Sequence[ZeroShotTest]) -> Iterator[Record]:
    for test in tests:
        cell = test.cell
        shared = {
            'row': cell.row,
            'trained_on': cell.target.lower(),
            'tested_on': test.tested,
            'bands': len(test.bands),
            'known_of_other': test.known,
            'missing': '',
        }
        if test.name not in read.found:
            of_cell = f'its fine-tuning {read.missing.get(cell.name, "is not there")}'
            yield {**shared, 'missing': read.missing.get(test.name, of_cell)}
            continue
        compared = read.compared[cell.target]
        own = read.scores_of(cell.name, cell.target)
        for score in read.scores_of(test.name, cell.target):
            if score not in own:
                continue
            difference = compared.difference(test.name, cell.name, score)
            yield {
                **shared,
                'score': score,
                'seeds': ' '.join(map(str, read.seeds)),
                **_ends('whole', compared.interval(test.name, score)),
                **_ends('on_a', compared.interval(cell.name, score)),
                **_ends('difference', difference),
                'floor': 100 * read.found[cell.name][0].floor.get(score, math.nan),
            }


def _runs(read: _Read) -> Iterator[Record]:
    for cell, _ in read.done:
        for score, values in read.compared[cell.target].whole[cell.name].items():
            for seed, value in zip(read.seeds, values, strict=True):
                yield {'cell': cell.name, 'seed': seed, 'score': score,
                       'value': 100 * value}  # fmt: skip


def _classes(read: _Read) -> Iterator[Record]:
    for cell, runs in read.done:
        tables = pd.concat(
            per_class(*_tensors(run), _cuts(run), list(run.classes)) for run in runs
        )
        columns = ['AP', 'F1']
        if runs[0].thresholds is not None:
            columns.append('F1_tuned')
        means = 100 * tables.groupby(level=0, sort=False)[columns].mean()
        for name in runs[0].classes:
            support = int(tables.loc[[name], 'support'].iloc[0])
            values = means.loc[name].to_dict()
            yield {'cell': cell.name, 'class': name, 'support': support, **values}


def _countries(read: _Read) -> Iterator[Record]:
    for cell, runs in read.done:
        for country in sorted(set(runs[0].countries) - {''}):
            chosen = torch.from_numpy(runs[0].countries == country)
            found = []
            for run in runs:
                probabilities, labels = _tensors(run)
                cuts = 0.5 if run.thresholds is None else torch.tensor(run.thresholds)
                found.append(
                    multilabel_scores(probabilities[chosen], labels[chosen], cuts)
                )
            means = (100 * pd.DataFrame(found).mean()).to_dict()
            patches = int(chosen.sum())
            yield {'cell': cell.name, 'country': country, 'patches': patches, **means}


def _subset_scores(
    runs: Runs, groups: int, seeds: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over subsets, averaged over training runs."""
    found = [evaluate(*_tensors(run), _cuts(run), groups, seeds) for run in runs]
    return {
        name: (
            fmean(scores[f'{name}_mean'] for scores in found),
            fmean(scores[f'{name}_std'] for scores in found),
        )
        for name in (*SCORES, *TUNED)
        if f'{name}_mean' in found[0]
    }


def _tensors(run: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.from_numpy(run.labels.astype(np.int64))
    return torch.from_numpy(run.probabilities), labels


def _cuts(run: Predictions) -> torch.Tensor | None:
    return None if run.thresholds is None else torch.tensor(run.thresholds)


def _ends(name: str, interval: Interval | None, scale: float = 100) -> Record:
    values = (math.nan,) * 3
    if interval is not None:
        values = (interval.estimate, interval.low, interval.high)
    keys = (name, f'{name}_low', f'{name}_high')
    return {key: scale * value for key, value in zip(keys, values, strict=True)}
