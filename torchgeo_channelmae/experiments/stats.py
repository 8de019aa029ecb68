"""``channelmae stats``: mean, standard deviation and percentiles of each band."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from .. import datamodules
from ..datamodules.base import ChannelDataModule
from ..datamodules.building import ClassSpec, check_arguments, find_class, guarded
from ..datamodules.common import SourceDataModule
from ..datamodules.geo import GeoPretrainingDataModule
from ..datamodules.pretraining import PretrainingDataModule
from ..datamodules.visits import NamedBands
from ..randomness import generator
from ..statistics import BandStatistics, missing_pixels, write_statistics


def stats(
    out: Path,
    training: Path | None = None,
    dataset: ClassSpec | None = None,
    geo: bool = False,
    bands: list[str] | None = None,
    root: str | None = None,
    size: int = 128,
    dataset_bands: list[str] | None = None,
    image_key: str = 'image',
    level: str | None = None,
    nodata: float | None = None,
    samples: int | None = None,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Compute statistics of each band and write them as YAML.

    Pixels without data (NaN, infinite, or `nodata` in all bands of a sensor) are left
    out. Mean and standard deviation are exact to float64; a percentile is at most 0.1 %
    of its value off. A datamodule reads the file with `statistics: PATH`.

    Args:
        out: The file to write; it must not exist.
        training: Configuration of a training: the statistics are those of the samples
            that its `data` trains on. Instead of `dataset`.
        dataset: `{class_path: NAME, init_args: {...}}` of any TorchGeo dataset, all of
            whose samples count.
        geo: Whether it is a GeoDataset, sampled at random places.
        bands: Names of the bands; all by default.
        root: Folder of the data, if it is not in `init_args`.
        size: Height and width of the places of a GeoDataset in pixels.
        dataset_bands: Names of the channels of a dataset that is not known, in order.
        image_key: Key of the image in the samples of a dataset that is not known.
        level: Product level of the Sentinel-2 bands, L1C or L2A, where the dataset has
            both or is not known.
        nodata: Pixel value that stands for no data; that of the known dataset by
            default.
        samples: Number of samples, drawn at random without replacement; all by default.
        seed: Seed of the draw.
        workers: Processes that read.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If data are missing.
        ValueError: If an argument makes no sense.
    """
    if out.exists():
        raise FileExistsError(f'{out} exists: give another out, or move it away.')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'There is no folder {out.parent} for out.')
    if (training is None) == (dataset is None):
        raise ValueError('Give either a training configuration or a dataset.')
    if samples is not None and samples < 1:
        raise ValueError(f'samples is {samples}: it must be at least 1.')
    if training is not None:
        datamodule = _of_training(training)
    else:
        datamodule = _of_dataset(
            geo,
            dataset=dataset,
            bands=bands,
            root=root,
            size=size,
            dataset_bands=dataset_bands,
            image_key=image_key,
            level=level,
            nodata=nodata,
        )
    data = datamodule.train_dataset
    if isinstance(data, NamedBands):
        data.fill = False
        data.max_nodata = 1.0
    total = len(data)
    chosen = np.arange(total)
    if samples is not None and samples < total:
        order = torch.randperm(total, generator=generator(seed, 'statistics'))
        chosen = order[:samples].sort().values.numpy()
    found, read = _measure(data, datamodule.bands, chosen.tolist(), workers)
    record = datamodule.record
    write_statistics(
        out,
        found,
        {
            'dataset': record.dataset if record else type(data).__name__,
            'sensors': list(record.sensors) if record else [],
            'samples': read,
            'samples_of': total,
            'seed': seed,
        },
    )
    for name, band in found.items():
        print(f'{name}: mean {band.moments.mean:.6g}, std {band.moments.std:.6g}')
    print(f'Statistics of {read} samples are in {out}.')


def _of_dataset(geo: bool, **arguments: Any) -> SourceDataModule:
    """Return a datamodule that trains on all of a dataset, set up."""
    kind = GeoPretrainingDataModule if geo else PretrainingDataModule
    return _set_up(kind(batch_size=1, val_fraction=0, **arguments))


def _of_training(path: Path) -> ChannelDataModule:
    """Return the datamodule of a configuration, set up."""
    if not path.is_file():
        raise FileNotFoundError(f'There is no training configuration {path}.')
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'{path} is not YAML: {reason}') from None
    spec = content.get('data') if isinstance(content, dict) else None
    kind = find_class(spec, f'data of {path}', (datamodules,))
    assert isinstance(spec, dict)  # find_class has looked
    if not issubclass(kind, ChannelDataModule):
        raise ValueError(
            f'data of {path} is {kind.__name__}: give a configuration with one of '
            f'torchgeo_channelmae.datamodules.'
        )
    given = {**(spec.get('init_args') or {})}
    given.pop('statistics', None)
    check_arguments(kind, given, f'data of {path}')
    datamodule = guarded(lambda: kind(**given), f'data of {path}', {})
    datamodule.batch_size = 1
    return _set_up(datamodule)


def _set_up[T: ChannelDataModule](datamodule: T) -> T:
    if isinstance(datamodule, SourceDataModule):
        datamodule.needs_statistics = False
    datamodule.prepare_data()
    datamodule.setup('fit')
    return datamodule


def _measure(
    data: Any, bands: Sequence[str], chosen: list[int], workers: int
) -> tuple[dict[str, BandStatistics], int]:
    """Go through samples; returns each band's statistics and how many were read."""
    found = {band: BandStatistics() for band in bands}
    loader = DataLoader(Subset(data, chosen), batch_size=None, num_workers=workers)
    read = 0
    for sample in tqdm(loader, desc='Reading samples', disable=None):
        if 'skipped' in sample:
            warnings.warn(sample['skipped'], stacklevel=2)
            continue
        read += 1
        groups = sample.get('native') or {tuple(bands): sample['image']}
        for names, pixels in groups.items():
            stack = np.asarray(pixels)
            missing = missing_pixels(stack, None)
            for band, values, holes in zip(names, stack, missing, strict=True):
                found[band].update(values, holes)
    return found, read
