"""Copernicus-Bench's part of BigEarthNet, for training and testing."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, override

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import sensors
from ..datasets.copernicus import CopernicusBenchBigEarthNet
from ..datasets.names import tile
from ..provenance import DataRecord, patch_hashes
from .base import ChannelDataModule
from .evaluation import check_evaluation, check_groups, describe_patches

_AVAILABLE = sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD
_LOOKED_AT = 8  # patches of which the order of the radar's bands is checked


class CopernicusBenchBigEarthNetDataModule(ChannelDataModule):
    """Named bands of the 24,002 patches of BigEarthNet that Copernicus-Bench uses.

    Batches and attributes are those of
    :class:`~torchgeo_channelmae.datamodules.BigEarthNetS1S2DataModule`: set up, it has
    ``bands``, ``mean`` and ``std`` (published with BigEarthNet v2), ``size``,
    ``class_names``, ``num_patches``, ``test_groups``, ``test_group_seeds``,
    ``train_class_frequencies`` and, for a test, ``test_tiles`` and ``test_patches``.

    Arguments are checked in :meth:`setup`.
    """

    side = CopernicusBenchBigEarthNet.side

    def __init__(
        self,
        root: str | None = None,
        bands: list[str] | None = None,
        size: int = 128,
        size_by: str = 'resize',
        batch_size: int = 64,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        augment: bool = True,
        test_groups: int = 5,
        test_group_seeds: Sequence[int] = (0, 1, 2),
        predict_split: str = 'test',
        radar_order: Sequence[str] = ('VV', 'VH'),
        max_nonfinite: float = 0.01,
        on_error: str = 'raise',
        download: bool = False,
        checksum: bool = True,
    ) -> None:
        """Initialise the datamodule.

        Args:
            root: Folder with ``bigearthnet_s1s2``, or with the zip file of it.
            bands: Names of the bands, in the order wanted, of one sensor or both. None
                is the 12 of Sentinel-2.
            size: Height and width of the images in pixels; patches have 120.
            size_by: How a patch gets that size. 'resize' is bilinear (smoothed before
                shrinking); 'pad' adds zeros, each band's mean, on the right and below;
                'crop' cuts out of the middle, in training anywhere if ``augment``.
            batch_size: Patches of a batch, on each device.
            num_workers: Processes that load data.
            samples_per_epoch: Training patches of an epoch over all devices. None is
                each once.
            augment: Whether training patches are flipped, and cropped anywhere.
            test_groups: Random groups into which a test splits its patches.
            test_group_seeds: Seeds of the random groupings.
            predict_split: The split to predict: 'train', 'val' or 'test'.
            radar_order: What the two bands of a Sentinel-1 file are. It is checked: VH
                is darker than VV.
            max_nonfinite: Largest share of a band's pixels without data that is filled
                rather than an error.
            on_error: What a patch that can't be read does: 'raise' ends the run,
                'skip' leaves it out, counts it and lists it.
            download: Download the data where ``root`` lacks them.
            checksum: Check what was downloaded.
        """
        self.bands = tuple(
            CopernicusBenchBigEarthNet.s2_bands if bands is None else bands
        )
        try:
            chosen = sensors.select(self.bands, _AVAILABLE)
        except ValueError:
            chosen = ()  # setup says what is wrong
        self.mean = torch.tensor([band.mean for band in chosen])
        self.std = torch.tensor([band.std for band in chosen])
        super().__init__(
            CopernicusBenchBigEarthNet,
            size,
            size_by,
            batch_size,
            num_workers,
            samples_per_epoch,
            augment,
            root=root,
            bands=self.bands,
            radar_order=tuple(radar_order),
            max_nonfinite=max_nonfinite,
            on_error=on_error,
            download=download,
            checksum=checksum,
        )
        self.root = root
        self.test_groups = test_groups
        self.test_group_seeds = tuple(test_group_seeds)
        self.predict_split = predict_split
        self.class_names = CopernicusBenchBigEarthNet.classes
        self.note = (
            'The patches are those of Copernicus-Bench, 5 % of BigEarthNet v2: scores '
            'compare with others on these patches only.'
        )
        self.test_tiles: npt.NDArray[np.str_] | None = None
        self.test_patches: Tensor | None = None
        self.test_frame: pd.DataFrame | None = None

    @override
    def setup(self, stage: str) -> None:
        """Check the arguments and build the datasets of a stage.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            FileNotFoundError: If a file or folder of the data is missing.
            ValueError: If an argument makes no sense, or the data are not as expected.
        """
        self._check_arguments()
        train = self.make_dataset('train')
        made = {'train': train}
        splits = {
            'fit': ('train', 'val'),
            'validate': ('val',),
            'test': ('test',),
            'predict': (self.predict_split,),
        }
        for split in splits[stage]:
            dataset = made.get(split) or self.make_dataset(split)
            name = 'predict' if stage == 'predict' else split
            setattr(self, f'{name}_dataset', dataset)
            _check_radar(dataset)
        if stage == 'fit':
            self.check_batch_size()
        if stage == 'test':
            self._describe_test(self.test_dataset)
        self.record = self._record(train)
        self.__dict__.pop('train_class_frequencies', None)
        self._labels = train.labels

    def make_dataset(
        self, split: str, native: bool = True
    ) -> CopernicusBenchBigEarthNet:
        """Return the dataset of a split.

        Args:
            split: 'train', 'val' or 'test'.
            native: Whether samples hold pixels as stored.
        """
        return CopernicusBenchBigEarthNet(split=split, native=native, **self.kwargs)

    @cached_property
    def train_class_frequencies(self) -> Tensor:
        """Share of training patches with each class, (19,) float32."""
        return self._labels.float().mean(dim=0)

    @override
    def plot(self, *args: Any, **kwargs: Any) -> Figure | None:
        """Plot a sample in physical units, as the dataset does."""
        return next(iter(self.datasets().values())).plot(*args, **kwargs)

    @override
    def prepare_data(self) -> None:
        """Download the data if asked to, in one process."""
        if self.root is not None:  # else setup says so
            super().prepare_data()

    def _describe_test(self, dataset: CopernicusBenchBigEarthNet) -> None:
        self.test_tiles = np.array(_tiles(dataset))
        self.test_patches = patch_hashes(dataset.table.s2_names)
        self.test_frame = describe_patches(dataset.table)
        check_groups(self, len(dataset))

    def _record(self, train: CopernicusBenchBigEarthNet) -> DataRecord:
        chosen = sensors.select(self.bands, _AVAILABLE)
        return DataRecord(
            dataset='Copernicus-Bench BigEarthNet',
            bands=self.bands,
            sensors=tuple(dict.fromkeys(band.sensor for band in chosen)),
            tiles=tuple(_tiles(train)),
            patches=patch_hashes(train.table.s2_names),
            labels_steered=False,
        )

    def _check_arguments(self) -> None:
        sensors.select(self.bands, _AVAILABLE)
        self.check_arguments()
        if self.root is None:
            raise ValueError(
                'root is not given: give the folder with bigearthnet_s1s2, or with '
                'its zip file, or one to download it into.'
            )
        check_evaluation(self)


def _tiles(dataset: CopernicusBenchBigEarthNet) -> list[str]:
    """Return the MGRS tile of each patch, '' where its name has none."""
    return [tile(name.decode()) or '' for name in dataset.table.s1_names]


def _check_radar(dataset: CopernicusBenchBigEarthNet) -> None:
    """Check that VV is not taken for VH, on some patches.

    Land scatters less into the other polarisation: VH is some 7 dB below VV.
    """
    if not dataset.wanted_s1:
        return
    brighter = []
    for row in np.linspace(0, len(dataset) - 1, min(_LOOKED_AT, len(dataset))):
        try:
            pixels = dataset.radar(int(row))
        except (ValueError, OSError):
            continue  # told when the sample is read
        levels = [
            np.median(pixels[band][np.isfinite(pixels[band])]) for band in ('VV', 'VH')
        ]
        brighter.append(levels[1] > levels[0])
    if sum(brighter) > len(brighter) / 2:
        other = ', '.join(reversed(dataset.radar_order))
        raise ValueError(
            f'In {sum(brighter)} of {len(brighter)} files of split {dataset.split!r}, '
            f'the band taken for VH is brighter than that taken for VV: give '
            f'radar_order [{other}].'
        )
