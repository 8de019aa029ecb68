"""What pretraining on samples and on places has in common."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure

from .. import plotting, sensors
from ..config import ClassSpec
from ..samplers.epoch import EpochSampler
from .base import ChannelDataModule
from .known import LEVELS, Names, Rows, Source
from .statistics import read_statistics
from .visits import EpochNumbers

_OVERLAP = ('raise', 'drop', 'allow')


class SourceDataModule(ChannelDataModule):
    """What pretraining on samples and on places has in common.

    Arguments are checked in ``setup``, and datasets are built there, because an error
    inside a constructor that a configuration file calls is hard to read.

    Attributes:
        needs_statistics: Whether mean and standard deviation of each band have to be
            known; not while they are computed.
    """

    needs_statistics: bool = True

    def __init__(
        self,
        dataset: ClassSpec | None,
        root: str | None,
        bands: Sequence[str] | None,
        level: str | None,
        statistics: str | None,
        val_fraction: float,
        split_seed: int,
        transfer_test: str | None,
        overlap: str,
        nodata: float | None,
        max_nodata: float,
        **kwargs: Any,
    ) -> None:
        """Initialise the datamodule, see the subclasses."""
        super().__init__(None, **kwargs)
        self.specification = dataset
        self.root = root
        self.wanted = None if bands is None else tuple(bands)
        self.bands = self.wanted or ()
        self.level = level
        self.statistics = statistics
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.transfer_test = transfer_test
        self.overlap = overlap
        self.nodata = nodata
        self.max_nodata = max_nodata
        self.note: str | None = None
        self._source: Source | None = None

    @property
    def source(self) -> Source:
        """The dataset with what is known of it, after ``setup``."""
        if self._source is None:
            raise RuntimeError('The datamodule has to be set up first.')
        return self._source

    @override
    def prepare_data(self) -> None:
        """Download the data if the dataset is asked to, in one process."""
        spec = self.specification
        self.check_source_arguments()
        if spec is not None and (spec.get('init_args') or {}).get('download'):
            self._source = self.make_source(self.specification, 'dataset')

    def make_source(self, spec: Any, role: str) -> Source:
        """Build a dataset and find out what is known of it."""
        raise NotImplementedError

    def check_source_arguments(self) -> None:
        """Check what the constructor was given.

        Raises:
            ValueError: If an argument makes no sense.
        """
        self.check_arguments()
        if self.level is not None and self.level not in LEVELS:
            raise ValueError(
                f'level is {self.level!r}: use one of {", ".join(LEVELS)}, or none.'
            )
        if self.overlap not in _OVERLAP:
            raise ValueError(
                f'overlap is {self.overlap!r}: use one of {", ".join(_OVERLAP)}.'
            )
        if not 0 <= self.val_fraction < 1:
            raise ValueError(
                f'val_fraction is {self.val_fraction}: give a share from 0 (no '
                f'validation) to below 1.'
            )
        if not 0 <= self.max_nodata < 1:
            raise ValueError(
                f'max_nodata is {self.max_nodata}: give a share from 0 to below 1.'
            )

    def choose_bands(self, source: Source) -> None:
        """Set ``bands``, ``mean`` and ``std``.

        Raises:
            FileNotFoundError: If there is no such statistics file.
            ValueError: If the dataset lacks a band, or its statistics are not known.
        """
        wanted = self.wanted or sensors.names(source.bands)
        try:
            chosen = sensors.select(wanted, source.bands)
        except ValueError as error:
            raise ValueError(f'bands of {source.name}: {error}') from None
        if self.statistics is not None:
            values = read_statistics(self.statistics, wanted)
        else:
            values = {band.name: (band.mean, band.std) for band in chosen}
        for name, pair in values.items():
            if self.needs_statistics and not all(map(math.isfinite, pair)):
                raise ValueError(
                    f'Mean and standard deviation of band {name} are not known: write '
                    f'them with `channelmae stats`, and name that file in statistics.'
                )
        self.bands = sensors.names(chosen)
        self.mean = torch.tensor([values[band][0] for band in self.bands])
        self.std = torch.tensor([values[band][1] for band in self.bands])
        self.sensor_names = tuple(sorted({band.sensor for band in chosen}))

    def with_root(self, spec: Any, argument: str) -> Any:
        """Return a specification whose folder is ``root``, if that is given."""
        if self.root is None or not isinstance(spec, Mapping):
            return spec
        given = spec.get('init_args') or {}
        if given.get(argument) is not None:  # a folder of its own
            return spec
        return {**spec, 'init_args': {**given, argument: self.root}}

    @override
    def val_dataloader(self) -> Any:
        """Return the loader for validation; none without a validation set."""
        return [] if self.val_dataset is None else super().val_dataloader()

    @override
    def make_sampler(self, dataset: Any, **shared: Any) -> Any:
        """Return the sampler of an epoch, whose numbers are new in each epoch."""
        return EpochNumbers(self.visit_sampler(dataset, **shared), len(dataset))

    def visit_sampler(self, dataset: Any, **shared: Any) -> Any:
        """Return the sampler that decides what an epoch visits."""
        return EpochSampler(dataset, self.samples_per_epoch, **shared)

    @override
    def visits(self, dataset: Any) -> Any:
        """Return the dataset itself, which takes the numbers of visits."""
        return dataset

    @override
    def plot(self, sample: dict[str, Any], **kwargs: Any) -> Figure:
        """Plot a sample in physical units.

        Args:
            sample: A sample of a dataset, or a row of a batch, see :meth:`physical`.
            **kwargs: See :func:`~torchgeo_channelmae.plotting.plot_patch`.

        Raises:
            RuntimeError: If nothing is set up yet.
        """
        sample = self.physical(sample)
        kwargs.setdefault('title', kwargs.pop('suptitle', sample.get('patch_id')))
        return plotting.plot_patch(sample['image'], self.bands, **kwargs)


def keep_apart(
    rows: Rows, tiles: Names | None, test: Names, overlap: str, name: str
) -> Rows:
    """Keep samples off the tiles of a transfer's test split.

    Args:
        rows: The samples.
        tiles: (samples, K) the tiles that each may be on, filled up with '', or None.
        test: The tiles of the test split.
        overlap: 'raise', 'drop' or 'allow'.
        name: Name of the dataset.

    Returns:
        The samples to use.

    Raises:
        ValueError: If some are on such tiles and may not be.
    """
    if tiles is None or not len(test):
        whose = name if tiles is None else 'The test split of transfer_test'
        rank_zero_warn(
            f'{whose} does not name its tiles: whether pretraining is on those of the '
            f'transfer test can not be checked.'
        )
        return rows
    unknown = _unknown(tiles)
    if unknown.any():
        rank_zero_warn(
            f'The tiles of {int(unknown.sum())} of {len(rows)} samples of {name} are '
            f'not known: '
            + (
                'they are left out.'
                if overlap == 'drop'
                else 'whether they are those of the transfer test can not be checked.'
            )
        )
    on_test = np.isin(tiles, test) & (tiles != '')
    shared = on_test.any(axis=1)
    if shared.any():
        common = np.unique(tiles[on_test])
        said = (
            f'{int(shared.sum())} of {len(rows)} samples of {name} may be on '
            f'{len(common)} tiles of the transfer test, such as {common[0]}'
        )
        if overlap == 'raise':
            raise ValueError(
                f'{said}: leave them out with overlap drop, or use them with overlap '
                f'allow.'
            )
        done = 'left out' if overlap == 'drop' else 'used'
        rank_zero_warn(f'{said}: they are {done}.')
    if overlap != 'drop':
        return rows
    kept = rows[~(shared | unknown)]
    if not len(kept):
        raise ValueError(
            f'All {len(rows)} samples of {name} are on tiles of the transfer test or '
            f'on unknown ones: nothing is left to pretrain on.'
        )
    return kept


def known_tiles(tiles: Names | None) -> tuple[str, ...] | None:
    """Return the tiles, sorted and once each; None if those of a sample are unknown.

    Args:
        tiles: (samples, K), filled up with '', or None.
    """
    if tiles is None or _unknown(tiles).any():
        return None
    return tuple(np.unique(tiles[tiles != '']).tolist())


def _unknown(tiles: Names) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (tiles == '').all(axis=1)
    return found
