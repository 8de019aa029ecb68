"""Samples per second of two processes, beside one of one thread with both batches.

    uv run python -m benchmarks.scale

Pretraining on the bundled sample through Lightning's Trainer (model and data as in
conf/pretrain.yaml), gloo, one thread per process. Rounds alternate between one process
and two, with DDP as it is and as in conf/scale/ddp.yaml; the median step of a round
counts, and the median over rounds. A step is from one batch's start to the next one's,
so data and logging count.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.sensors import SENTINEL2_L2A, names
from torchgeo_channelmae.tasks import ChannelMAE

from .cases import positive
from .timing import make_trainer

CASES: dict[str, dict[str, Any] | None] = {
    'one process': None,
    'DDP as it is': {},
    'conf/scale/ddp.yaml': {'gradient_as_bucket_view': True},
}


class Clock(Callback):
    """Writes the median time of a step, in seconds, the first ones left out."""

    def __init__(self, file: Path, warmup: int) -> None:
        """Initialize the clock: where to write, and how many steps to leave out."""
        self.file, self.warmup = file, warmup
        self.starts: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the time."""
        self.starts.append(time.perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the median."""
        if trainer.is_global_zero:
            times = itertools.pairwise(self.starts[self.warmup :])
            self.file.write_text(str(statistics.median(b - a for a, b in times)))


def samples_per_second(
    options: dict[str, Any] | None, arguments: argparse.Namespace
) -> float:
    """Train for some steps in one process (None) or two; return samples per second."""
    processes = 1 if options is None else 2
    seed_everything(0, verbose=False)
    bands = list(names(SENTINEL2_L2A))
    task = ChannelMAE(
        arguments.model,
        in_channels=len(bands),
        bands=bands,
        size=arguments.size,
        decoder_dim=128,
        decoder_depth=2,
        decoder_num_heads=4,
        plot_every_n_epochs=0,
    )
    data = BigEarthNetS1S2DataModule(
        bands=bands,
        size=arguments.size,
        size_by='crop',
        batch_size=arguments.batch // processes,
        samples_per_epoch=arguments.batch * arguments.steps,
    )
    ddp = None if options is None else DDPStrategy(start_method='fork', **options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'step'
        trainer = make_trainer(
            devices=processes,
            strategy=ddp or 'auto',
            max_epochs=1,
            limit_val_batches=0,
            default_root_dir=folder,
            callbacks=[Clock(file, arguments.steps // 4)],
        )
        trainer.fit(task, data)
        return arguments.batch / float(file.read_text())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--model', default='channelmae_tiny_patch16')
    add('--size', type=positive, default=64, help='px')
    add('--batch', type=positive, default=32, help='of both together')
    add('--steps', type=positive, default=40, help='of a round')
    add('--rounds', type=positive, default=3)
    add('--cases', type=positive, default=len(CASES), help='the first ones')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ['OMP_NUM_THREADS'] = '1'  # of the processes that are forked
    cases = dict(itertools.islice(CASES.items(), arguments.cases))
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(arguments.rounds):
        for name, options in cases.items():
            found[name].append(samples_per_second(options, arguments))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    print(
        f'\n{arguments.model}, {arguments.size} px, global batch {arguments.batch}, '
        f'torch {torch.__version__}, {os.cpu_count()} cores, one thread per process\n'
    )
    print('| | samples/s | over one process | rounds |\n| -- | --: | --: | -- |')
    for name, rate in medians.items():
        rounds = ', '.join(f'{each:.1f}' for each in found[name])
        ratio = rate / medians['one process']
        print(f'| {name} | {rate:.1f} | {ratio:.2f} | {rounds} |')


if __name__ == '__main__':
    main()
