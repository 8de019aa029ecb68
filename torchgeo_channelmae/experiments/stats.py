"""``channelmae stats``: mean, standard deviation and percentiles of each band."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, override

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ..config import ClassSpec
from ..datamodules.base import ChannelDataModule
from ..datamodules.geo import GeoPretrainingDataModule
from ..datamodules.named_bands import NamedBands
from ..datamodules.pretraining import PretrainingDataModule
from ..datamodules.source_datamodule import SourceDataModule
from ..datamodules.statistics import (
    BandStatistics,
    missing_pixels,
    write_statistics,
)
from ..datasets import BigEarthNetLMDB
from ..files import refuse_existing
from ..randomness import generator
from .configuration import read_datamodule


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
    samples: int | None = None,
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
        data: Other arguments of the training's datamodule to replace, nested ones with
            dots: `{dataset.init_args.split: train}`.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If data are missing.
        ValueError: If an argument is wrong.
    """
    refuse_existing(out)
    if (training is None) == (dataset is None):
        raise ValueError('Give either a training configuration or a dataset.')
    if samples is not None and samples < 1:
        raise ValueError(f'samples is {samples}. Use at least 1.')
    options = {
        'bands': bands,
        'root': root,
        'size': size,
        'dataset_bands': dataset_bands,
        'image_key': image_key,
        'level': level,
        'nodata': nodata,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if training is not None:
        if geo:
            raise ValueError('geo is only for a dataset. Leave it out with training.')
        configs = [training] if isinstance(training, Path) else training
        datamodule, _ = read_datamodule(configs, given | (data or {}))
    else:
        if data is not None:
            raise ValueError('data is only for training. Use init_args of dataset.')
        kind: Any = GeoPretrainingDataModule if geo else PretrainingDataModule
        datamodule = kind(dataset=dataset, batch_size=1, val_fraction=0, **given)
    if not isinstance(datamodule, ChannelDataModule):
        raise ValueError(
            f'data of {training} is {type(datamodule).__name__}. Use a configuration '
            f'with one of torchgeo_channelmae.datamodules.'
        )
    _set_up(datamodule)
    patches = _unfilled(datamodule.train_dataset, datamodule.bands)
    total = len(patches)
    chosen = np.arange(total)
    if samples is not None and samples < total:
        order = torch.randperm(total, generator=generator(seed, 'statistics'))
        chosen = order[:samples].sort().values.numpy()
    found, read = _measure(patches, datamodule.bands, chosen.tolist(), workers)
    record = datamodule.record
    about = {
        'dataset': record.dataset if record else type(datamodule).__name__,
        'sensors': list(record.sensors) if record else [],
        'samples': read,
        'samples_of': total,
        'seed': seed,
    }
    write_statistics(out, found, about)
    for name, band in found.items():
        print(f'{name}: mean {band.mean:.6g}, std {band.std:.6g}')
    print(f'Statistics of {read} samples are in {out}.')


def _set_up(datamodule: ChannelDataModule) -> None:
    datamodule.batch_size = 1
    if isinstance(datamodule, SourceDataModule):
        datamodule.needs_statistics = False
        datamodule.statistics = None
    if isinstance(datamodule, PretrainingDataModule):
        datamodule.sampler = None  # every sample counts once
    datamodule.prepare_data()
    datamodule.setup('fit')


class _AsStored(Dataset[dict[str, Any]]):
    """BigEarthNet's pixels as stored, of which the datasets fill those without data."""

    def __init__(
        self, dataset: BigEarthNetLMDB, bands: Sequence[str], rows: Sequence[int]
    ) -> None:
        self.dataset = dataset
        self.bands = bands
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``native``: bands of a sensor and size together, NaN without data."""
        try:
            pixels = self.dataset.read(self.rows[index])
        except (ValueError, OSError) as error:
            if self.dataset.on_error != 'skip':
                raise
            return {'skipped': str(error)}
        groups: dict[tuple[bool, int], list[str]] = {}
        for band in self.bands:
            group = (band in self.dataset.s1_bands, len(pixels[band]))
            groups.setdefault(group, []).append(band)
        native = {}
        for (radar, _), names in groups.items():
            stack = np.stack([pixels[band] for band in names]).astype(np.float64)
            stack[missing_pixels(stack, None if radar else 0)] = np.nan
            native[tuple(names)] = stack
        return {'native': native}


def _unfilled(data: Any, bands: Sequence[str]) -> Any:
    """Return a training dataset that leaves pixels without data as they are."""
    if isinstance(data, BigEarthNetLMDB):
        return _AsStored(data, bands, range(len(data)))
    if isinstance(data, NamedBands):
        whole = data.source.dataset
        if isinstance(whole, BigEarthNetLMDB):
            return _AsStored(whole, bands, data.rows.tolist())
        data.fill = False
        data.max_nodata = 1.0
    return data


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
