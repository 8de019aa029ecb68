"""Estimate the cost of trainings from a few steps of each kind on this machine."""

import json
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, override

import lightning.pytorch as pl
import torch

from .plan import Run
from .runner import last_line, torchgeo

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

STEPS = 20
_WARM = 5  # steps before the clock counts
_FRESH = {'model.init_args.reinit': '[]', 'model.init_args.weights': 'null'}


@dataclass(frozen=True)
class Cost:
    """Cost of a training.

    Attributes:
        samples: Samples per epoch.
        steps: Optimizer steps.
        seconds: Time of training and validation, without start-up.
        memory: Peak bytes, of the GPU if there is one, else of the process.
    """

    samples: int
    steps: int
    seconds: float
    memory: int

    @override
    def __str__(self) -> str:
        return (
            f'{self.samples:,} samples per epoch, {self.steps:,} optimizer steps, '
            f'about {self.seconds / 3600:.3f} hours, {self.memory / 2**30:.2f} GiB'
        )


class Meter(pl.Callback):
    """Time a few steps, write a :class:`Cost` to ``path`` and end the process."""

    @override
    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.steps: list[float] = []
        self.evaluations: list[float] = []
        self._start = 0.0

    @override
    def on_validation_batch_start(self, *args: Any) -> None:
        self._start = time.perf_counter()

    @override
    def on_validation_batch_end(self, *args: Any) -> None:
        self.evaluations.append(time.perf_counter() - self._start)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.steps.append(time.perf_counter())
        if len(self.steps) > STEPS:
            self.on_train_end(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, *args: Any) -> None:
        loader: Any = trainer.train_dataloader
        size = getattr(loader, 'batch_size', None) or loader.batch_sampler.batch_size
        batches, epochs = int(trainer.num_training_batches), trainer.max_epochs or 1
        gaps = [after - before for before, after in pairwise(self.steps)]
        seconds = epochs * batches * median(gaps[_WARM:] or gaps or [0.0])
        evaluated = (epochs + 1) * sum(map(int, trainer.num_val_batches))
        seconds += evaluated * median(self.evaluations or [0.0])
        steps = int(trainer.estimated_stepping_batches)
        cost = Cost(batches * int(size), steps, seconds, _peak())
        self.path.write_text(json.dumps(asdict(cost)))
        sys.exit()


def calibrate(runs: Iterable[Run]) -> dict[str, Cost | str]:
    """Estimate the cost of trainings, measuring those that cost the same only once.

    A cost that is unknown is a string with the reason.
    """
    measured: dict[str, Cost | str] = {}
    found: dict[str, Cost | str] = {}
    for run in runs:
        options = {key: _FRESH.get(key, value) for key, value in run.options.items()}
        short = replace(run, seed=0, options=options, start=None, tuned={})
        key = str((short.kind, short.configs, short.options))
        if key not in measured:
            measured[key] = _measure(short)
        found[run.name] = measured[key]
    return found


def _measure(run: Run) -> Cost | str:
    if run.kind == 'unchanged':
        return 'only a test'
    with tempfile.TemporaryDirectory() as name:
        path, log = Path(name) / 'cost.json', Path(name) / 'log'
        meter = f'--trainer.callbacks+={__name__}.Meter'
        command = [*run.commands(Path(name))[0], meter]
        torchgeo([*command, f'--trainer.callbacks.path={path}'], log)
        if path.exists():
            return Cost(**json.loads(path.read_text()))
        return f'not measured: {last_line(log)}'


def _peak() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if resource is None:
        return 0
    scale = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
