"""Sentinel-1 and Sentinel-2 patches of BigEarthNet for training and testing."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, override

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ..datasets import BigEarthNetLMDB
from ..datasets.bigearthnet import SAMPLE_ROOT
from ..datasets.metadata import (
    PatchTable,
    check_version,
    find_lmdb,
    read_table,
    table_note,
)
from ..datasets.selection import Selection
from .paired import PairedDataModule

_FORMATS = ('lmdb',)
_ARCHIVES: dict[str, Any] = {'v1': None, 'v2': None}


class BigEarthNetS1S2DataModule(PairedDataModule):
    """Named bands of BigEarthNet's Sentinel-1 and Sentinel-2 patches, v1 or v2.

    What it has when it is set up, see
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
        format: str = 'lmdb',
        version: str | None = None,
        lmdb: str | None = None,
        countries: list[str] | None = None,
        exclude_snow: bool = False,
        exclude_cloud: bool = False,
        split_by: str = 'official',
        test_countries: list[str] | None = None,
        val_countries: list[str] | None = None,
        train_fraction: float = 1.0,
        split_seed: int = 0,
        max_nonfinite: float = 0.01,
        on_error: str = 'raise',
        download: bool = False,
        checksum: bool = True,
    ) -> None:
        """Initialise the datamodule.

        Args:
            root: Folder of the data, see the classes of
                :mod:`~torchgeo_channelmae.datasets`. None is the bundled sample.
            bands: Names of the bands, in the order wanted. None is the 12 of
                Sentinel-2.
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
            format: 'lmdb', converted by ``channelmae encode`` or rico-hdl, or
                'geotiff', the original archives unpacked.
            version: 'v1' or 'v2' of BigEarthNet, to be sure. None takes what is there.
            lmdb: Folder of the LMDB where ``root`` has several.
            countries: Use patches of these countries only.
            exclude_snow: Leave patches with seasonal snow out.
            exclude_cloud: Leave patches with clouds or their shadows out.
            split_by: 'official' splits; 'acquisition', no overpass of Sentinel-2 and no
                scene of Sentinel-1 in two splits; 'tile', each MGRS tile in one;
                'country', ``test_countries`` test and others train.
            test_countries: Countries that test, for ``split_by`` country.
            val_countries: Countries that validate. None is about a quarter of the
                others' patches, by acquisition.
            train_fraction: Share of the training patches to use, chosen by their names:
                a smaller share is a part of a larger one, and the same in every run.
            split_seed: Seed of ``split_by`` acquisition or tile and of
                ``train_fraction``.
            max_nonfinite: Largest share of a band's pixels without data that is filled
                rather than an error.
            on_error: What a patch that can't be read does: 'raise' ends the run,
                'skip' leaves it out, counts it and lists it.
            download: With ``format`` geotiff and a ``version``, download and unpack
                what the bands need and ``root`` lacks, in one process.
            checksum: Check downloads before they are unpacked (slow).
        """
        super().__init__(
            BigEarthNetLMDB,
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
            max_nonfinite=max_nonfinite,
            on_error=on_error,
        )
        self.format = format
        self.version = version
        self.lmdb = lmdb
        self.download = download
        self.checksum = checksum
        self.selection = Selection(
            countries=countries,
            exclude_snow=exclude_snow,
            exclude_cloud=exclude_cloud,
            split_by=split_by,
            test_countries=test_countries,
            val_countries=val_countries,
            train_fraction=train_fraction,
            split_seed=split_seed,
        )

    @override
    def prepare_data(self) -> None:
        """Download and unpack the archives if asked to, in one process."""
        self.check_arguments()
        if self.download:
            assert self.root is not None
            assert self.version is not None
            _ARCHIVES[self.version](
                self.root, download=True, checksum=self.checksum, **self.kwargs
            )

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
        table = self.selection.apply(self._read_table())
        self.set_datasets(
            stage, lambda split: self.make_dataset(split, table, native=True)
        )
        self.table = table
        self.__dict__.pop('train_class_frequencies', None)
        if stage == 'test':  # may read many files, and fail before the test does
            _ = self.train_class_frequencies
        self.note = self._note()
        self.record = self.make_record(
            'BigEarthNet' if self.root else 'BigEarthNet (bundled sample)',
            table.rows(table.split == 'train'),
        )

    def make_dataset(
        self, split: str, table: PatchTable | None = None, native: bool = False
    ) -> BigEarthNetLMDB:
        """Return the dataset of a split.

        Args:
            split: 'train', 'val' or 'test'.
            table: The patches of all splits. None is those of the last setup.
            native: Whether samples hold pixels as stored.
        """
        shared = {
            **self.kwargs,
            'split': split,
            'native': native,
            'table': self.table if table is None else table,
        }
        if self.format == 'lmdb':
            return BigEarthNetLMDB(self.root, lmdb=self.lmdb, **shared)
        assert self.root is not None
        dataset: BigEarthNetLMDB = _ARCHIVES[self._archive](self.root, **shared)
        return dataset

    @cached_property
    def train_class_frequencies(self) -> Tensor | None:
        """Share of training patches with each class, (19,) float32.

        None, with a warning, where the labels are in files that can't be read.
        """
        if self.format == 'geotiff' and self._archive == 'v1':  # labels in JSON files
            try:
                return self.make_dataset('train').class_frequencies()
            except (ValueError, OSError) as error:
                rank_zero_warn(f'No class frequencies to compare with: {error}')
                return None
        train = self.table.rows(self.table.split == 'train')
        return train.labels.float().mean(dim=0)

    @cached_property
    def _archive(self) -> str:
        """The version that the folder of GeoTIFFs is of."""
        assert self.root is not None
        return archive_version(Path(self.root), self.version)

    def _read_table(self) -> PatchTable:
        """Read the patches of all splits and check their version."""
        if self.format == 'geotiff':
            assert self.root is not None
            if self.version not in (None, self._archive):
                raise ValueError(
                    f'BigEarthNet root {self.root} is {self._archive}, but version '
                    f'asks for {self.version}: give the other root or version '
                    f'{self._archive}.'
                )
            return archive_table(Path(self.root), self._archive, labels=False)
        root = Path(self.root or SAMPLE_ROOT)
        find_lmdb(root, self.lmdb)  # says what is wrong with the root
        table = read_table(root)
        if self.version is not None and self.root is not None:
            check_version(table, self.version, root / 'metadata.parquet')
        return table

    def _note(self) -> str | None:
        """What a reader of scores on these data has to know first."""
        if self.root is None:
            return (
                'These are the patches of the bundled sample: the scores show that the '
                'pipeline works and say nothing about the model.'
            )
        table = Path(self.root) / 'metadata.parquet'
        return table_note(Path(self.root)) if table.is_file() else None

    @override
    def check_arguments(self) -> None:
        """Check what the constructor was given.

        Raises:
            ValueError: If an argument makes no sense.
        """
        super().check_arguments()
        self.selection.check()
        for name, choices in (('format', _FORMATS), ('version', (None, *_ARCHIVES))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f'Unknown {name} {getattr(self, name)!r}: use one of '
                    f'{", ".join(filter(None, choices))}.'
                )
        if self.format == 'geotiff' and self.root is None:
            raise ValueError(
                'format geotiff needs root, the folder of the unpacked archives: the '
                'bundled sample is an LMDB.'
            )
        if self.download and (self.format != 'geotiff' or self.version is None):
            raise ValueError(
                'download is for the original archives: give format geotiff, and '
                'version v1 or v2.'
            )
