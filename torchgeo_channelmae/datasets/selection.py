"""Choice of the patches of a study, and of those that train, validate and test."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_warn

from ..randomness import derive_seed
from .metadata import CLASSES, SPLITS, PatchTable
from .names import tile

SPLIT_BY = ('official', 'tile', 'country')
_SHARES = {'train': 1 / 2, 'val': 1 / 4, 'test': 1 / 4}
# Not val_fraction: configurations laid over another keep that of PretrainingDataModule.
_FRACTIONS = {'train': 'train_fraction', 'val': 'val_label_fraction'}


@dataclass(frozen=True)
class Selection:
    """Filters and splits; see the arguments of :class:`.BigEarthNetS1S2DataModule`.

    A split by tile is about 50 / 25 / 25 %. No place (tile, row and column, which many
    dates share) is in two splits. Fractions depend only on names and
    ``fraction_seed``, so that all models train on the same patches.
    """

    countries: Sequence[str] | None = None
    exclude_snow: bool = False
    exclude_cloud: bool = False
    split_by: str = 'official'
    test_countries: Sequence[str] | None = None
    val_countries: Sequence[str] | None = None
    train_fraction: float = 1.0
    val_label_fraction: float = 1.0
    split_seed: int = 0
    fraction_seed: int = 0

    def check(self) -> None:
        """Raise ValueError if the options are wrong or contradict each other."""
        if self.split_by not in SPLIT_BY:
            raise ValueError(
                f'split_by is {self.split_by!r}. Use one of {", ".join(SPLIT_BY)}.'
            )
        for name in _FRACTIONS.values():
            if not 0 < (share := getattr(self, name)) <= 1:
                raise ValueError(
                    f'{name} is {share}. Give a number above 0, at most 1.'
                )
        for name in ('countries', 'test_countries', 'val_countries'):
            given = getattr(self, name)
            if isinstance(given, str) or (given is not None and not given):
                raise ValueError(f'{name} is {given!r}. Give a list of names.')
        given = self.test_countries or self.val_countries
        wrong = given if self.split_by != 'country' else not self.test_countries
        if wrong:
            raise ValueError(
                f'split_by is {self.split_by!r}. Give test_countries with '
                f"split_by 'country', and only then."
            )
        both = set(self.test_countries or ()) & set(self.val_countries or ())
        if both:
            raise ValueError(
                f'{min(both)} is in test_countries and val_countries. Choose one.'
            )

    def apply(self, table: PatchTable) -> PatchTable:
        """Return the chosen rows in the table's order, with their splits."""
        return self.thin(self.part(table))

    def part(self, table: PatchTable) -> PatchTable:
        """Filter and split a table, without the fractions.

        Raises:
            ValueError: If an option is wrong, or a split is left without patches.
        """
        self.check()
        needed = set(table.split.tolist() if self.split_by == 'official' else SPLITS)
        table = table.rows(self._kept(table))
        if not len(table):
            raise ValueError(
                'countries, exclude_snow and exclude_cloud leave no patch. Filter less.'
            )
        if self.split_by == 'tile':
            table = replace(table, split=self._assign(tiles(table), _SHARES))
        elif self.split_by == 'country':
            table = replace(table, split=self._by_country(table))
        if empty := needed.difference(table.split.tolist()):
            raise ValueError(
                f'split_by {self.split_by!r} and the filters leave no patch to '
                f'{" and ".join(sorted(empty))}. Filter less, or choose other '
                f'countries to test and validate.'
            )
        return table

    def thin(self, table: PatchTable) -> PatchTable:
        """Keep the fractions of a split table; warn of classes that they lose."""
        for split, option in _FRACTIONS.items():
            if getattr(self, option) < 1:
                table = self._fraction(table, split, option)
        return table

    def _kept(self, table: PatchTable) -> npt.NDArray[np.bool_]:
        kept = np.ones(len(table), dtype=bool)
        if self.exclude_snow:
            kept &= ~_required(table.snow, 'exclude_snow', 'contains_seasonal_snow')
        if self.exclude_cloud:
            kept &= ~_required(table.cloud, 'exclude_cloud', 'contains_cloud_or_shadow')
        if self.countries is not None:
            kept &= _in_countries(table, self.countries, 'countries')
        return kept

    def _by_country(self, table: PatchTable) -> npt.NDArray[np.str_]:
        split = np.full(len(table), 'train', dtype='U5')
        test = _in_countries(table, self.test_countries or (), 'test_countries')
        split[test] = 'test'
        if self.val_countries is not None:
            split[_in_countries(table, self.val_countries, 'val_countries')] = 'val'
        elif not test.all():
            rest = np.flatnonzero(~test)
            groups = tiles(table.rows(rest))
            split[rest] = self._assign(groups, {'train': 3 / 4, 'val': 1 / 4})
        return split

    def _assign(
        self, groups: npt.NDArray[np.str_], shares: Mapping[str, float]
    ) -> npt.NDArray[np.str_]:
        """Assign whole groups, in an order drawn, to the split that lacks most."""
        sizes = Counter(groups.tolist())
        if len(sizes) < 3:
            raise ValueError(
                f'split_by {self.split_by!r} parts tiles and needs 3 of them, but '
                f'there are {len(sizes)}. Use more data or official splits.'
            )
        filled = dict.fromkeys(shares, 0.0)
        assigned = {}
        seeds = {name: derive_seed(self.split_seed, 'groups', name) for name in sizes}
        for group in sorted(seeds, key=seeds.__getitem__):
            split = min(filled, key=filled.__getitem__)
            filled[split] += sizes[group] / shares[split]
            assigned[group] = split
        return np.array([assigned[group] for group in groups.tolist()], dtype='U5')

    def _fraction(self, table: PatchTable, split: str, option: str) -> PatchTable:
        """Keep the patches of a split with the lowest hashes, and other splits."""
        share = getattr(self, option)
        kept = table.split != split
        rows = np.flatnonzero(~kept)
        names = map(bytes.decode, table.known_names[rows].tolist())
        keys = [derive_seed(self.fraction_seed, 'fraction', name) for name in names]
        count = math.ceil(Decimal(str(share)) * len(rows))  # exact
        chosen = rows[np.argsort(keys, kind='stable')[:count]]
        kept[chosen] = True
        before, after = (table.labels[each].any(dim=0) for each in (rows, chosen))
        if lost := [CLASSES[i] for i in (before & ~after).nonzero()]:
            rank_zero_warn(
                f'{option} {share} leaves no {split} patch with {"; ".join(lost)}. Use '
                f'a larger {option} if scores are to count these classes.'
            )
        return table.rows(kept)


def tiles(table: PatchTable) -> npt.NDArray[np.str_]:
    """Return the MGRS tile of each patch; each must be known."""
    found = [tile(name.decode()) for name in table.s1_names.tolist()]
    if None in found:
        patch = table.s2_names[found.index(None)].decode()
        raise ValueError(
            f"split_by 'tile' and 'country' need the tile of every patch, which "
            f's1_name of {patch} does not have. Use official splits, or give '
            f'val_countries.'
        )
    return np.array(found, dtype=np.str_)


def _in_countries(
    table: PatchTable, asked: Sequence[str], option: str
) -> npt.NDArray[np.bool_]:
    countries = _required(table.countries, option, 'country')
    known = sorted(set(countries.tolist()))
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ValueError(
            f'{option} has {unknown[0]!r}, where no patch is. Choose from '
            f'{", ".join(known)}.'
        )
    return np.isin(countries, list(asked))


def _required[T](values: T | None, option: str, column: str) -> T:
    if values is None:
        raise ValueError(
            f'{option} needs the column {column} of metadata.parquet. Use that of '
            f'BigEarthNet v2, or leave {option} out.'
        )
    return values
