"""Which patches of a table a study uses, and which of them train, validate and test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torchgeo.datamodules.utils import group_shuffle_split

from ..randomness import derive_seed
from .metadata import PatchTable
from .names import acquisition

SPLIT_BY = ('official', 'acquisition', 'country')


@dataclass(frozen=True)
class Selection:
    """Filters and splits.

    Attributes:
        countries: Keep patches of these countries; None is all.
        exclude_snow: Leave patches with seasonal snow out.
        exclude_cloud: Leave patches with clouds or their shadows out.
        split_by: 'official', the table's own splits; 'acquisition', every Sentinel-2
            scene in one split only, half of the scenes to train, a quarter each to
            validate and test; 'country', ``test_countries`` test and ``val_countries``
            validate, the others train.
        test_countries: Countries that test.
        val_countries: Countries that validate. None is a quarter of the scenes of the
            countries that do not test.
        train_fraction: Share of the training patches to keep. A smaller share is a
            part of a larger one, and depends on the patches' names and ``split_seed``
            alone, so that all models train on the same.
        split_seed: Seed of the scenes' splits and of the fraction.
    """

    countries: Sequence[str] | None = None
    exclude_snow: bool = False
    exclude_cloud: bool = False
    split_by: str = 'official'
    test_countries: Sequence[str] | None = None
    val_countries: Sequence[str] | None = None
    train_fraction: float = 1.0
    split_seed: int = 0

    def check(self) -> None:
        """Check the options against each other.

        Raises:
            ValueError: If they make no sense.
        """
        if self.split_by not in SPLIT_BY:
            raise ValueError(
                f'Unknown split_by {self.split_by!r}: use one of {", ".join(SPLIT_BY)}.'
            )
        if not 0 < self.train_fraction <= 1:
            raise ValueError(
                f'train_fraction is {self.train_fraction}: give a share above 0, at '
                f'most 1.'
            )
        by_country = self.split_by == 'country'
        if by_country and not self.test_countries:
            raise ValueError("split_by 'country' needs test_countries: name some.")
        if not by_country and (self.test_countries or self.val_countries):
            raise ValueError(
                f'test_countries and val_countries are for split_by country, not '
                f'{self.split_by!r}: leave them out.'
            )
        both = set(self.test_countries or ()) & set(self.val_countries or ())
        if both:
            raise ValueError(
                f'{min(both)} is in test_countries and val_countries: choose one.'
            )

    def apply(self, table: PatchTable) -> PatchTable:
        """Choose rows and give each its split.

        Args:
            table: The patches.

        Returns:
            The chosen rows in the table's order, with the splits asked for.

        Raises:
            ValueError: If an option makes no sense, or the table lacks what it needs.
        """
        self.check()
        table = table.rows(self._kept(table))
        if not len(table):
            raise ValueError('No patch is left by countries, snow and cloud filters.')
        if self.split_by == 'acquisition':
            table = replace(table, split=self._by_scene(table))
        elif self.split_by == 'country':
            table = replace(table, split=self._by_country(table))
        if self.train_fraction < 1:
            table = table.rows(self._fraction(table))
        return table

    def _kept(self, table: PatchTable) -> npt.NDArray[np.bool_]:
        kept = np.ones(len(table), dtype=bool)
        for option, column, values in (
            ('exclude_snow', 'contains_seasonal_snow', table.snow),
            ('exclude_cloud', 'contains_cloud_or_shadow', table.cloud),
        ):
            if getattr(self, option):
                kept &= ~_required(values, option, column)
        if self.countries is not None:
            kept &= self._in_countries(table, 'countries')
        return kept

    def _in_countries(self, table: PatchTable, option: str) -> npt.NDArray[np.bool_]:
        asked = list(getattr(self, option))
        countries = _required(table.countries, option, 'country')
        known = sorted(set(countries.tolist()))
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise ValueError(
                f'No patch is in {unknown[0]!r} ({option}): choose from '
                f'{", ".join(known)}.'
            )
        return np.isin(countries, asked)

    def _by_scene(self, table: PatchTable) -> npt.NDArray[np.str_]:
        scenes = _scenes(table)
        rest, test = self._cut(scenes, 1 / 4, 'acquisition')
        train, val = self._cut(scenes[rest], 1 / 3, 'acquisition')
        split = np.empty(len(table), dtype='U5')
        split[test], split[rest[train]], split[rest[val]] = 'test', 'train', 'val'
        return split

    def _by_country(self, table: PatchTable) -> npt.NDArray[np.str_]:
        split = np.full(len(table), 'train', dtype='U5')
        test = self._in_countries(table, 'test_countries')
        split[test] = 'test'
        if self.val_countries is not None:
            split[self._in_countries(table, 'val_countries')] = 'val'
        elif not test.all():
            rest = np.flatnonzero(~test)
            _, val = self._cut(_scenes(table)[rest], 1 / 4, 'country')
            split[rest[val]] = 'val'
        return split

    def _cut(
        self, scenes: npt.NDArray[np.str_], share: float, why: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Put a share of the scenes aside; returns the others' rows and theirs."""
        if len(set(scenes.tolist())) < 3:
            raise ValueError(
                f'split_by {why!r} has to part {len(set(scenes.tolist()))} scenes, too '
                f'few: use more data or official splits.'
            )
        seed = derive_seed(self.split_seed, 'scenes') % 2**32
        rest, aside = group_shuffle_split(
            scenes, train_size=1 - share, test_size=share, random_state=seed
        )
        return np.asarray(rest), np.asarray(aside)

    def _fraction(self, table: PatchTable) -> npt.NDArray[np.bool_]:
        """Keep the training patches whose names hash lowest, and all others."""
        kept = table.split != 'train'
        rows = np.flatnonzero(~kept)
        keys = [
            derive_seed(self.split_seed, 'fraction', name.decode())
            for name in table.known_names[rows].tolist()
        ]
        lowest = np.argsort(keys, kind='stable')
        kept[rows[lowest[: math.ceil(self.train_fraction * len(rows))]]] = True
        return kept


def _scenes(table: PatchTable) -> npt.NDArray[np.str_]:
    return np.array([acquisition(name.decode()) for name in table.s2_names])


def _required[T](values: T | None, option: str, column: str) -> T:
    if values is None:
        raise ValueError(
            f'{option} needs the column {column} in metadata.parquet, which lacks it: '
            f'use the published table of v2, or leave {option} out.'
        )
    return values
