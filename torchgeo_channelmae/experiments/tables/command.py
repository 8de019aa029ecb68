"""``channelmae tables``: run a table of the paper, cell by cell, and show it."""

import sys
from pathlib import Path

from tqdm import tqdm

from . import definitions
from .calibrate import STEPS, Cost, calibrate
from .cells import Table
from .plan import Data, Plan, Run, make_plan
from .presets import Preset, read_preset
from .results import read_results
from .runner import check_settings, commands_done, own, run_all
from .sensors import DEFAULT, check_sensors
from .unchanged import Unchanged, unchanged_tests, with_unchanged
from .write import write_table


def tables(
    table: str,
    preset: str,
    out: str | None = None,
    root: str | None = None,
    pretrain_root: str | None = None,
    shares: str | None = None,
    only: str | None = None,
    seeds: str | None = None,
    train_fraction: float | None = None,
    dry_run: bool = False,
    jobs: int = 1,
    resamples: int = 1000,
    conf: str = 'conf',
    sensors: str = ','.join(DEFAULT),
    unchanged: bool = False,
) -> None:
    """Run a table of the paper, cell by cell, and show it.

    Every cell is a run of ``torchgeo``; what is done is not run again, so the same
    command goes on after a stop. Tables in one folder share their runs.

    Args:
        table: Which: 1 (pretraining sources), 2 (maskings), 3 (partial fine-tuning),
            labels (label efficiency) or matrix (any sensor to any sensor).
        preset: How large: sample (bundled patches, minutes), synthetic (a folder of
            `channelmae synthesize`), copernicus-bench, or paper.
        out: Folder of the runs and the tables. Defaults to runs/tables/PRESET.
        root: Folder of the data to fine-tune and test on.
        pretrain_root: Folder of the data to pretrain on, where it is another.
        shares: File of their land cover, as `channelmae landcover` writes it, where
            the preset balances them.
        only: Names of rows or cells, such as s2-p16 or s2-p16:S1, with commas.
        seeds: Training seeds, with commas. Defaults to those of the preset.
        train_fraction: Share of the training labels. Defaults to all.
        dry_run: Show the commands, their samples, steps, hours and memory, and run
            nothing but a few steps of each kind.
        jobs: Runs at a time; the processor is shared among them. Figures depend on it
            in their last digits.
        resamples: Resamples of the bootstrap.
        conf: Folder of the configurations.
        sensors: Of the matrix: names of overlays in conf/paper/bands, with commas or
            spaces, such as s2,rgb,s1.
        unchanged: Of the matrix: test each pretrained and fine-tuned model also on
            every sensor without a band of its own, alone and added, and with the
            further bands of one that has some of its own; without training.

    Raises:
        ValueError: If an option does not fit, or earlier results are of other
            settings.
        FileNotFoundError: If the data or the configurations are missing.
        RuntimeError: If a cell failed.
    """
    chosen = read_preset(preset, Path(conf))
    named = tuple(sensors.replace(',', ' ').split())
    if table == 'matrix':
        check_sensors(named, chosen.overlays)
    described = definitions.table(table, chosen.fractions, named)
    if unchanged and table != 'matrix':
        raise ValueError(
            f'--unchanged is of the table matrix: leave it out for {table}.'
        )
    data = _data(chosen, root, pretrain_root, shares)
    if jobs < 1 or resamples < 100:
        raise ValueError(
            f'jobs is {jobs} and resamples {resamples}: give at least 1 and 100.'
        )
    numbers = chosen.seeds if seeds is None else _numbers(seeds)
    names = [] if only is None else [name.strip() for name in only.split(',')]
    plan = make_plan(described, chosen, numbers, data, train_fraction, names)
    tests: tuple[Unchanged, ...] = ()
    if unchanged:
        tests = unchanged_tests(described, named, chosen.overlays)
        plan = with_unchanged(plan, tests, described.cells, chosen)
    folder = Path(out or f'runs/tables/{chosen.name}')
    check_settings(plan, folder / 'runs')
    if dry_run:
        _show_costs(plan, folder / 'runs', jobs)
        return
    with own(folder / 'runs'):
        outcome = _run(plan, folder / 'runs', jobs)
        results = read_results(
            described, chosen, plan, outcome, folder / 'runs', numbers, resamples, tests
        )
        where = write_table(results, folder / described.name)
    print(f'Table {described.name} is in {where}')
    _tell_failures(described, outcome)


