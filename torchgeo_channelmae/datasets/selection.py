"""Which patches of a table a study uses, and which of them train, validate and test."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from ..randomness import derive_seed
from .metadata import PatchTable
from .names import overpass, radar_scene, tile

SPLIT_BY = ('official', 'acquisition', 'tile', 'country')
_SHARES = {'train': 1 / 2, 'val': 1 / 4, 'test': 1 / 4}
_NAMES = ('countries', 'test_countries', 'val_countries')


@dataclass(frozen=True)
class Selection:
    """Filters and splits.

    Attributes:
        countries: Keep patches of these countries; None is all.
        exclude_snow: Leave patches with seasonal snow out.
        exclude_cloud: Leave patches with clouds or their shadows out.
        split_by: 'official', the table's own splits; 'acquisition', no overpass of
            Sentinel-2 and no scene of Sentinel-1 in two splits; 'tile', every MGRS tile
            in one split only; about half of the patches train then, a quarter each
            validates and tests; 'country', ``test_countries`` test and
            ``val_countries`` validate, the others train.
        test_countries: Countries that test.
        val_countries: Countries that validate. None is about a quarter of the others'
            patches, by acquisition.
        train_fraction: Share of the training patches to keep. A smaller share is a
            part of a larger one, and depends on the patches' names and ``split_seed``
            alone, so that all models train on the same.
        split_seed: Seed of the splits by acquisition or tile and of the fraction.
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
        fraction = self.train_fraction
        if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ValueError(
                f'train_fraction is {fraction!r}: give a number above 0, at most 1.'
            )
        for name in _NAMES:
            _check_names(name, getattr(self, name))
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
            chosen = [
                option
                for option in ('countries', 'exclude_snow', 'exclude_cloud')
                if getattr(self, option)
            ]
            raise ValueError(
                f'No patch is left by {", ".join(chosen) or "an empty table"}: use '
                f'more data, or filter less.'
            )
        if self.split_by in ('acquisition', 'tile'):
            groups = (
                acquisitions(table) if self.split_by == 'acquisition' else tiles(table)
            )
            table = replace(table, split=self._part(groups, _SHARES))
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

    def _by_country(self, table: PatchTable) -> npt.NDArray[np.str_]:
        split = np.full(len(table), 'train', dtype='U5')
        test = self._in_countries(table, 'test_countries')
        split[test] = 'test'
        if self.val_countries is not None:
            split[self._in_countries(table, 'val_countries')] = 'val'
        elif not test.all():
            rest = np.flatnonzero(~test)
            groups = acquisitions(table.rows(rest))
            split[rest] = self._part(groups, {'train': 3 / 4, 'val': 1 / 4})
        return split

    def _part(
        self, groups: npt.NDArray[np.str_], shares: Mapping[str, float]
    ) -> npt.NDArray[np.str_]:
        """Give whole groups to splits, about their shares of the patches.

        In an order that the seed draws, each group goes to the split that lacks the
        largest part of its share.
        """
        sizes = Counter(groups.tolist())
        if len(sizes) < 3:
            raise ValueError(
                f'split_by {self.split_by!r} has to part {len(sizes)} groups of '
                f'patches, too few: use more data or official splits.'
            )
        filled = dict.fromkeys(shares, 0.0)
        given = {}
        for group in sorted(sizes, key=self._draw):
            split = min(filled, key=lambda name: filled[name])
            filled[split] += sizes[group] / shares[split]
            given[group] = split
        return np.array([given[group] for group in groups.tolist()], dtype='U5')

    def _draw(self, group: str) -> int:
        return derive_seed(self.split_seed, 'groups', group)

    def _fraction(self, table: PatchTable) -> npt.NDArray[np.bool_]:
        """Keep the training patches whose names hash lowest, and all others."""
        kept = table.split != 'train'
        rows = np.flatnonzero(~kept)
        keys = [
            derive_seed(self.split_seed, 'fraction', name.decode())
            for name in table.known_names[rows].tolist()
        ]
        lowest = np.argsort(keys, kind='stable')
        count = math.ceil(Decimal(str(self.train_fraction)) * len(rows))  # exactly
        kept[rows[lowest[:count]]] = True
        return kept


def acquisitions(table: PatchTable) -> npt.NDArray[np.str_]:
    """Return which patches share acquisitions: one name for all that are connected.

    Patches of one overpass of Sentinel-2 (satellite and day), or of one Sentinel-1
    scene, belong together, and so do those that a chain of such patches connects. On
    all of v2 that makes 76 groups, the largest of them 8.3 % of the patches. Names in
    both versions tell it alike.

    Args:
        table: The patches. Those without the name of a Sentinel-1 patch go by
            Sentinel-2 alone.

    Returns:
        (patches,) a name of each patch's group.
    """
    passes = [overpass(name.decode()) for name in table.s2_names.tolist()]
    scenes = [radar_scene(name.decode()) for name in table.s1_names.tolist()]
    links = {(one, scene) for one, scene in zip(passes, scenes, strict=True) if scene}
    parent: dict[str, str] = {name: name for pair in links for name in pair}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for pair in sorted(links):
        one, other = map(root, pair)
        parent[max(one, other)] = min(one, other)
    group = {name: root(name) for name in set(passes)}
    return np.array([group[name] for name in passes])


def tiles(table: PatchTable) -> npt.NDArray[np.str_]:
    """Return the MGRS tile of each patch.

    Args:
        table: The patches.

    Raises:
        ValueError: If the tile of a patch is not known.
    """
    found = [tile(name.decode()) for name in table.s1_names.tolist()]
    if None in found:
        patch = table.s2_names[found.index(None)].decode()
        raise ValueError(
            f"split_by 'tile' needs the tile of every patch, but the name of the "
            f'Sentinel-1 patch (s1_name) of {patch} has none: get the table again, or '
            f'use another split_by.'
        )
    return np.array(found, dtype=np.str_)


def _check_names(option: str, given: Sequence[str] | None) -> None:
    if isinstance(given, str):
        raise ValueError(f'{option} is {given!r}: give a list, such as [{given}].')
    if given is not None and not given:
        raise ValueError(f'{option} is empty: name some, or leave it out.')


def _required[T](values: T | None, option: str, column: str) -> T:
    if values is None:
        raise ValueError(
            f'{option} needs the column {column} in metadata.parquet, which lacks it: '
            f'use the published table of v2, or leave {option} out.'
        )
    return values
