"""``channelmae stats``: mean, standard deviation and percentiles of each band."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jsonargparse.typing import PositiveInt
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..config import ClassSpec, build
from ..datamodules.base import ChannelDataModule
from ..datamodules.geo import GeoPretrainingDataModule
from ..datamodules.named_bands import NamedBands
from ..datamodules.pretraining import PretrainingDataModule
from ..datamodules.source_datamodule import SourceDataModule
from ..datamodules.statistics import BandStatistics, missing_pixels, write_statistics
from ..datasets import BigEarthNetLMDB
from ..files import refuse_existing
from ..randomness import generator
from .configuration import read_datamodule

Rows = npt.NDArray[np.int64]


def stats(
    out: Path,
    training: Path | list[Path] | None = None,
    dataset: ClassSpec | None = None,
    geo: bool = False,
    bands: list[str] | None = None,
    root: str | None = None,
    size: int | None = None,
    dataset_bands: list[str] | None = None,
    image_key: str | None = None,
    level: str | None = None,
    nodata: float | None = None,
    samples: PositiveInt | None = None,
    seed: int = 0,
    workers: int = 0,
    data: dict[str, Any] | None = None,
) -> None:
    """Compute statistics of each band and write them as YAML.

    Pixels without data (NaN, infinite, or `nodata` in all bands of a sensor and
    resolution) are left out, and never filled. Percentiles are within 0.1 % of their
    value. A datamodule reads the file with `statistics: PATH`.

    Args:
        out: The file to write; it must not exist.
        training: Configuration of a training, or a list of configurations, each laid
            over those before it: the statistics are those of the samples that its
            `data` trains on. Instead of `dataset`; `bands`, `root`, `size`,
            `dataset_bands`, `image_key`, `level` and `nodata` replace its values.
        dataset: `{class_path: NAME, init_args: {...}}` of any TorchGeo dataset, all of
            whose samples count.
        geo: Whether it is a GeoDataset, sampled at random places.
        bands: Names of the bands; all by default.
        root: Folder of the data, if it is not in `init_args`.
        size: Height and width of the places of a GeoDataset in pixels, 128 by default.
        dataset_bands: Names of the channels of an unknown dataset, in order.
        image_key: Key of the image in the samples of an unknown dataset, `image` by
            default.
        level: Product level of the Sentinel-2 bands, L1C or L2A, if the dataset has
            both or is unknown.
        nodata: Pixel value that stands for no data; that of the known dataset by
            default.
        samples: Number of samples, drawn at random without replacement; all by default.
        seed: Seed of the draw.
        workers: Number of data loading processes.
        data: Other arguments of the datamodule to replace, nested ones with
            dots: `{dataset.init_args.split: train}`.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If data are missing.
        ValueError: If an argument is wrong.
    """
    refuse_existing(out)
    if (training is None) == (dataset is None):
        raise ValueError('Give either a training configuration or a dataset.')
    given: dict[str, Any] = dict(bands=bands, root=root, size=size, level=level)
    given |= dict(nodata=nodata, dataset_bands=dataset_bands, image_key=image_key)
    given = {k: v for k, v in given.items() if v is not None} | (data or {})
    if training is not None:
        configs = [training] if isinstance(training, Path) else training
        datamodule, _ = read_datamodule(configs, given)
    else:
        kind: Any = GeoPretrainingDataModule if geo else PretrainingDataModule
        given |= {'dataset': dataset, 'val_fraction': 0}
        datamodule = build({'init_args': given}, 'data', kind)
    if not isinstance(datamodule, ChannelDataModule):
        raise ValueError(
            f'data is {type(datamodule).__name__}. Use torchgeo_channelmae.datamodules.'
        )
    datamodule.batch_size = 1
    if isinstance(datamodule, SourceDataModule):
        datamodule.needs_statistics = False
        datamodule.statistics = None
    if isinstance(datamodule, PretrainingDataModule):
        datamodule.sampler = None  # every sample counts once
    datamodule.prepare_data()
    datamodule.setup('fit')
    read, rows = _reader(datamodule.train_dataset, datamodule.bands)
    order = torch.randperm(len(rows), generator=generator(seed, 'statistics'))
    chosen = rows if samples is None else rows[order[:samples].sort().values.numpy()]
    found, count = _measure(read, datamodule.bands, chosen.tolist(), workers)
    record = datamodule.record
    about = {
        'dataset': record.dataset if record else type(datamodule).__name__,
        'sensors': list(record.sensors) if record else [],
        'samples': count,
        'samples_of': len(rows),
        'seed': seed,
    }
    write_statistics(out, found, about)
    for name, band in found.items():
        print(f'{name}: mean {band.mean:.6g}, std {band.std:.6g}')
    print(f'Statistics of {count} samples are in {out}.')


def _reader(data: Any, bands: Sequence[str]) -> tuple[Callable[[int], Any], Rows]:
    """Return what reads a sample without filling pixels, and its possible arguments."""
    if isinstance(data, BigEarthNetLMDB):
        return partial(_as_stored, data, bands), np.arange(len(data))
    if isinstance(data, NamedBands):
        if isinstance(data.source.dataset, BigEarthNetLMDB):
            return partial(_as_stored, data.source.dataset, bands), data.rows
        data.fill = False
        data.max_nodata = 1.0
    return partial(getitem, data), np.arange(len(data))


def _as_stored(
    dataset: BigEarthNetLMDB, bands: Sequence[str], row: int
) -> dict[str, Any]:
    """Return ``native``: bands of a sensor and size together, NaN without data."""
    try:
        pixels = dataset.read(row)
    except (ValueError, OSError) as error:
        if dataset.on_error != 'skip':
            raise
        return {'skipped': str(error)}
    native = {}
    kinds = {band: (band in dataset.s1_bands, len(pixels[band])) for band in bands}
    for radar, size in set(kinds.values()):
        names = [band for band in bands if kinds[band] == (radar, size)]
        stack = np.stack([pixels[band] for band in names]).astype(np.float64)
        stack[missing_pixels(stack, None if radar else 0)] = np.nan
        native[tuple(names)] = stack
    return {'native': native}


def _measure(
    read: Any, bands: Sequence[str], rows: Any, workers: int
) -> tuple[dict[str, BandStatistics], int]:
    """Return each band's statistics, and how many samples were read."""
    found = {band: BandStatistics() for band in bands}
    loader = DataLoader(rows, batch_size=None, collate_fn=read, num_workers=workers)
    count = 0
    for sample in tqdm(loader, desc='Reading samples', disable=None):
        if 'skipped' in sample:
            warnings.warn(sample['skipped'], stacklevel=2)
            continue
        count += 1
        groups = sample.get('native') or {tuple(bands): sample['image']}
        for names, pixels in groups.items():
            stack = np.asarray(pixels)
            missing = missing_pixels(stack, None)
            for band, values, holes in zip(names, stack, missing, strict=True):
                found[band].update(values, holes)
    return found, count
