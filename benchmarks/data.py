"""How fast pairs of BigEarthNet are read.

    uv run python -m benchmarks.data [--root FOLDER] [--torchgeo ARCHIVE]

12 + 2 bands, one process, one thread, page cache warm: reading and collating records as
stored; the same to normalized float batches of 128 px on the CPU; and, with --torchgeo,
TorchGeo's BigEarthNet over a folder of v1's archives, with the same normalizing and
resizing. They alternate; medians of runs of `--seconds` each.

The default root is the bundled sample of 59 pairs, which fits into a processor's caches
better than a real archive.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import default_collate
from torchgeo.datasets import BigEarthNet

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.sensors import SENTINEL1_GRD, SENTINEL2_L2A, names

from .cases import positive
from .steps import OURS, Steps

SIZE = 128
BANDS = [*names(SENTINEL2_L2A), *names(SENTINEL1_GRD)]


def make_data(root: Path | None, bands: list[str]) -> Any:
    """Set up training patches of some bands; the default root is the sample."""
    data = BigEarthNetS1S2DataModule(
        root and str(root), bands=bands, size=SIZE, batch_size=1
    )
    data.setup('fit')
    return data


def batches(
    dataset: Any, size: int, collate: Callable[[Any], Any]
) -> Iterator[dict[str, Any]]:
    """Read a dataset over and over, batch by batch."""
    rows = itertools.cycle(range(len(dataset)))
    while True:
        yield collate([dataset[row] for row in itertools.islice(rows, size)])


def make_steps(batch: int, bands: int) -> Steps:
    """Make a row of `python -m benchmarks`: normalized batches of the sample.

    Args:
        batch: Samples per batch.
        bands: Bands of optical images that are read.
    """
    data = make_data(None, BANDS[:bands])
    loop = batches(data.train_dataset, batch, data.collate_fn)
    run = {OURS: lambda: data.on_after_batch_transfer(next(loop), 0)['image']}
    return Steps(run, facts=['bundled sample, one process, page cache warm'])


def rate(step: Callable[[], Any], size: int, seconds: float) -> float:
    """Return how many samples per second a step of so many makes."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += size
    return count / (time.perf_counter() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--root', type=Path, help='folder of the data; by default the sample')
    add('--torchgeo', type=Path, help="folder of v1's archives, for TorchGeo's dataset")
    add('--batch-size', type=positive, default=32)
    add('--runs', type=positive, default=5)
    add('--seconds', type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = make_data(args.root, BANDS)
    size = args.batch_size
    records, ours = (
        batches(data.train_dataset, size, data.collate_fn) for _ in range(2)
    )
    steps: dict[str, Callable[[], Any]] = {
        'LMDB: records as stored, collated': lambda: next(records),
        f'LMDB: normalized {SIZE} px float batch': lambda: data.on_after_batch_transfer(
            next(ours), 0
        ),
    }
    if args.torchgeo:
        dataset = BigEarthNet(args.torchgeo, split='train', bands='all')
        theirs = batches(dataset, size, default_collate)
        mean, std = (value.roll(2)[:, None, None] for value in (data.mean, data.std))

        def torchgeo_batch() -> torch.Tensor:
            image = (next(theirs)['image'] - mean) / std
            return F.interpolate(image, (SIZE, SIZE), mode='bilinear')

        steps[f"TorchGeo's BigEarthNet: normalized {SIZE} px batch"] = torchgeo_batch
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(args.runs + 1):
        for name, step in steps.items():
            found = rate(step, size, args.seconds)
            if run:  # the first fills the page cache
                rates[name].append(found)
    print(f'batches of {size}, torch {torch.__version__}')
    print('| | samples/s | min to max |\n| -- | --: | --: |')
    for name, each in rates.items():
        spread = f'{min(each):,.0f} to {max(each):,.0f}'
        print(f'| {name} | {statistics.median(each):,.0f} | {spread} |')


if __name__ == '__main__':
    main()
