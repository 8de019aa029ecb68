"""How much memory of their own loading processes take, epoch by epoch.

    uv run python -m benchmarks.workers --root FOLDER [--context fork]

Reads epochs of 12 + 2 bands through the datamodule with several workers and prints,
after each epoch, the memory that each worker shares with nobody (Linux only).
Pages of the memory-mapped LMDB are the page cache's and don't count.
"""

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets import BigEarthNetLMDB


def unique_memory(pid: int) -> float:
    """Return what a process has to itself in MB, without pages of the LMDB's file.

    Linux counts a page of a shared file as private to the process while no other has
    touched it; it belongs to the page cache all the same.
    """
    total, counts = 0, True
    for line in Path(f'/proc/{pid}/smaps').read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(':'):  # the first line of a mapping
            counts = not line.endswith('data.mdb')
        elif counts and name in ('Private_Clean:', 'Private_Dirty:'):
            total += int(values[0])
    return total / 1e3


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', default=None)
    parser.add_argument('--context', choices=['fork', 'spawn'], default='fork')
    parser.add_argument('--workers', type=int, default=4)
    parser.add_argument('--epochs', type=int, default=3)
    parser.add_argument('--samples', type=int, default=20_000)
    args = parser.parse_args()
    data = BigEarthNetS1S2DataModule(
        args.root,
        bands=list(BigEarthNetLMDB.all_bands),
        batch_size=32,
        num_workers=args.workers,
        samples_per_epoch=args.samples,
    )
    data.setup('fit')
    loader: Any = data.train_dataloader()
    loader.multiprocessing_context = args.context
    print(f'{args.workers} workers, {args.context}, torch {torch.__version__}')
    print('| | samples/s | unique MB of each worker |\n| -- | --: | -- |')
    for epoch in range(args.epochs):
        loader.sampler.set_epoch(epoch)
        batches, start = iter(loader), time.perf_counter()
        next(batches)
        workers = [worker.pid for worker in multiprocessing.active_children()]
        if not epoch:
            first = ', '.join(f'{unique_memory(pid):.0f}' for pid in workers)
            print(f'| after a batch | | {first} |')
        for _ in batches:
            pass
        found = args.samples / (time.perf_counter() - start)
        sizes = ', '.join(f'{unique_memory(pid):.0f}' for pid in workers)
        print(f'| epoch {epoch + 1} | {found:,.0f} | {sizes} |', flush=True)


if __name__ == '__main__':
    main()
