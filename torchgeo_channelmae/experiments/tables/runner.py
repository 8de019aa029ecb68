"""Run trainings as ``torchgeo`` commands, each once, in separate processes.

A run is a folder ``NAME`` with, beside it, ``NAME.yaml`` (its settings), ``NAME.log``
(its output) and ``NAME.json`` (how many of its commands are done). A finished run is
skipped, and one that was killed continues from its last checkpoint.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import pandas as pd
import yaml

from ...files import whole
from .plan import Plan, Run

Outcome = dict[str, str | None]
"""Why each run failed, None if it succeeded."""

_CHILD = [sys.executable, '-m', 'torchgeo_channelmae.experiments.tables.child']
_TUNED = {'model.init_args.base_lr', 'model.init_args.layer_decay'}
_CHOSEN = {'finetune': _TUNED, 'unchanged': {'weights of'}}
"""Settings that a run takes from the best of its candidates, by kind of run."""


def check_settings(plan: Plan, folder: Path) -> None:
    """Check that earlier runs of a plan in the folder had the same settings."""
    for run in plan.runs.values():
        path = folder / f'{run.name}.yaml'
        if not (path.exists() and (folder / run.name).exists()):
            continue  # not run yet, or it failed before training
        earlier, now = yaml.safe_load(path.read_text()), run.settings()
        keys = {*earlier, *now}
        if run.candidates:  # the best one is not known yet
            keys -= _CHOSEN[run.kind]
        differ = [
            f'{key} was {earlier.get(key)}, is now {now.get(key)}'
            for key in sorted(keys)
            if earlier.get(key) != now.get(key)
        ]
        if differ:
            raise ValueError(
                f'{folder / run.name} has results of other settings: '
                f'{"; ".join(differ)}. Choose another --out, or restore the settings.'
            )


def run_all(
    plan: Plan, folder: Path, jobs: int = 1
) -> Iterator[tuple[Run, str | None, float]]:
    """Run what is not done yet, each run after the runs it needs, ``jobs`` at a time.

    Yields:
        Each run when it ends, with why it failed (None if it succeeded), and its
        seconds (0 if it was done before).
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
    """Run the remaining commands of a run and return the seconds."""
    start = time.monotonic()
    done = commands_done(folder, run)
    if done == len(run.commands(folder)):
        return 0.0
    run = _with_best(run, folder, outcome)
    with whole(folder / f'{run.name}.yaml') as path:
        path.write_text(yaml.safe_dump(run.settings()))
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
    """Run ``torchgeo`` in a process that ends with this one, and return its exit code.

    Its output is appended to the log; ``jobs`` processes share the CPU.
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
    """Return a run with the choice or the weights of the best candidate."""
    candidates = run.candidates or {}
    done = {name: tuned for name, tuned in candidates.items() if not outcome[name]}
    for need in run.needs:
        if outcome[need] and (need not in candidates or not done):
            raise ChildProcessError(f'it needs {need}, which failed: {outcome[need]}')
    if not candidates:
        return run
    best = best_run(done, folder)
    if run.kind == 'unchanged':
        return replace(run, start=best)
    return replace(run, tuned=done[best])


def best_run(names: Iterable[str], folder: Path) -> str:
    """Return the run with the best last validation score, the first among equals."""
    scores = {name: validation_score(folder / name) for name in names}
    return max(scores, key=lambda name: (not math.isnan(scores[name]), scores[name]))


def validation_score(run: Path) -> float:
    """Return micro mAP of the last validation of a run, NaN if training diverged."""
    return last_value(run, 'val_mAP_micro')


def last_value(run: Path, column: str) -> float:
    """Return what the last epoch of a run logged under a name, NaN if nothing."""
    table = pd.read_csv(run / 'fit' / 'metrics.csv')
    if column not in table:
        return math.nan
    rows = table.loc[table['epoch'] == table['epoch'].max(), column].dropna()
    return float(rows.iloc[-1]) if len(rows) else math.nan


def commands_done(folder: Path, run: Run) -> int:
    """Count the commands of a run that are done."""
    path = folder / f'{run.name}.json'
    return int(json.loads(path.read_text())['commands']) if path.exists() else 0


def last_line(log: Path) -> str:
    """Return the last line that a command printed."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()]
    return next((line for line in reversed(lines) if line), 'nothing was printed')
