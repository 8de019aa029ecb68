"""What runs would take, from a few steps of each kind on this machine."""

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, override

import lightning.pytorch as pl
import torch

from ...files import whole
from .plan import Run
from .runner import last_line, torchgeo

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

STEPS = 20
_WARM = 5  # steps before the clock counts
_METER = f'{__name__}.Meter'
#: Options that change neither the time nor the memory of a run.
_IRRELEVANT = ('model.init_args.weights', 'model.init_args.reinit')


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        samples: Training samples per epoch; test samples of a zero-shot test.
        steps: Optimizer steps of the whole run, 0 for a zero-shot test.
        seconds: Time of the whole run with evaluation, without start-up.
        memory: Peak bytes of the GPU if there is one, else of the process.
    """

    samples: int
    steps: int
    seconds: float
    memory: int


class Meter(pl.Callback):
    """Time a few steps, write the measurements as JSON and end the command.

    Args:
        path: File to write.
        only_test: Whether to end before training and count the samples of the test.
    """

    def __init__(self, path: str, only_test: bool = False) -> None:
        self.path, self.only_test = path, only_test
        self.ends: list[float] = []
        self.evaluations: list[float] = []
        self._start = 0.0

    @override
    def on_validation_batch_start(self, *args: Any) -> None:
        self._start = time.perf_counter()

    @override
    def on_validation_batch_end(self, *args: Any) -> None:
        self.evaluations.append(time.perf_counter() - self._start)

    @override
    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.only_test:
            self._finish(trainer)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.ends.append(time.perf_counter())
        if len(self.ends) > STEPS:
            self._finish(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._finish(trainer)

    def _finish(self, trainer: pl.Trainer) -> None:
        host: Any = trainer
        if self.only_test:
            host.datamodule.setup('test')
        loader, gaps = host.train_dataloader, [0.0]
        if len(self.ends) > 1:
            gaps = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        size = getattr(loader, 'batch_size', None) or loader.batch_sampler.batch_size
        found = {
            'size': int(size),
            'batches': int(host.num_training_batches),
            'evaluations': sum(map(int, host.num_val_batches)),
            'epochs': host.max_epochs or 1,
            'steps': int(host.estimated_stepping_batches),
            'tested': len(host.datamodule.test_dataset) if self.only_test else 0,
            'step': median(gaps[_WARM:] or gaps),
            'evaluation': median(self.evaluations or [0.0]),
            'memory': _peak(),
        }
        with whole(self.path) as path:
            path.write_text(json.dumps(found))
        sys.exit()


def calibrate(runs: Iterable[Run]) -> dict[str, Cost | str]:
    """Measure what runs would take, once for runs that take the same.

    Returns:
        For each run its cost, or in words why it could not be measured.
    """
    measured: dict[tuple[Any, ...], Cost | str] = {}
    found: dict[str, Cost | str] = {}
    for run in runs:
        options = {k: v for k, v in run.options.items() if k not in _IRRELEVANT}
        key = (run.kind, run.configs, *sorted(options.items()))
        if key not in measured:
            measured[key] = _measure(run)
        found[run.name] = measured[key]
    return found


def _measure(run: Run) -> Cost | str:
    """Run a few steps of a run without weights, in a process of its own."""
    only_test = run.kind == 'unchanged'
    options = dict(run.options)
    if run.kind != 'pretrain':
        options['model.init_args.weights'] = 'null'
    short = replace(run, options=options, start=None, embeddings=None)
    if only_test:  # validation batches of a fine-tuning on the same bands
        short = replace(short, kind='finetune', configs=run.configs[:-1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        meter = {
            'trainer.callbacks+': _METER,
            'trainer.callbacks.path': str(folder / 'found.json'),
            'trainer.callbacks.only_test': str(only_test).lower(),
        }
        command = short.commands(folder)[0]
        command += [f'--{key}={value}' for key, value in meter.items()]
        with (folder / 'log').open('w') as log:
            torchgeo(command, stdout=log, stderr=log)
        if not (folder / 'found.json').exists():
            return last_line(folder / 'log')
        found = json.loads((folder / 'found.json').read_text())
    if only_test:
        seconds = math.ceil(found['tested'] / found['size']) * found['evaluation']
        return Cost(found['tested'], 0, seconds, found['memory'])
    rounds = found['epochs'] + (run.kind == 'finetune')  # a test takes about as long
    seconds = found['epochs'] * found['batches'] * found['step']
    seconds += rounds * found['evaluations'] * found['evaluation']
    samples = found['batches'] * found['size']
    return Cost(samples, found['steps'], seconds, found['memory'])


def _peak() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if resource is None:
        return 0
    scale = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
