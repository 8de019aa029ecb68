"""Run trainings as ``torchgeo`` commands, each once, in processes of their own.

A run is a folder ``NAME`` among the runs, and beside it ``NAME.yaml`` (its settings),
``NAME.log`` (what it printed) and ``NAME.json`` (how many of its commands are done). So
a finished run is skipped, and one that was killed continues from its last checkpoint.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import pandas as pd
import yaml

from ...files import whole
from .plan import Plan, Run

Outcome = dict[str, str | None]
"""Why each run failed, None if it is done."""

_CHILD = [sys.executable, '-m', 'torchgeo_channelmae.experiments.tables.child']
_OF_BEST = {'finetune': 'model.init_args.base_lr', 'unchanged': 'weights of'}


def check_settings(plan: Plan, folder: Path) -> None:
    """Check that earlier runs of the same names had the same settings.

    Args:
        plan: The runs.
        folder: Folder of all runs.

    Raises:
        ValueError: If one had others.
    """
    for run in plan.runs.values():
        path = folder / f'{run.name}.yaml'
        if not (path.exists() and (folder / run.name).exists()):
            continue  # not run yet, or it failed before training
        earlier, now = yaml.safe_load(path.read_text()), _plain(run.settings())
        keys = {*earlier, *now}
        if run.candidates:  # the best one is not yet known
            keys.discard(_OF_BEST[run.kind])
        differ = [
            f'{key} was {earlier.get(key)}, is now {now.get(key)}'
            for key in sorted(keys)
            if earlier.get(key) != now.get(key)
        ]
        if differ:
            raise ValueError(
                f'{folder / run.name} has results of other settings: '
                f'{"; ".join(differ)}. Choose another --out, or restore them.'
            )


def run_all(
    plan: Plan, folder: Path, jobs: int = 1
) -> Iterator[tuple[Run, str | None, float]]:
    """Run what is not done yet, each run after those that it needs.

    Args:
        plan: The runs.
        folder: Folder of all runs.
        jobs: Runs at a time.

    Yields:
        Each run when it ends, with why it failed (None if it did not), and its seconds
        (0 if it was done before).
    """
    sorter = TopologicalSorter({run.name: run.needs for run in plan.runs.values()})
    sorter.prepare()
    outcome: Outcome = {}
    working: dict[Future[float], Run] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while sorter.is_active():
            for name in sorter.get_ready():
                run = plan.runs[name]
                working[pool.submit(_run, run, folder, outcome, jobs)] = run
            for future in wait(working, return_when=FIRST_COMPLETED).done:
                run, error = working.pop(future), future.exception()
                if error and not isinstance(error, ChildProcessError):
                    raise error
                outcome[run.name] = str(error) if error else None
                yield run, outcome[run.name], 0.0 if error else future.result()
                sorter.done(run.name)


def _run(run: Run, folder: Path, outcome: Outcome, jobs: int) -> float:
    """Run the commands of a run that are not done and return the seconds."""
    start = time.monotonic()
    done = commands_done(folder, run)
    if done == len(run.commands(folder)):
        return 0.0
    run = _with_best(run, folder, outcome)
    with whole(folder / f'{run.name}.yaml') as path:
        path.write_text(yaml.safe_dump(_plain(run.settings())))
    log, last = folder / f'{run.name}.log', folder / run.name / 'last.ckpt'
    for number, command in enumerate(run.commands(folder)[done:], done + 1):
        if command[0] == 'fit' and last.exists():  # it was killed
            command = [*command, f'--ckpt_path={last}']
        if code := torchgeo(command, log, jobs):
            why = last_line(log) if code > 0 else f'it was killed by signal {-code}'
            raise ChildProcessError(f'{why} (see {log.name})')
        with whole(folder / f'{run.name}.json') as path:
            path.write_text(json.dumps({'commands': number}) + '\n')
    return time.monotonic() - start


def torchgeo(command: list[str], log: Path, jobs: int = 1) -> int:
    """Run ``torchgeo`` in a process that ends with this one.

    Args:
        command: Its arguments.
        log: File to which its output is appended.
        jobs: Processes that share the processor.

    Returns:
        The exit code.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with log.open('a') as file:
        print(f'$ torchgeo {" ".join(command)}', file=file, flush=True)
        return subprocess.run(
            [*_CHILD, str(os.getpid()), *command],
            env={'OMP_NUM_THREADS': str(threads), **os.environ},
            stdout=file,
            stderr=file,
            check=False,
        ).returncode


def _with_best(run: Run, folder: Path, outcome: Outcome) -> Run:
    """Give a run the rate, or the weights, of the best of its candidates."""
    candidates = run.candidates or {}
    done = {name: rate for name, rate in candidates.items() if not outcome[name]}
    for need in run.needs:
        if outcome[need] and (need not in candidates or not done):
            raise ChildProcessError(f'{need}, which it needs, failed: {outcome[need]}')
    if not candidates:
        return run
    best = best_run(done, folder)
    if run.kind == 'unchanged':
        return replace(run, start=best)
    return replace(run, base_lr=done[best])


def best_run(names: Mapping[str, float], folder: Path) -> str:
    """Return the run with the best last validation score, the first among equals."""
    scores = {name: validation_score(folder / name) for name in names}
    return max(scores, key=lambda name: (not math.isnan(scores[name]), scores[name]))


def validation_score(run: Path) -> float:
    """Return micro mAP of the last validation of a run, NaN if training diverged.

    Raises:
        FileNotFoundError: If the run has no ``fit/metrics.csv``.
    """
    table = pd.read_csv(run / 'fit' / 'metrics.csv')
    rows = table.loc[table['epoch'] == table['epoch'].max(), 'val_mAP_micro'].dropna()
    return float(rows.iloc[-1]) if len(rows) else math.nan


def commands_done(folder: Path, run: Run) -> int:
    """Count the commands of a run that are done."""
    path = folder / f'{run.name}.json'
    return int(json.loads(path.read_text())['commands']) if path.exists() else 0


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    """Return settings as they come back from a file."""
    plain: dict[str, object] = yaml.safe_load(yaml.safe_dump(dict(settings)))
    return plain


def last_line(log: Path) -> str:
    """Return the last line that a command printed."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()]
    return next((line for line in reversed(lines) if line), 'nothing was printed')
