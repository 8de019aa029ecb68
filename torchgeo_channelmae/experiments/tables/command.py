"""``channelmae tables``: run a table of the paper, cell by cell, and show it."""

import sys
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from .calibrate import STEPS, Cost, calibrate
from .pages import write_table
from .plan import Data, Plan, make_plan
from .results import read_results
from .runner import Outcome, check_settings, commands_done, run_all
from .spec import SENSORS, Preset, bands_of, read_preset, read_table
from .zero_shot import ZeroShotTest, with_zero_shot, zero_shot_tests


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
    sensors: str = ','.join(SENSORS),
    unchanged: bool = False,
) -> None:
    """Run a table of the paper, cell by cell, and show it.

    Every cell is a run of ``torchgeo``; finished runs are skipped, so the same command
    continues after a stop. Tables in one folder share their runs.

    Args:
        table: Which: 1 (pretraining sources), 2 (maskings), 3 (partial fine-tuning),
            labels (label efficiency) or matrix (any sensor to any sensor).
        preset: How large: sample (bundled patches, minutes), copernicus-bench, paper,
            or another file of conf/tables.
        out: Folder of the runs and the tables. Defaults to runs/tables/PRESET.
        root: Folder of the data to fine-tune and test on.
        pretrain_root: Folder of the data to pretrain on, if it is another.
        shares: File of their land cover, as `channelmae landcover` writes it, if the
            preset balances them.
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
        unchanged: Of the matrix: zero-shot tests. Test each pretrained and fine-tuned
            model also on every sensor without a band of its own, by itself and added,
            and with the further bands of one that has some of its own.

    Raises:
        ValueError: If an option does not fit, or earlier results are of other settings.
        FileNotFoundError: If data are missing.
        TimeoutError: If another process runs tables in the folder.
        ChildProcessError: If a run failed.
    """
    chosen = read_preset(preset, Path(conf))
    named = tuple(dict.fromkeys(_split(sensors)))
    described = read_table(table, chosen.fractions, named)
    if table == 'matrix':
        for sensor in named or ['']:
            bands_of(sensor, chosen.overlays)
    elif unchanged:
        raise ValueError(f'--unchanged belongs to the table matrix, not to {table}.')
    if jobs < 1 or resamples < 100:
        raise ValueError(
            f'jobs is {jobs} and resamples {resamples}. Give at least 1 and 100.'
        )
    data = _check_data(chosen, root, pretrain_root, shares)
    numbers = chosen.seeds if seeds is None else _numbers(seeds)
    names = _split(only or '')
    plan = make_plan(described, chosen, numbers, data, train_fraction, names)
    tests: list[ZeroShotTest] = []
    if unchanged:
        tests = list(zero_shot_tests(described, named, chosen.overlays))
        plan = with_zero_shot(plan, tests, chosen)
    folder = Path(out or f'runs/tables/{chosen.name}')
    runs = folder / 'runs'
    check_settings(plan, runs)
    if dry_run:
        _show_costs(plan, runs, jobs)
        return
    runs.mkdir(parents=True, exist_ok=True)
    with FileLock(runs / '.lock', timeout=2):  # children of a killed command end soon
        outcome = _run(plan, runs, jobs)
        results = read_results(
            described, chosen, plan, outcome, runs, numbers, resamples, tests
        )
        page = write_table(results, folder / table)
    print(f'Table {table} is in {page}')
    failed = [name for name, reason in outcome.items() if reason]
    if failed:
        raise ChildProcessError(
            f'{len(failed)} of {len(outcome)} runs of table {table} failed, the first '
            f'is {failed[0]}: {outcome[failed[0]]}. The table shows the others; the '
            f'same command tries these again.'
        )


def _split(text: str) -> list[str]:
    return text.replace(',', ' ').split()


def _numbers(text: str) -> tuple[int, ...]:
    parts = dict.fromkeys(_split(text))
    if not parts or not all(part.isdigit() for part in parts):
        raise ValueError(f'--seeds is {text!r}. Give whole numbers from 0 up.')
    return tuple(map(int, parts))


def _check_data(preset: Preset, *given: str | None) -> Data:
    """Check that the data that a preset needs are given and exist."""
    names = ('root', 'pretrain_root', 'shares')
    for name, path in zip(names, given, strict=True):
        option, needed = f'--{name.replace("_", "-")}', preset.needs.get(name)
        if path is None and needed:
            raise ValueError(f'The preset {preset.name} needs {option}: {needed}.')
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(f'{option} {path} does not exist.')
        if path is not None and not needed and name != 'pretrain_root':
            raise ValueError(f'The preset {preset.name} takes no {option}. Omit it.')
    return Data(*(Path(path) if path else None for path in given))


def _run(plan: Plan, runs: Path, jobs: int) -> Outcome:
    outcome = {}
    with tqdm(total=len(plan.runs), desc='runs', unit='run') as bar:
        for run, failure, seconds in run_all(plan, runs, jobs):
            outcome[run.name] = failure
            bar.update()
            if failure:
                bar.write(f'FAILED {run.name}: {failure}', file=sys.stderr)
            else:
                was = f'done   {run.name} ({seconds:.0f} s)'
                bar.write(was if seconds else f'was    {run.name}')
    return outcome


def _show_costs(plan: Plan, runs: Path, jobs: int) -> None:
    """Print every command and its cost, then the total."""
    costs = calibrate(
        run
        for run in plan.runs.values()
        if commands_done(runs, run) < len(run.commands(runs))
    )
    for name, run in plan.runs.items():
        print(f'\n{name}: {_describe(costs[name]) if name in costs else "done"}')
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
        f'\n{len(plan.runs)} runs, {len(plan.runs) - len(costs)} done; the '
        f'{len(known)} measured ones: {sum(cost.steps for cost in known):,} optimizer '
        f'steps, about {hours:.2f} hours on this machine with {jobs} at a time (from '
        f'{STEPS} steps of each kind; start-up comes on top).'
    )


def _describe(cost: Cost | str) -> str:
    if isinstance(cost, str):
        return f'not measured: {cost}'
    return (
        f'{cost.samples:,} samples per epoch, {cost.steps:,} optimizer steps, about '
        f'{cost.seconds / 3600:.3f} hours, {cost.memory / 2**30:.2f} GiB'
    )
