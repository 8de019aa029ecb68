"""What a table's finished runs say, as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import yaml

from ...evaluation.metrics import evaluate
from ..bootstrap import Bootstrap, Interval, bootstrap
from ..predictions import Predictions, read_predictions
from ..resampled import SCORES, TUNED
from .cells import Cell, Table, Target
from .plan import Plan
from .presets import Preset
from .scores import best_run, validation_score
from .unchanged import Unchanged

__all__ = ('SCORES', 'TUNED', 'CellResult', 'Results', 'read_results')


@dataclass(frozen=True)
class CellResult:
    """A cell that is done.

    Attributes:
        cell: The cell.
        runs: Its test predictions, one a training seed.
        base_lr: Learning rate that it was trained with.
        tried: Last validation score of each learning rate tried, at the first seed.
        subsets: For each score its mean and standard deviation over random subsets of
            the test set, as the paper has them, averaged over the runs.
    """

    cell: Cell
    runs: tuple[Predictions, ...]
    base_lr: float
    tried: Mapping[float, float]
    subsets: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Results:
    """All that a table shows.

    Attributes:
        table: The table.
        preset: How large it was run.
        seeds: Training seeds.
        cells: The cells that are done, by name.
        missing: Why each other cell is not.
        compared: For each target the bootstrap over its cells.
        groups: Random groups of the test set, and the seeds of the cuts.
        floor: For each target the scores of predicting the class frequencies.
        tests: Tests of unchanged heads on other bands, each by its name in `compared`
            or `missing`.
    """

    table: Table
    preset: Preset
    seeds: tuple[int, ...]
    cells: Mapping[str, CellResult]
    missing: Mapping[str, str]
    compared: Mapping[Target, Bootstrap]
    groups: tuple[int, tuple[int, ...]]
    floor: Mapping[Target, Mapping[str, float]]
    tests: tuple[Unchanged, ...] = ()

    def whole(self, cell: Cell, score: str) -> Interval | None:
        """Score of a cell on the whole test set; None where there is none."""
        if not self._has(cell.name, score):
            return None
        return self.compared[cell.target].interval(cell.name, score)

    def training_std(self, cell: Cell, score: str) -> float:
        """Standard deviation over training seeds, NaN for one seed."""
        values = self.compared[cell.target].whole[cell.name][score]
        return float(values.std(ddof=1)) if len(values) > 1 else float('nan')

    def difference(self, cell: Cell, score: str) -> Interval | None:
        """Score of a cell less that of its cell without pretraining."""
        base = cell.scratch
        if base is None or not (self._has(cell.name, score) and self._has(base, score)):
            return None
        return self.compared[cell.target].difference(cell.name, base, score)

    def recovered(self, cell: Cell, score: str) -> Interval | None:
        """Share of the way from scratch to the ceiling that a cell goes."""
        names = (cell.name, cell.scratch, cell.ceiling)
        if not all(name and self._has(name, score) for name in names):
            return None
        assert cell.scratch is not None
        assert cell.ceiling is not None
        return self.compared[cell.target].recovered(
            cell.name, cell.scratch, cell.ceiling, score
        )

    def _has(self, name: str, score: str) -> bool:
        if name not in self.cells:
            return False
        target = self.cells[name].cell.target
        return score in self.compared[target].whole[name]


def read_results(
    table: Table,
    preset: Preset,
    plan: Plan,
    outcome: Mapping[str, str | None],
    folder: Path,
    seeds: Sequence[int],
    resamples: int,
    tests: Sequence[Unchanged] = (),
) -> Results:
    """Read what finished runs left behind and compare the cells.

    Args:
        table: The table.
        preset: How large it was run.
        plan: Its runs.
        outcome: Why each run failed, None for those that are done.
        folder: Folder of all runs.
        seeds: Training seeds.
        resamples: Resamples of the bootstrap.
        tests: Tests of unchanged heads.

    Raises:
        FileNotFoundError: If a file of a run is missing.
        ValueError: If files do not belong together.
    """
    missing = dict(plan.left_out)
    cells: dict[str, CellResult] = {}
    groups: tuple[int, tuple[int, ...]] = (5, (0, 1, 2))
    for name, cell in table.cells.items():
        if name in missing:
            continue
        if name not in plan.by_cell:
            missing[name] = 'was not asked for'
            continue
        needed = [*plan.tried.get(name, ()), *plan.by_cell[name]]
        failed = [run for run in needed if outcome.get(run)]
        if failed:
            missing[name] = f'failed: {outcome[failed[0]]}'
            continue
        tried = plan.tried.get(name, {})
        first = [best_run(tried, folder)] if tried else []
        names = [*first, *plan.by_cell[name]]
        settings = yaml.safe_load((folder / f'{names[0]}.yaml').read_text())
        groups = (
            int(settings.get('data.init_args.test_groups', 5)),
            tuple(settings.get('data.init_args.test_group_seeds', (0, 1, 2))),
        )
        runs = tuple(read_predictions(folder / run / 'test') for run in names)
        cells[name] = CellResult(
            cell=cell,
            runs=runs,
            base_lr=float(settings['model.init_args.base_lr']),
            tried={rate: validation_score(folder / run) for run, rate in tried.items()},
            subsets=_subset_scores(runs, *groups),
        )
    unchanged = _read_unchanged(tests, plan, outcome, folder, cells, missing)
    compared, floor = {}, {}
    for target in table.targets:
        there = {n: r.runs for n, r in cells.items() if r.cell.target == target}
        if there:
            more = {t.name: unchanged[t.name] for t in tests
                    if t.target == target and t.name in unchanged}  # fmt: skip
            compared[target] = bootstrap(there | more, resamples)
            floor[target] = next(iter(there.values()))[0].floor
    return Results(
        table=table,
        preset=preset,
        seeds=tuple(seeds),
        cells=cells,
        missing=missing,
        compared=compared,
        groups=groups,
        floor=floor,
        tests=tuple(tests),
    )


def _read_unchanged(
    tests: Sequence[Unchanged],
    plan: Plan,
    outcome: Mapping[str, str | None],
    folder: Path,
    cells: Mapping[str, CellResult],
    missing: dict[str, str],
) -> dict[str, tuple[Predictions, ...]]:
    """Read the tests of unchanged heads, noting why others are missing."""
    found: dict[str, tuple[Predictions, ...]] = {}
    for test in tests:
        if test.name not in plan.unchanged or test.cell not in cells:
            continue  # the reason is noted, or is that of the cell
        names = plan.unchanged[test.name]
        failed = [outcome[name] for name in names if outcome.get(name)]
        if failed:
            missing[test.name] = f'failed: {failed[0]}'
            continue
        runs = tuple(read_predictions(folder / name / 'test') for name in names)
        own = cells[test.cell].runs[0]
        if all(
            np.array_equal(run.patch_ids, own.patch_ids)
            and np.array_equal(run.labels, own.labels)
            for run in runs
        ):
            found[test.name] = runs
        else:
            missing[test.name] = (
                f'was tested on {len(runs[0].patch_ids)} patches, which are not the '
                f'{len(own.patch_ids)} of {test.cell}: they cannot be compared'
            )
    return found


def _subset_scores(
    runs: Sequence[Predictions], groups: int, seeds: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over subsets, averaged over training runs."""
    found = [
        evaluate(
            torch.from_numpy(run.probabilities),
            torch.from_numpy(run.labels.astype(np.int64)),
            None if run.thresholds is None else torch.tensor(run.thresholds),
            groups,
            seeds,
        )
        for run in runs
    ]
    names = [name for name in (*SCORES, *TUNED) if f'{name}_mean' in found[0]]
    return {
        name: (
            fmean(scores[f'{name}_mean'] for scores in found),
            fmean(scores[f'{name}_std'] for scores in found),
        )
        for name in names
    }
