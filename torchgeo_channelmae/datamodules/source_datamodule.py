"""Base of the datamodules that pretrain on any dataset of TorchGeo."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, override

import torch
from matplotlib.figure import Figure
from torchgeo.datasets import GeoDataset

from .. import plotting, samplers, sensors
from ..config import ClassSpec, build, find_class, raise_deferred
from ..provenance.record import DataRecord
from ..samplers.epoch import EpochSampler
from .base import ChannelDataModule
from .named_bands import EpochNumbers, NamedBands
from .sources import LEVELS, Source
from .statistics import read_statistics


class SourceDataModule(ChannelDataModule):
    """Named bands of any dataset of TorchGeo.

    Attributes:
        needs_statistics: Whether mean and standard deviation of bands must be known.
        root_argument: Argument of the datasets that gets ``root``.
        sampler: Specification of a sampler. None is :class:`.EpochSampler`.
    """

    needs_statistics: bool = True
    root_argument: str = 'root'
    sampler: ClassSpec | None = None

    def __init__(
        self,
        dataset: ClassSpec | None = None,
        bands: list[str] | None = None,
        root: str | None = None,
        size: int = 128,
        size_by: str = 'resize',
        batch_size: int = 64,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        augment: bool = True,
        clip_pixels: float | None = None,
        dataset_bands: list[str] | None = None,
        image_key: str = 'image',
        level: str | None = None,
        statistics: str | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        transfer_test: str | None = None,
        overlap: str = 'raise',
        nodata: float | None = None,
        max_nodata: float = 0.5,
    ) -> None:
        """Initialize the datamodule.

        Args:
            dataset: ``{class_path: NAME, init_args: {...}}`` of the dataset. NAME is
                that of a TorchGeo dataset, or has its module. Arguments that make a
                known dataset read only the wanted bands are added, unless given.
            bands: Names of the bands, in order. None is all, of a GeoDataset of
                Sentinel-2 all but B10.
            root: Folder of data (``paths`` of a GeoDataset) if not in ``init_args``.
            size: Height and width of images in pixels (of a GeoDataset, its pixels).
            size_by: How an image gets that size: 'resize' (bilinear), 'pad' (zeros on
                the right and below) or 'crop' (anywhere in training with ``augment``).
            batch_size: Samples per batch and device.
            num_workers: Number of data loading processes.
            samples_per_epoch: Training samples per epoch over all devices. None is
                each once; of a GeoDataset, as many as fit without overlap.
            augment: Whether training images are flipped, and cropped anywhere.
            clip_pixels: Standard deviations from a band's mean that pixels are clipped
                to, such as 5 where clouds outweigh the ground; None for no limit.
            dataset_bands: Names of the channels, in order, of an unknown dataset.
            image_key: Key of the image in the samples of an unknown dataset.
            level: Product level of the Sentinel-2 bands, L1C or L2A, where the dataset
                has both (MMEarth, default L2A) or is unknown. A GeoDataset of
                Sentinel-2 has it in its file names.
            statistics: YAML file of `channelmae stats` with each band's mean and
                deviation. None is those of :mod:`torchgeo_channelmae.sensors`.
            val_fraction: Share of the groups or blocks that validate; 0 for none.
            split_seed: Seed of the choice of groups or blocks.
            transfer_test: Folder of a BigEarthNet on whose test split a transfer will
                be tested, to check that pretraining uses none of its tiles. Samples
                with coordinates count as on all tiles that may cover them.
            overlap: What to do with samples on such tiles: raise, drop or allow.
            nodata: Pixel value that means no data where all bands of a sensor have it.
                None is that of the known dataset (0 for Sentinel-2).
            max_nodata: Largest share of a band's pixels without data, to fill with the
                mean of its others. More is an error, or a new place in a GeoDataset.
        """
        loading = (batch_size, num_workers, samples_per_epoch)
        super().__init__(None, size, size_by, *loading, augment, clip_pixels)
        self.specification = dataset
        self.wanted = bands
        self.bands = tuple(bands or ())
        self.root = root
        self.level = level
        self.statistics = statistics
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.transfer_test = transfer_test
        self.overlap = overlap
        self.max_nodata = max_nodata
        self.reading: dict[str, Any] = {'level': level, 'nodata': nodata}
        self.reading |= {'key': image_key, 'bands': dataset_bands}
        self._sampler: Any = None

    def check_choices(self, **choices: Sequence[str]) -> None:
        """Raise ValueError if an argument of the constructor is wrong.

        Args:
            **choices: Values that further arguments may have.
        """
        self.check_arguments()
        choices |= {'level': tuple(LEVELS), 'overlap': ('raise', 'drop', 'allow')}
        for name, allowed in choices.items():
            value = vars(self)[name]
            if value not in allowed and (name, value) != ('level', None):
                raise ValueError(
                    f'Unknown {name} {value!r}. Use one of {", ".join(allowed)}.'
                )
        for name in ('val_fraction', 'max_nodata'):
            if not 0 <= vars(self)[name] < 1:
                raise ValueError(f'{name} is {vars(self)[name]}. Use 0 to below 1.')

    @cached_property
    def source(self) -> Any:
        """The dataset with its facts, built on first use."""
        return self.make_source()

    @override
    def prepare_data(self) -> None:
        """Download the data in one process, if the dataset is asked to."""
        raise_deferred(self)
        spec: Any = self.specification or {}
        if (spec.get('init_args') or {}).get('download'):
            self.source  # noqa: B018

    @override
    def setup(self, stage: str) -> None:
        """Build the datasets of a stage.

        Args:
            stage: 'fit', 'validate' or 'predict'.

        Raises:
            FileNotFoundError: If a file or folder of the data is missing.
            ValueError: If an argument is wrong, or does not fit the data.
        """
        raise_deferred(self)
        self._choose_bands()
        train, val = self.split()
        if stage in ('fit', 'validate'):
            self.val_dataset = val
        if stage == 'fit':
            self.train_dataset = train
            self._sampler = self._build_sampler()
            self.check_batch_size(getattr(self._sampler, 'samples_per_epoch', None))
        plain = self.sampler is None or type(self._sampler) is EpochSampler
        steered = False if plain else getattr(self._sampler, 'uses_labels', None)
        self.record = DataRecord(
            dataset=train.source.name,
            bands=self.bands,
            sensors=train.sensors,
            labels_steered=steered,
            **self.what_is_read(train),
        )

    def make_source(self) -> Source:
        """Build a dataset and look up its facts."""
        raise NotImplementedError

    def split(self) -> tuple[NamedBands, NamedBands | None]:
        """Return the samples to train on and those to validate on."""
        raise NotImplementedError

    def what_is_read(self, train: NamedBands) -> dict[str, Any]:
        """Return ``tiles``, ``patches`` and ``name_spaces`` of the record."""
        raise NotImplementedError

    def _build_sampler(self) -> Any:
        if self.sampler is None:
            return None
        kind = find_class(self.sampler, 'sampler', (samplers,))
        given = {'samples_per_epoch': self.samples_per_epoch, **self.shared()}
        return build(self.sampler, 'sampler', kind, dataset=self.train_dataset, **given)

    def build_dataset(self, arguments: Callable[[type], dict[str, Any]]) -> Any:
        """Build the dataset; ``arguments`` returns those that its class gets."""
        kind = find_class(self.specification, 'dataset')
        geo = issubclass(kind, GeoDataset)
        if geo != (self.root_argument == 'paths'):
            right = f'{"Geo" if geo else ""}PretrainingDataModule'
            raise ValueError(f'dataset is {kind.__name__}. Use {right} for it.')
        given = arguments(kind)
        if self.root is not None:
            given[self.root_argument] = self.root
        return build(self.specification, 'dataset', **given)

    def _choose_bands(self) -> None:
        """Set ``bands``, ``mean`` and ``std``."""
        available = self.source.bands
        chosen = sensors.select(self.wanted or sensors.names(available), available)
        self.bands = sensors.names(chosen)
        values = {band.name: (band.mean, band.std) for band in chosen}
        if self.statistics is not None:
            values = read_statistics(self.statistics, self.bands)
        for name, pair in values.items():
            if self.needs_statistics and not all(map(math.isfinite, pair)):
                raise ValueError(
                    f'Mean and standard deviation of band {name} are unknown. Compute '
                    f'them with `channelmae stats`, and give that file as statistics.'
                )
        self.mean, self.std = torch.tensor([values[band] for band in self.bands]).T

    @override
    def val_dataloader(self) -> Any:
        """Return the loader for validation; none without a validation set."""
        return [] if self.val_dataset is None else super().val_dataloader()

    @override
    def make_sampler(self, dataset: Any, **shared: Any) -> Any:
        """Return the sampler of an epoch, with other numbers in each epoch."""
        sampler = self._sampler or super().make_sampler(dataset, **shared)
        return EpochNumbers(sampler, len(dataset))

    @override
    def visits(self, dataset: Any) -> Any:
        """Return the dataset itself, which takes numbers of draws."""
        return dataset

    @override
    def plot(self, sample: dict[str, Any], **kwargs: Any) -> Figure:
        """Plot a sample of a dataset, or a row of a batch, in physical units."""
        sample = self.physical(sample)
        kwargs.setdefault('title', kwargs.pop('suptitle', sample.get('patch_id')))
        return plotting.plot_patch(sample['image'], self.bands, **kwargs)
