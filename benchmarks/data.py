"""How fast pairs of BigEarthNet are read, by this package and by TorchGeo.

    uv run python -m benchmarks.data [--root FOLDER] [--batch-size 32]

12 + 2 bands, one process, one thread, page cache warm: reading and collating records as
stored; the same to normalised float batches of 128 px on the CPU; and TorchGeo's own
BigEarthNet over the same patches, written out in its layout, with the same collating,
normalising and resizing. The three alternate; medians of runs of `--seconds` each.

The default root is the bundled sample of 59 pairs, which fits into a processor's caches
better than a real archive; ``channelmae synthesize`` makes larger ones.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import default_collate
from torchgeo.datasets import BigEarthNet

from tests.layouts import write_v1
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datamodules.collate import collate
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.sensors import SENTINEL2_L2A

from .steps import OURS, Steps

SIZE = 128


def batches(
    dataset: Any, size: int, collate_fn: Callable[[Any], Any]
) -> Iterator[dict[str, Any]]:
    """Read a dataset over and over, batch by batch."""
    rows = itertools.cycle(range(len(dataset)))
    while True:
        yield collate_fn([dataset[row] for row in itertools.islice(rows, size)])


def rate(step: Callable[[], Any], size: int, seconds: float) -> float:
    """Return how many samples a second a step of so many makes."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += size
    return count / (time.perf_counter() - start)


def make_steps(batch: int, bands: int) -> Steps:
    """Make a row of `python -m benchmarks`: normalised batches of the sample.

    Args:
        batch: Samples a batch.
        bands: Bands of optical images that are read.
    """
    names = [band.name for band in SENTINEL2_L2A][:bands]
    data = BigEarthNetS1S2DataModule(None, bands=names, size=SIZE, batch_size=1)
    data.setup('fit')
    loop = batches(data.train_dataset, batch, collate)
    return Steps(
        {OURS: lambda: data.finish(next(loop), training=False)['image']},
        facts=[
            f'bundled sample, {bands} bands, one process, page cache warm; '
            f"python -m benchmarks.data has TorchGeo's beside it"
        ],
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=Path, default=SAMPLE_ROOT)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--patches', type=int, default=500, help='at most so many')
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = BigEarthNetS1S2DataModule(
        str(args.root) if args.root != SAMPLE_ROOT else None,
        bands=list(BigEarthNetLMDB.all_bands),
        size=SIZE,
        batch_size=1,
    )
    data.setup('fit')
    ours = data.train_dataset
    rows = [
        row for row, split in enumerate(data.table.split.tolist()) if split == 'train'
    ][: args.patches]
    ours = torch.utils.data.Subset(ours, range(len(rows)))
    with tempfile.TemporaryDirectory() as folder:
        write_v1(Path(folder), args.root, rows)
        theirs = BigEarthNet(folder, split='train', bands='all')
        loops = {
            'records': batches(ours, args.batch_size, collate),
            'ours': batches(ours, args.batch_size, collate),
            'theirs': batches(theirs, args.batch_size, default_collate),
        }
        mean, std = data.mean[:, None, None], data.std[:, None, None]

        def torchgeo_batch() -> torch.Tensor:
            image = (next(loops['theirs'])['image'] - mean) / std
            return F.interpolate(image, (SIZE, SIZE), mode='bilinear')

        steps: dict[str, Callable[[], Any]] = {
            'LMDB: records as stored, collated': lambda: next(loops['records']),
            f'LMDB: normalised {SIZE} px float batch': lambda: data.finish(
                next(loops['ours']), training=False
            ),
            f"TorchGeo's BigEarthNet: normalised {SIZE} px float batch": torchgeo_batch,
        }
        rates: dict[str, list[float]] = {name: [] for name in steps}
        for run in range(args.runs + 1):
            for name, step in steps.items():
                found = rate(step, args.batch_size, args.seconds)
                if run:  # the first fills the page cache
                    rates[name].append(found)
    last = statistics.median(list(rates.values())[-1])
    print(
        f'{len(rows)} patches, batches of {args.batch_size}, torch {torch.__version__}'
    )
    print('| | samples/s | min to max | against TorchGeo |\n| -- | --: | --: | --: |')
    for name, found in rates.items():
        middle = statistics.median(found)
        print(
            f'| {name} | {middle:,.0f} | {min(found):,.0f} to {max(found):,.0f} | '
            f'{middle / last:.1f} |'
        )


if __name__ == '__main__':
    main()
