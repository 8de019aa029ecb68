"""Sentinel-1 and Sentinel-2 patches of BigEarthNet for training and testing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import sensors
from ..config import deferred_errors, raise_deferred
from ..datasets import BigEarthNetLMDB, metadata
from ..datasets.bigearthnet import SAMPLE_ROOT
from ..datasets.metadata import PatchTable
from ..datasets.names import acquisition, name_spaces, tile
from ..datasets.selection import Selection
from ..facts import TestFacts
from ..provenance.record import DataRecord, patch_hashes
from .base import ChannelDataModule

_AVAILABLE = sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD
_SAMPLE_NOTE = (
    'These are the patches of the bundled sample: the scores show that the pipeline '
    'works and say nothing about the model.'
)


class BigEarthNetS1S2DataModule(ChannelDataModule):
    """Named bands of BigEarthNet's Sentinel-1 and Sentinel-2 patches, v1 or v2.

    Once set up, it has ``facts`` and ``test_facts``; ``table``, all patches; and
    ``train_class_frequencies``, (19,), the share of training patches with each class.
    """

    side = BigEarthNetLMDB.side

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
        clip_pixels: float | None = None,
        test_groups: int = 5,
        test_group_seeds: Sequence[int] = (0, 1, 2),
        predict_split: str = 'test',
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
        fraction_seed: int = 0,
        val_label_fraction: float = 1.0,
        full_epochs: bool = False,
        max_nonfinite: float = 0.01,
        on_error: str = 'raise',
    ) -> None:
        """Initialize the datamodule.

        Args:
            root: Folder of the data, as ``channelmae encode`` or rico-hdl wrote it.
                None is the bundled sample.
            bands: Names of the bands, in order. None is the 12 of Sentinel-2.
            size: Height and width of the images in pixels; patches have 120.
            size_by: How a patch gets that size. 'resize' is bilinear (antialiased when
                shrinking); 'pad' adds zeros, each band's mean, on the right and below;
                'crop' cuts the center, or anywhere in training with ``augment``.
            batch_size: Patches per batch and device.
            num_workers: Number of data loading processes.
            samples_per_epoch: Training patches per epoch on all devices; None is all.
            augment: Whether training patches are flipped, and cropped anywhere.
            clip_pixels: Standard deviations from a band's mean that pixels are clipped
                to, such as 5 where clouds outweigh the ground; None for no limit.
            test_groups: Number of random groups that a test splits its patches into.
            test_group_seeds: Seeds of the random groups.
            predict_split: The split to predict: 'train', 'val' or 'test'.
            version: Require 'v1' or 'v2' of BigEarthNet. None takes either.
            lmdb: Folder of the LMDB, if ``root`` has several.
            countries: Use only patches of these countries.
            exclude_snow: Leave out patches with seasonal snow.
            exclude_cloud: Leave out patches with clouds or cloud shadows.
            split_by: 'official' splits; 'tile', no MGRS tile in two splits; 'country',
                where ``test_countries`` test and others train.
            test_countries: Countries that test, for ``split_by`` country.
            val_countries: Countries that validate. None is about a quarter of the
                other countries' patches, by tile.
            train_fraction: Share of the training patches to use. A smaller share is a
                subset of a larger one, and the same in every run.
            split_seed: Seed of ``split_by`` (tile, country).
            fraction_seed: Seed of ``train_fraction`` and ``val_label_fraction``.
            val_label_fraction: Share of the validation patches to use, likewise. Their
                labels choose thresholds, checkpoints and learning rates.
            full_epochs: Whether an epoch has as many patches as without
                ``train_fraction``, by repetition: the same number of steps. Not
                together with ``samples_per_epoch``.
            max_nonfinite: Largest share of NaN or infinite pixels of a band that is
                filled with the band's mean; more is an error.
            on_error: What happens to a patch that cannot be read: 'raise' ends the run,
                'skip' leaves it out and lists it in ``skipped.csv``.
        """
        super().__init__(
            BigEarthNetLMDB,
            size=size,
            size_by=size_by,
            batch_size=batch_size,
            num_workers=num_workers,
            samples_per_epoch=samples_per_epoch,
            augment=augment,
            clip_pixels=clip_pixels,
            lmdb=lmdb,
            max_nonfinite=max_nonfinite,
            on_error=on_error,
        )
        self.root = root
        self.lmdb = lmdb
        self.version = version
        self.test_groups = test_groups
        self.test_group_seeds = tuple(test_group_seeds)
        self.predict_split = predict_split
        self.full_epochs = full_epochs
        self.class_names = BigEarthNetLMDB.classes
        self.selection = Selection(
            countries=countries,
            exclude_snow=exclude_snow,
            exclude_cloud=exclude_cloud,
            split_by=split_by,
            test_countries=test_countries,
            val_countries=val_countries,
            train_fraction=train_fraction,
            val_label_fraction=val_label_fraction,
            split_seed=split_seed,
            fraction_seed=fraction_seed,
        )
        with deferred_errors(self):
            wanted = BigEarthNetLMDB.s2_bands if bands is None else bands
            chosen = sensors.select(wanted, _AVAILABLE)
            self.bands = self.kwargs['bands'] = sensors.names(chosen)
            self.mean = torch.tensor([band.mean for band in chosen])
            self.std = torch.tensor([band.std for band in chosen])
            self.check_arguments()

    @override
    def check_arguments(self) -> None:
        """Check the arguments of the constructor."""
        super().check_arguments()
        self.selection.check()
        if self.full_epochs and self.samples_per_epoch is not None:
            raise ValueError(
                'full_epochs and samples_per_epoch contradict. Leave one of them out.'
            )
        if self.test_groups < 1:
            raise ValueError(f'test_groups is {self.test_groups}. Use at least 1.')
        seeds = self.test_group_seeds
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(
                f'test_group_seeds is {list(seeds)}. Use one or more different seeds.'
            )
        for name, choices in (
            ('predict_split', ('train', 'val', 'test')),
            ('version', (None, 'v1', 'v2')),
            ('on_error', ('raise', 'skip')),
        ):
            value = (self.kwargs | vars(self))[name]
            if value not in choices:
                raise ValueError(
                    f'Unknown {name} {value!r}. Use one of '
                    f'{", ".join(filter(None, choices))}.'
                )
        share = self.kwargs['max_nonfinite']
        if not 0 <= share <= 1:
            raise ValueError(f'max_nonfinite is {share}. Use a share from 0 to 1.')

    @override
    def setup(self, stage: str) -> None:
        """Read the table and build the datasets of a stage.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            FileNotFoundError: If a file or folder of the data is missing.
            ValueError: If an argument is wrong, or does not fit the data.
        """
        raise_deferred(self)
        whole = self.selection.part(self._read_table())
        self.table = self.selection.thin(whole)
        if self.full_epochs:
            self.samples_per_epoch = int((whole.split == 'train').sum())
        splits = {'fit': ('train', 'val'), 'validate': ('val',), 'test': ('test',)}
        for split in splits.get(stage, (self.predict_split,)):
            name = 'predict' if stage == 'predict' else split
            setattr(self, f'{name}_dataset', self.make_dataset(split, native=True))
        train = self._split('train')
        self.train_class_frequencies: Tensor = train.labels.float().mean(dim=0)
        self.note = metadata.table_note(self.root) if self.root else _SAMPLE_NOTE
        self.record = self._record(train)
        tested = self._split('test') if stage == 'test' else None
        self.test_facts = self._test_facts(tested)
        if stage == 'fit':
            self.check_batch_size()
        if stage == 'test' and self.test_groups > len(self.test_dataset):
            raise ValueError(
                f'test_groups is {self.test_groups}, but there are only '
                f'{len(self.test_dataset)} test patches. Use fewer groups.'
            )

    def make_dataset(self, split: str, native: bool = False) -> BigEarthNetLMDB:
        """Return the dataset of a split, after ``setup``.

        Args:
            split: 'train', 'val' or 'test'.
            native: Whether samples hold pixels as stored, each band on its own grid.
        """
        made: dict[str, Any] = {'native': native, 'table': self.table, **self.kwargs}
        return BigEarthNetLMDB(self.root, split, **made)

    def _read_table(self) -> PatchTable:
        root = Path(self.root or SAMPLE_ROOT)
        metadata.find_lmdb(root, self.lmdb)  # says what is wrong with the root
        table = metadata.read_table(root)
        if self.version is not None and self.root is not None:
            metadata.check_version(table, self.version, root / 'metadata.parquet')
        return table

    def _split(self, split: str) -> PatchTable:
        return self.table.rows(self.table.split == split)

    def _record(self, train: PatchTable) -> DataRecord:
        """Return what training reads."""
        names = _all_names(train)
        kinds = [band.sensor for band in sensors.select(self.bands, _AVAILABLE)]
        return DataRecord(
            dataset='BigEarthNet' if self.root else 'BigEarthNet (bundled sample)',
            bands=self.bands,
            sensors=tuple(dict.fromkeys(kinds)),
            tiles=tuple(_tiles(train)),
            patches=torch.cat([patch_hashes(each) for each in names]),
            labels_steered=False,
            name_spaces=name_spaces(*names),
        )

    def _test_facts(self, test: PatchTable | None) -> TestFacts:
        """Return what a test needs beside images and labels."""
        facts = TestFacts(
            groups=self.test_groups,
            group_seeds=self.test_group_seeds,
            frequencies=self.train_class_frequencies,
        )
        if test is None:
            return facts
        names = _all_names(test)
        return replace(
            facts,
            tiles=np.array(_tiles(test)),
            patches=torch.stack([patch_hashes(each) for each in names], dim=1),
            name_spaces=name_spaces(*names),
            patch_names=test.s2_names,
            frame=describe_patches(test),
        )

    @override
    def plot(self, sample: dict[str, Any], **kwargs: Any) -> Figure | None:
        """Plot a sample of a dataset, or a row of a batch, in physical units."""
        sample = self.physical(sample)
        return next(iter(self.datasets().values())).plot(sample, **kwargs)


def describe_patches(table: PatchTable) -> pd.DataFrame:
    """Return ``tile``, ``acquisition`` and ``country`` ('' if unknown) by patch id."""
    names = [name.decode() for name in table.s2_names]
    countries = [''] * len(names) if table.countries is None else table.countries
    columns = {
        'tile': _tiles(table),
        'acquisition': [*map(acquisition, names)],
        'country': list(countries),
    }
    return pd.DataFrame(columns, pd.Index(names, name='patch_id'))


def _tiles(table: PatchTable) -> list[str]:
    """Return the MGRS tile of each patch, '' where its name has none."""
    return [tile(name.decode()) or '' for name in table.s1_names.tolist()]


def _all_names(table: PatchTable) -> list[npt.NDArray[np.bytes_]]:
    """Return all names that other tables may know the patches by."""
    return [table.s2_names, *([] if table.v1_names is None else [table.known_names])]