def _run(plan: Plan, runs: Path, jobs: int) -> dict[str, str | None]:
    with tqdm(total=len(plan.runs), desc='runs', unit='run') as bar:

        def told(run: Run, failure: str | None, seconds: float) -> None:
            bar.update()
            if failure:
                bar.write(f'FAILED {run.name}: {failure}', file=sys.stderr)
            elif seconds:
                bar.write(f'done   {run.name} ({seconds:.0f} s)')
            else:
                bar.write(f'was    {run.name}')

        return run_all(plan, runs, jobs, told)


def _tell_failures(table: Table, outcome: dict[str, str | None]) -> None:
    failed = [name for name, reason in outcome.items() if reason]
    if failed:
        raise ChildProcessError(
            f'{len(failed)} of {len(outcome)} runs of table {table.name} failed, the '
            f'first is {failed[0]}: {outcome[failed[0]]}. The table shows the others; '
            f'the same command tries these again.'
        )


def _data(
    preset: Preset, root: str | None, pretrain_root: str | None, shares: str | None
) -> Data:
    """Check that the data which a preset needs are named and there."""
    given = {'root': root, 'pretrain_root': pretrain_root, 'shares': shares}
    needed = {name: getattr(preset, name) for name in given}
    for name, what in needed.items():
        path = given[name]
        option = f'--{name.replace("_", "-")}'
        kind = 'file' if name == 'shares' else 'folder'
        if what and path is None:
            raise ValueError(
                f'The preset {preset.name} needs data: give {option} '
                f'{kind.upper()}, {what}.'
            )
        is_there = Path.is_file if name == 'shares' else Path.is_dir
        if path is not None and not is_there(Path(path)):
            raise FileNotFoundError(
                f'{option} {path} is no {kind}: it has to be {what or "one of data"}.'
            )
    if root is not None and preset.root is None:
        raise ValueError(
            f'The preset {preset.name} brings its data: leave out --root, or choose '
            f'another preset.'
        )
    if shares is not None and preset.shares is None:
        raise ValueError(
            f'The preset {preset.name} does not balance its pretraining: leave out '
            f'--shares, or choose another preset.'
        )
    return Data(*(Path(path) if path else None for path in given.values()))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(','))
    except ValueError:
        raise ValueError(
            f'seeds is {text!r}: give whole numbers with commas between them.'
        ) from None


def _show_costs(plan: Plan, runs: Path, jobs: int) -> None:
    """Print every command and what it takes, then all together."""
    done = [
        run.name
        for run in plan.runs.values()
        if commands_done(runs, run) == len(run.commands(runs))
    ]
    costs = calibrate(plan, runs, done)
    for run in plan.runs.values():
        print(
            f'\n{run.name}: {_cost(costs[run.name]) if run.name in costs else "done"}'
        )
        for command in run.commands(runs):
            print(f'  torchgeo {" ".join(command)}')
        if run.candidates:
            what = 'weights' if run.kind == 'unchanged' else 'learning rate'
            print(f'  with the best {what} of {", ".join(run.candidates)}')
    for cell, reason in plan.left_out.items():
        print(f'\n{cell} is left out: it {reason}.')
    known = [cost for cost in costs.values() if isinstance(cost, Cost)]
    hours = sum(cost.seconds for cost in known) / 3600 / jobs
    print(
        f'\n{len(plan.runs)} runs, {len(done)} done; the {len(known)} measured ones: '
        f'{sum(cost.steps for cost in known):,} optimizer steps, about {hours:.2f} '
        f'hours on this machine with {jobs} at a time (from {STEPS} steps of each '
        f'kind; start-up comes on top).'
    )


def _cost(cost: Cost | str) -> str:
    if isinstance(cost, str):
        return f'not measured: {cost}'
    if not cost.steps:
        return (
            f'{cost.samples:,} test samples, about {cost.seconds / 3600:.3f} hours, '
            f'{cost.memory / 2**30:.2f} GiB'
        )
    return (
        f'{cost.samples:,} samples an epoch, {cost.steps:,} optimizer steps, about '
        f'{cost.seconds / 3600:.3f} hours, {cost.memory / 2**30:.2f} GiB'
    )
