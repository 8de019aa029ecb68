"""Copernicus-Bench's part of BigEarthNet, for training and testing."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import override

import numpy as np
from torch import Tensor

from ..datasets.copernicus import CopernicusBenchBigEarthNet, read_split
from .paired import PairedDataModule

_LOOKED_AT = 8  # patches of which the order of the radar's bands is checked


class CopernicusBenchBigEarthNetDataModule(PairedDataModule):
    """Named bands of the 24,002 patches of BigEarthNet that Copernicus-Bench uses.

    Normalised as published with BigEarthNet v2. What it has when it is set up, see
    :class:`~torchgeo_channelmae.datamodules.paired.PairedDataModule`.
    """

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
        super().__init__(
            CopernicusBenchBigEarthNet,
            root,
            bands,
            test_groups,
            test_group_seeds,
            predict_split,
            size=size,
            size_by=size_by,
            batch_size=batch_size,
            num_workers=num_workers,
            samples_per_epoch=samples_per_epoch,
            augment=augment,
            radar_order=tuple(radar_order),
            max_nonfinite=max_nonfinite,
            on_error=on_error,
        )
        self.download = download
        self.checksum = checksum
        self.note = (
            'The patches are those of Copernicus-Bench, 5 % of BigEarthNet v2: scores '
            'compare with others on these patches only.'
        )

    @override
    def prepare_data(self) -> None:
        """Unpack the data, or download them if asked to, in one process."""
        if self.root is not None:  # else setup says so
            read_split(Path(self.root), 'train', self.download, self.checksum)

    @override
    def setup(self, stage: str) -> None:
        """Check the arguments and build the datasets of a stage.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            FileNotFoundError: If a file or folder of the data is missing.
            ValueError: If an argument makes no sense, or the data are not as expected.
        """
        self.check_arguments()
        assert self.root is not None
        self.set_datasets(stage, self._checked_dataset)
        _, train = read_split(Path(self.root), 'train')  # needs no image
        self.record = self.make_record('Copernicus-Bench BigEarthNet', train)
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
        assert self.root is not None
        return CopernicusBenchBigEarthNet(
            self.root, split, native=native, **self.kwargs
        )

    def _checked_dataset(self, split: str) -> CopernicusBenchBigEarthNet:
        dataset = self.make_dataset(split)
        _check_radar(dataset)
        return dataset

    @cached_property
    def train_class_frequencies(self) -> Tensor:
        """Share of training patches with each class, (19,) float32."""
        return self._labels.float().mean(dim=0)

    @override
    def check_arguments(self) -> None:
        """Check what the constructor was given.

        Raises:
            ValueError: If an argument makes no sense.
        """
        super().check_arguments()
        if self.root is None:
            raise ValueError(
                'root is not given: give the folder with bigearthnet_s1s2, or with '
                'its zip file, or one to download it into.'
            )


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
