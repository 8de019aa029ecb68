"""How fast BigEarthNet's GeoTIFFs become samples, beside TorchGeo's own datasets.

    uv run python -m benchmarks.geotiff

The bundled sample of 59 pairs, written in the layouts of v1 and v2 per compression.
12 + 2 bands at 120 px and labels, for v2 also the land-cover map, which TorchGeo always
reads; one thread, page cache warm. Passes over all pairs alternate between the two, in
one process; medians are compared. "as stored" leaves resampling to the device. Before
timing, the pixels are compared with rasterio's, bit by bit.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
import tifffile
import torch
from torch.utils.data import ConcatDataset
from torchgeo.datasets import BigEarthNet, BigEarthNetV2

from tests.layouts import write_v1, write_v2
from torchgeo_channelmae.datasets.archives import (
    BigEarthNetV1GeoTIFF,
    BigEarthNetV2GeoTIFF,
)
from torchgeo_channelmae.datasets.geotiff import read_geotiff
from torchgeo_channelmae.datasets.patches import BigEarthNetPatches

SPLITS = ('train', 'val', 'test')
BANDS = BigEarthNetPatches.all_bands


def write(root: Path, version: str, compression: str | None) -> None:
    """Write the sample as an archive."""
    root.mkdir()
    if version == 'v1':
        write_v1(root, compression=compression)
    else:
        write_v2(root, compression=compression, maps=True)


def datasets(root: Path, version: str) -> dict[str, Any]:
    """Return who reads the archive, all splits one after the other."""
    name = str(root)
    if version == 'v1':
        made = {
            'torchgeo': [BigEarthNet(name, split) for split in SPLITS],
            'ours': [BigEarthNetV1GeoTIFF(name, split, BANDS) for split in SPLITS],
            'stored': [
                BigEarthNetV1GeoTIFF(name, split, BANDS, native=True)
                for split in SPLITS
            ],
        }
    else:
        made = {'torchgeo': [BigEarthNetV2(name, split) for split in SPLITS]}
        for who, native in (('ours', False), ('stored', True)):
            made[who] = [
                BigEarthNetV2GeoTIFF(name, split, BANDS, native=native, land_cover=True)
                for split in SPLITS
            ]
    return {who: ConcatDataset(parts) for who, parts in made.items()}


def check(root: Path) -> int:
    """Compare every file's pixels with rasterio's; return how many files there are."""
    paths = sorted(root.rglob('*.tif'))
    for path in paths:
        with rasterio.open(path) as file:
            expected = file.read(1)
        found = read_geotiff(path)
        if found.dtype != expected.dtype or found.tobytes() != expected.tobytes():
            raise ValueError(f'{path} differs from what rasterio reads.')
    return len(paths)


def rate(dataset: Sequence[Any]) -> float:
    """Read all samples; return samples a second."""
    start = time.perf_counter()
    for index in range(len(dataset)):
        dataset[index]
    return len(dataset) / (time.perf_counter() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=7, help='timed passes of each')
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f'tifffile {tifffile.__version__}, rasterio {rasterio.__version__}, 1 thread')
    print('| archive | compression | TorchGeo, samples/s | here | ratio | as stored |')
    print('| -- | -- | --: | --: | --: | --: |')
    files = 0
    with tempfile.TemporaryDirectory() as folder:
        for version in ('v1', 'v2'):
            for compression in (None, 'deflate', 'lzw', 'zstd'):
                root = Path(folder, f'{version}-{compression}')
                write(root, version, compression)
                files += check(root)
                readers = datasets(root, version)
                rates: dict[str, list[float]] = {who: [] for who in readers}
                for run in range(options.runs + 1):
                    for who, dataset in readers.items():
                        measured = rate(dataset)
                        if run:  # the first warms up
                            rates[who].append(measured)
                stock, ours, stored = map(statistics.median, rates.values())
                print(
                    f'| {version} | {compression or "none"} | {stock:.0f} | {ours:.0f} '
                    f'| {ours / stock:.1f} | {stored:.0f} |',
                    flush=True,
                )
    print(f'Pixels of {files} files are bit-equal to what rasterio reads.')


if __name__ == '__main__':
    main()
