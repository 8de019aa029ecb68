"""What a table's runs would cost, from a few steps of each kind on this machine."""

import contextlib
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, override

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningCLI
from torchgeo.datamodules import BaseDataModule
from torchgeo.tasks import BaseTask

from ...processes import end_with
from .plan import Plan, Run

STEPS = 20
_WARM = 5  # steps before the clock counts
#: Options that change neither the time nor the memory of a run.
_IRRELEVANT = ('seed_everything', 'model.init_args.base_lr', 'model.init_args.weights')


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        samples: Training samples an epoch; of a test of an unchanged head its samples.
        steps: Optimizer steps of the whole run, 0 without training.
        seconds: Of the whole run, evaluation included, start-up not.
        memory: Peak bytes: of the GPU where there is one, else of the process.
    """

    samples: int
    steps: int
    seconds: float
    memory: int


class _EnoughError(Exception):
    """Ends a calibration."""


class _Clock(pl.Callback):
    """Notes when training and evaluation batches end."""

    def __init__(self, trains: bool) -> None:
        self.trains = trains
        self.train: list[float] = []
        self.evaluation: list[float] = []
        self._start = 0.0
        self.evaluated = 0.0

    @override
    def on_train_start(self, *args: Any) -> None:
        if not self.trains:
            raise _EnoughError

    @override
    def on_train_batch_end(self, *args: Any) -> None:
        self.train.append(time.perf_counter())
        if len(self.train) > STEPS:
            raise _EnoughError

    @override
    def on_validation_batch_start(self, *args: Any) -> None:
        self._start = time.perf_counter()

    @override
    def on_validation_batch_end(self, *args: Any) -> None:
        self.evaluation.append(time.perf_counter() - self._start)

    @property
    def step(self) -> float:
        """Median seconds of a training step, its data included."""
        gaps = [b - a for a, b in zip(self.train, self.train[1:], strict=False)]
        return median(gaps[_WARM:] or gaps or [0.0])


def calibrate(
    plan: Plan, folder: Path, done: Sequence[str] = ()
) -> dict[str, Cost | str]:
    """Measure what each run would take, once for runs that differ in no such way.

    Args:
        plan: The runs.
        folder: Folder of all runs, only named.
        done: Runs to leave out.

    Returns:
        The cost of each run, or in words why it could not be measured.
    """
    measured: dict[tuple[Any, ...], Cost | str] = {}
    found: dict[str, Cost | str] = {}
    for run in plan.runs.values():
        if run.name in done:
            continue
        key = _kind(run)
        if key not in measured:
            measured[key] = _apart(run)
        found[run.name] = measured[key]
    return found


def _kind(run: Run) -> tuple[Any, ...]:
    options = {k: v for k, v in run.options.items() if k not in _IRRELEVANT}
    return run.kind, run.configs, tuple(sorted(options.items()))


def _apart(run: Run) -> Cost | str:
    """Measure in a process of its own, so that memory is its own."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_measure, args=(run, there, os.getpid()))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        found = 'the calibration was killed, perhaps for want of memory'
    process.join()
    return Cost(**found) if isinstance(found, Mapping) else str(found)


def _measure(run: Run, pipe: Connection, parent: int) -> None:
    end_with(parent)
    with open(os.devnull, 'w') as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        sys.stdout = sys.stderr = nowhere
        try:
            with tempfile.TemporaryDirectory() as folder:
                pipe.send(asdict(_cost(run, Path(folder))))
        except BaseException as error:
            text = str(error).strip() or type(error).__name__
            pipe.send(text.splitlines()[-1])


def _cost(run: Run, folder: Path) -> Cost:
    fresh = _fresh(run)
    cli = LightningCLI(
        model_class=BaseTask,
        datamodule_class=BaseDataModule,
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        run=False,
        args=fresh.commands(folder)[0][1:],
    )
    clock = _Clock(trains=run.kind != 'unchanged')
    trainer: Any = cli.trainer
    trainer.callbacks.append(clock)
    with contextlib.suppress(_EnoughError):
        trainer.fit(cli.model, cli.datamodule)
    batches = int(trainer.num_training_batches)
    loader: Any = trainer.train_dataloader
    size = getattr(loader, 'batch_size', None) or loader.batch_sampler.batch_size
    evaluations = sum(map(int, trainer.num_val_batches))
    if run.kind == 'unchanged':
        return _of_test(cli.datamodule, int(size), clock)
    epochs = trainer.max_epochs or 1
    rounds = epochs + (run.kind == 'finetune')  # a test is about as long
    steps = int(trainer.estimated_stepping_batches)
    seconds = epochs * batches * clock.step
    seconds += rounds * evaluations * median(clock.evaluation or [0.0])
    return Cost(batches * int(size), steps, seconds, _peak())


def _of_test(datamodule: Any, size: int, clock: _Clock) -> Cost:
    """The cost of a test alone, from validation batches of the same bands."""
    datamodule.setup('test')
    samples = len(datamodule.test_dataset)
    seconds = math.ceil(samples / size) * median(clock.evaluation or [0.0])
    return Cost(samples, 0, seconds, _peak())


def _fresh(run: Run) -> Run:
    """A run without weights; for a test the training of a model of the same bands."""
    options = dict(run.options)
    if run.kind != 'pretrain':
        options['model.init_args.weights'] = 'null'
    if run.kind != 'unchanged':
        return replace(run, start=None, options=options)
    configs = tuple(path for path in run.configs if path.name != 'unchanged.yaml')
    return replace(
        run,
        kind='finetune',
        start=None,
        embeddings=None,
        configs=configs,
        options=options,
    )


def _peak() -> int:
    """Peak bytes: of the GPU where there is one, else resident ones of the process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
