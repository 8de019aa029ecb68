"""``channelmae tables``: run a table of the paper, cell by cell, and write it."""

import sys
from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from . import protocol as protocols
from .calibrate import STEPS, Cost, calibrate
from .pages import write_table
from .plan import Data, Plan, make_plan
from .results import read_results
from .runner import Outcome, check_settings, commands_done, run_all
from .spec import SENSORS, Preset, bands_of, read_preset, read_table
from .zero_shot import with_zero_shot, zero_shot_tests


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
    jobs: PositiveInt = 1,
    resamples: PositiveInt = 1000,
    conf: str = 'conf',
    sensors: str = ','.join(SENSORS),
    unchanged: bool = False,
    pretrainings: PositiveInt | None = None,
    devices: PositiveInt = 1,
    protocol: Path | None = None,
) -> None:
    """Run a table of the paper, cell by cell, and write it.

    Every cell is a run of ``torchgeo``; finished runs are skipped, so the same command
    continues after a stop. Tables in one folder share their runs.

    Args:
        table: 1 (pretraining sources), 2 (maskings), 3 (partial fine-tuning), labels
            (label efficiency) or matrix (any sensor to any sensor).
        preset: sample (bundled patches, minutes), copernicus-bench, paper, or another
            file in conf/tables.
        out: Folder of the runs and the tables. Defaults to runs/tables/PRESET.
        root: Folder of the data to fine-tune and test on.
        pretrain_root: Folder of the data to pretrain on, if different.
        shares: Their land cover as a file of `channelmae landcover`, if the preset
            balances them.
        only: Rows or cells to run, such as s2-p16 or s2-p16:S1, separated by commas.
        seeds: Training seeds, separated by commas. Defaults to those of the preset.
        train_fraction: Share of the training labels. Defaults to all.
        dry_run: Print the commands with their samples, steps, hours and memory, from a
            few steps of each kind, and the smallest gain that an interval could show.
        jobs: Runs at a time; they share the CPU. The last digits of scores depend on
            it.
        resamples: Number of bootstrap resamples.
        conf: Folder of the configurations.
        sensors: For matrix: names of overlays in conf/paper/bands, separated by commas
            or spaces.
        unchanged: For matrix: also test each pretrained and fine-tuned model without
            training on every other sensor: by itself and added to its own if the two
            share no band, else with the bands that its own lacks.
        pretrainings: Pretrainings per row, 1 or one per seed. With 1, gains are of this
            pretraining only; each more costs a pretraining. Defaults to the preset's.
        devices: Devices per run. They share the batch, so the recipe stays the same.
        protocol: File that fixes data, split, rows, seeds, grids and the primary
            comparison: written if missing, else compared. The page names it.

    Raises:
        ValueError: If an option is wrong, or earlier results have other settings.
        FileNotFoundError: If data are missing.
        TimeoutError: If another process is running tables in the folder.
        ChildProcessError: If a run failed.
    """
    chosen = read_preset(preset, Path(conf))
    if pretrainings is not None:
        chosen = replace(chosen, pretrainings=int(pretrainings))
    named = tuple(dict.fromkeys(_split(sensors)))
    if table == 'matrix':
        for sensor in named:
            bands_of(sensor, chosen.overlays)
    described = read_table(table, chosen.fractions, named)
    if unchanged and table != 'matrix':
        raise ValueError(f'--unchanged belongs to the table matrix, not to {table}.')
    data = _check_data(chosen, root, pretrain_root, shares)
    numbers = _numbers(seeds) if seeds else chosen.seeds

    wanted = train_fraction, _split(only or ''), devices
    plan = make_plan(described, chosen, numbers, data, *wanted)
    found = zero_shot_tests(described, named, chosen.overlays) if unchanged else ()
    plan = with_zero_shot(plan, tests := list(found), chosen)
    folder = Path(out or f'runs/tables/{chosen.name}')
    runs = folder / 'runs'
    check_settings(plan, runs)
    if dry_run:
        _show_costs(plan, runs, jobs)
        print(protocols.power(chosen, len(numbers)))
        return
    runs.mkdir(parents=True, exist_ok=True)
    with FileLock(runs / '.lock', timeout=2):  # children of a killed command end soon
        fixed = ''
        if protocol is not None:
            asked = protocols.describe(described, chosen, plan, numbers, data)
            fixed = protocols.fix(protocol, asked, len([*runs.glob('*.json')]))
        outcome = _run(plan, runs, jobs)
        results = read_results(
            described, chosen, plan, outcome, runs, numbers, resamples, tests, fixed
        )
        page = write_table(results, folder / table)
    print(f'Table {table} is in {page}')
    failed = [name for name, reason in outcome.items() if reason]
    if failed:
        raise ChildProcessError(
            f'{len(failed)} of {len(outcome)} runs of table {table} failed, the first: '
            f'{failed[0]}: {outcome[failed[0]]}. Run the command again to repeat them.'
        )


def _split(text: str) -> list[str]:
    return text.replace(',', ' ').split()


def _numbers(text: str) -> tuple[int, ...]:
    parts = dict.fromkeys(_split(text))
    if not all(part.isdigit() for part in parts):
        raise ValueError(f'--seeds is {text!r}. Give whole numbers from 0 up.')
    return tuple(map(int, parts))


def _check_data(preset: Preset, *given: str | None) -> Data:
    """Check that the data of a preset are given and exist."""
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
    ended = run_all(plan, runs, jobs)
    for run, failure, seconds in tqdm(ended, 'runs', len(plan.runs), unit='run'):
        outcome[run.name] = failure
        if failure:
            tqdm.write(f'FAILED {run.name}: {failure}', file=sys.stderr)
        else:
            tqdm.write(f'done   {run.name} ({seconds:.0f} s)')
    return outcome


def _show_costs(plan: Plan, runs: Path, jobs: int) -> None:
    """Print every command and its cost, then the total."""
    planned = plan.runs.values()
    left = [r for r in planned if commands_done(runs, r) < len(r.commands(runs))]
    costs = calibrate(left)
    for name, run in plan.runs.items():
        print(f'\n{name}: {costs.get(name, "done")}')
        for command in run.commands(runs):
            print(f'  torchgeo {" ".join(command)}')
        if run.candidates:
            print(f'  from the best of {", ".join(run.candidates)}')
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
