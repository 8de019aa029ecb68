"""Run trainings as ``torchgeo`` commands, each once, in processes of their own.

A run is a folder ``NAME`` among the runs, and beside it ``NAME.yaml`` (its settings),
``NAME.log`` (what it printed) and ``NAME.json`` (how many of its commands are done). So
a run that is done is skipped, and one that was killed goes on from its last checkpoint.
"""

import contextlib
import fcntl
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.utils.tensorboard  # these here, so that forked processes have them
import torchgeo.main
import yaml

from ...processes import end_with
from .plan import Plan, Run
from .scores import best_rate, best_run

_PATIENCE = 20  # tries to hold a folder, a tenth of a second apart


@contextlib.contextmanager
def own(folder: Path) -> Iterator[None]:
    """Hold a folder of runs for this process and those that it starts.

    Raises:
        OSError: If the folder cannot be written, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / '.lock').open('a')
    except OSError as error:
        raise type(error)(
            f'Nothing can be written to {folder} ({error.strerror}): choose another '
            f'--out.'
        ) from None
    with file:
        for _ in range(_PATIENCE):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.1)  # the children of a killed process end in a moment
        else:
            raise BlockingIOError(
                f'Another process runs tables in {folder}: wait for it, or choose '
                f'another --out.'
            )
        yield


def check_settings(plan: Plan, folder: Path) -> None:
    """Check that runs of these names, where there are any, had these settings.

    Args:
        plan: The runs.
        folder: Folder of all runs.

    Raises:
        ValueError: If one had others.
    """
    for run in plan.runs.values():
        path = folder / f'{run.name}.yaml'
        if not (path.exists() and (folder / run.name).exists()):
            continue  # there is nothing yet, or it failed before it had trained
        there, now = yaml.safe_load(path.read_text()), _plain(run.settings())
        if run.candidates:  # which is the best is not known yet
            of_best = {
                'finetune': 'model.init_args.base_lr',
                'unchanged': 'weights of',
            }[run.kind]
            there.pop(of_best, None)
            now.pop(of_best, None)
        unlike = [key for key in sorted({*there, *now}) if _differ(key, there, now)]
        if unlike:
            shown = '; '.join(
                f'{key} was {there.get(key, "not given")}, is now '
                f'{now.get(key, "not given")}'
                for key in unlike[:3]
            )
            more = f' and {len(unlike) - 3} more' if len(unlike) > 3 else ''
            raise ValueError(
                f'{folder / run.name} has results of other settings ({shown}{more}): '
                f'choose another --out, or give the settings of before.'
            )


def run_all(
    plan: Plan,
    folder: Path,
    jobs: int = 1,
    told: Callable[[Run, str | None, float], None] = lambda run, failure, seconds: None,
) -> dict[str, str | None]:
    """Run what is not done yet, each run after those that it needs.

    Args:
        plan: The runs.
        folder: Folder of all runs, held by :func:`own`.
        jobs: Runs at a time.
        told: Called after each run with it, why it failed (None if it did not), and
            its seconds (0 for a run that was done before).

    Returns:
        Why each run failed, None for those that are done.
    """
    waiting = dict(plan.runs)
    outcome: dict[str, str | None] = {}
    working: dict[str, tuple[multiprocessing.Process, float]] = {}

    def end(run: Run, failure: str | None, seconds: float = 0) -> None:
        outcome[run.name] = failure
        told(run, failure, seconds)

    try:
        while waiting or working:
            for run in list(waiting.values()):
                if any(name not in outcome for name in run.needs):
                    continue
                if (done := commands_done(folder, run)) == len(run.commands(folder)):
                    del waiting[run.name]
                    end(run, None)
                elif failure := _missing(run, outcome):
                    del waiting[run.name]
                    end(run, failure)
                elif len(working) < jobs:
                    del waiting[run.name]
                    run = _with_best(run, folder, outcome)
                    _note_settings(run, folder)
                    process = multiprocessing.Process(
                        target=_work,
                        args=(
                            run.commands(folder)[done:],
                            folder / run.name,
                            done,
                            jobs,
                            os.getpid(),
                        ),
                    )
                    process.start()
                    working[run.name] = process, time.monotonic()
            for name, (process, start) in list(working.items()):
                process.join(0.05)
                if process.exitcode is not None:
                    del working[name]
                    failure = None
                    if process.exitcode:
                        failure = _reason(folder / f'{name}.log', process.exitcode)
                    end(plan.runs[name], failure, time.monotonic() - start)
    finally:
        for process, _ in working.values():
            process.kill()
            process.join()
    return outcome


def _missing(run: Run, outcome: Mapping[str, str | None]) -> str | None:
    """Say why a run cannot start, if that is so."""
    if run.start and outcome[run.start]:
        kind = 'fine-tuning' if run.kind == 'unchanged' else 'pretraining'
        return f'its {kind} {run.start} failed: {outcome[run.start]}'
    if run.embeddings and outcome[run.embeddings]:
        return f'its pretraining {run.embeddings} failed: {outcome[run.embeddings]}'
    if run.candidates and all(outcome[name] for name in run.candidates):
        return 'no learning rate is known, as no training of the first seed is done'
    return None


def _with_best(run: Run, folder: Path, outcome: Mapping[str, str | None]) -> Run:
    """Give a run the learning rate, or the weights, of the best of its candidates."""
    if not run.candidates:
        return run
    done = {name: lr for name, lr in run.candidates.items() if not outcome[name]}
    if run.kind == 'unchanged':
        return replace(run, start=best_run(done, folder))
    rate = best_rate(done, folder)
    options = {**run.options, 'model.init_args.base_lr': f'{rate:g}'}
    return replace(run, options=options)


def _note_settings(run: Run, folder: Path) -> None:
    text = yaml.safe_dump(_plain(run.settings()))
    _write(folder / f'{run.name}.yaml', text)


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings as they come back from a file."""
    plain: dict[str, object] = yaml.safe_load(yaml.safe_dump(dict(settings)))
    return plain


def _differ(key: str, a: Mapping[str, object], b: Mapping[str, object]) -> bool:
    return (key in a) != (key in b) or a.get(key) != b.get(key)


def commands_done(folder: Path, run: Run) -> int:
    """Count the commands of a run that are done."""
    path = folder / f'{run.name}.json'
    return int(json.loads(path.read_text())['commands']) if path.exists() else 0


def _write(path: Path, text: str) -> None:
    part = path.with_name(f'{path.name}.part')
    part.write_text(text)
    part.replace(path)


def _work(
    commands: list[list[str]], folder: Path, done: int, jobs: int, parent: int
) -> None:
    """Run commands one after the other, in a process of their own."""
    end_with(parent)
    log = folder.with_name(f'{folder.name}.log').open('a', buffering=1)
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = log
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    for number, command in enumerate(commands, done + 1):
        last = folder / 'last.ckpt'
        if command[0] == 'fit' and last.exists():  # it was killed
            command = [*command, '--ckpt_path', str(last)]
        print(f'$ torchgeo {" ".join(command)}', flush=True)
        torchgeo.main.main(command)
        _write(
            folder.with_name(f'{folder.name}.json'),
            json.dumps({'commands': number}) + '\n',
        )


def _reason(log: Path, code: int) -> str:
    """The last line that a failed run printed."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()]
    last = next((line for line in reversed(lines) if line), 'nothing was printed')
    what = f'it was killed by signal {-code}' if code < 0 else last
    return f'{what} (see {log.name})'
