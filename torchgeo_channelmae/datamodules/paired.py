"""What the datamodules of BigEarthNet's patches have in common."""

from collections.abc import Callable, Sequence
from typing import Any, override

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import sensors
from ..datasets.metadata import PatchTable
from ..datasets.names import acquisition, name_spaces, tile
from ..datasets.bigearthnet import BigEarthNetLMDB as BigEarthNetPatches
from ..facts import TestFacts
from ..provenance.record import DataRecord, patch_hashes
from .base import ChannelDataModule

_AVAILABLE = sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD


class PairedDataModule(ChannelDataModule):
    """Named bands of BigEarthNet's Sentinel-1 and Sentinel-2 patches.

    Set up, it has ``bands`` (names), ``mean`` and ``std`` (a tensor each, band by
    band), ``size``, ``class_names``, ``num_patches``, ``test_groups``,
    ``test_group_seeds`` and, in every stage, ``train_class_frequencies``: the share of
    training patches with each class, (19,).

    For a test it has ``test_tiles``, the tile of each test patch; ``test_patches``,
    (patches, K) hashes of all names of each, whose kinds are ``test_name_spaces``;
    ``test_patch_names``; and ``test_frame``, acquisition and country by patch id.

    Arguments are checked in ``setup``, not in the constructor, because an error inside
    a constructor that a configuration file calls is hard to read.
    """

    side = BigEarthNetPatches.side

    def __init__(
        self,
        dataset_class: Any,
        root: str | None,
        bands: Sequence[str] | None,
        test_groups: int,
        test_group_seeds: Sequence[int],
        predict_split: str,
        **kwargs: Any,
    ) -> None:
        """Initialise the datamodule, see the subclasses."""
        if bands is None:
            bands = BigEarthNetPatches.s2_bands
        # A string is no list of names: setup says so.
        self.bands: Any = bands if isinstance(bands, str) else tuple(bands)
        try:
            chosen = sensors.select(self.bands, _AVAILABLE)
        except ValueError:
            chosen = ()  # setup says what is wrong
        self.mean = torch.tensor([band.mean for band in chosen])
        self.std = torch.tensor([band.std for band in chosen])
        super().__init__(dataset_class, bands=self.bands, **kwargs)
        self.root = root
        self.test_groups = test_groups
        self.test_group_seeds = tuple(test_group_seeds)
        self.predict_split = predict_split
        self.class_names = BigEarthNetPatches.classes
        self.note: str | None = None
        self.test_tiles: npt.NDArray[np.str_] | None = None
        self.test_patches: Tensor | None = None
        self.test_name_spaces: tuple[str, ...] = ()
        self.test_patch_names: npt.NDArray[np.bytes_] | None = None
        self.test_frame: pd.DataFrame | None = None

    @property
    def test_facts(self) -> TestFacts:
        """What a test needs beside images and labels, once it is set up."""
        return TestFacts(
            groups=self.test_groups,
            group_seeds=self.test_group_seeds,
            frequencies=getattr(self, 'train_class_frequencies', None),
            tiles=self.test_tiles,
            patches=self.test_patches,
            name_spaces=self.test_name_spaces,
            patch_names=self.test_patch_names,
            frame=self.test_frame,
        )

    @override
    def check_arguments(self) -> None:
        """Check what the constructor was given.

        Raises:
            ValueError: If an argument makes no sense.
        """
        sensors.select(self.bands, _AVAILABLE)
        super().check_arguments()
        if self.test_groups < 1:
            raise ValueError(
                f'test_groups is {self.test_groups}: it must be at least 1.'
            )
        if self.predict_split not in ('train', 'val', 'test'):
            raise ValueError(
                f'Unknown split {self.predict_split!r}: use train, val or test.'
            )
        share = self.kwargs['max_nonfinite']
        if not 0 <= share <= 1:
            raise ValueError(f'max_nonfinite is {share}: give a share from 0 to 1.')
        seeds = self.test_group_seeds
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(
                f'test_group_seeds is {list(seeds)}: give at least one, each once.'
            )

    def set_datasets(
        self, stage: str, make: Callable[[str], BigEarthNetPatches]
    ) -> None:
        """Set the datasets of a stage, and say what a test is on.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.
            make: Returns the dataset of a split.

        Raises:
            ValueError: If there are fewer patches than a batch or the groups need.
        """
        splits = {
            'fit': ('train', 'val'),
            'validate': ('val',),
            'test': ('test',),
            'predict': (self.predict_split,),
        }
        for split in splits[stage]:
            name = 'predict' if stage == 'predict' else split
            setattr(self, f'{name}_dataset', make(split))
        if stage == 'fit':
            self.check_batch_size()
        if stage == 'test':
            self._describe_test(self.test_dataset.table)

    def _describe_test(self, table: PatchTable) -> None:
        if self.test_groups > len(table):
            raise ValueError(
                f'test_groups is {self.test_groups}, more than the {len(table)} test '
                f'patches: give fewer.'
            )
        names = _all_names(table)
        self.test_tiles = np.array(_tiles(table))
        self.test_patches = torch.stack([patch_hashes(one) for one in names], dim=1)
        self.test_name_spaces = name_spaces(*names)
        self.test_patch_names = table.s2_names
        self.test_frame = describe_patches(table)

    def make_record(self, dataset: str, train: PatchTable) -> DataRecord:
        """Return what training reads.

        Args:
            dataset: Name of the dataset.
            train: The training patches.
        """
        chosen = sensors.select(self.bands, _AVAILABLE)
        names = _all_names(train)
        return DataRecord(
            dataset=dataset,
            bands=self.bands,
            sensors=tuple(dict.fromkeys(band.sensor for band in chosen)),
            tiles=tuple(_tiles(train)),
            patches=torch.cat([patch_hashes(one) for one in names]),
            labels_steered=False,
            name_spaces=name_spaces(*names),
        )

    @override
    def plot(self, sample: dict[str, Any], **kwargs: Any) -> Figure | None:
        """Plot a sample in physical units, as its dataset does.

        Args:
            sample: A sample of a dataset, or a row of a batch, see :meth:`physical`.
            **kwargs: Those of the dataset's ``plot``.

        Raises:
            RuntimeError: If nothing is set up yet.
        """
        sample = self.physical(sample)
        return next(iter(self.datasets().values())).plot(sample, **kwargs)


def describe_patches(table: PatchTable) -> pd.DataFrame:
    """Tell where patches are from.

    Args:
        table: The patches.

    Returns:
        ``acquisition`` (the Sentinel-2 scene) and ``country`` ('' where unknown) by
        patch id.
    """
    names = [name.decode() for name in table.s2_names]
    known = table.countries
    countries = [''] * len(names) if known is None else known.tolist()
    return pd.DataFrame(
        {'acquisition': [acquisition(name) for name in names], 'country': countries},
        index=pd.Index(names, name='patch_id'),
    )


def _tiles(table: PatchTable) -> list[str]:
    """Return the MGRS tile of each patch, '' where its name has none."""
    return [tile(name.decode()) or '' for name in table.s1_names.tolist()]


def _all_names(table: PatchTable) -> list[npt.NDArray[np.bytes_]]:
    """Return all names that other tables may know the patches by."""
    return [table.s2_names, *([] if table.v1_names is None else [table.known_names])]
