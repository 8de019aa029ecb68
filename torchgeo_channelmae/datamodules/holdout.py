"""Validation samples without neighbors in training, and test tiles kept out of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_warn
from sklearn.neighbors import BallTree
from torchgeo.datamodules.utils import group_shuffle_split
from tqdm import tqdm

from ..datasets.metadata import read_table
from ..datasets.names import tile
from ..randomness import derive_seed
from .georeference import Coordinates, Names, mgrs_squares
from .sources import Rows, Source

VAL_BY = ('auto', 'scene', 'tile', 'block', 'key', 'random')

_RADIUS = 6371.0  # of the Earth in km
_KM = 111.195  # per degree along a meridian


def hold_out(
    groups: Sequence[Any] | npt.NDArray[Any], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Choose whole groups for validation.

    Args:
        groups: The group of each sample.
        fraction: Share of the groups to choose, in (0, 1).
        seed: Seed of the choice.

    Returns:
        (samples,), True for validation.

    Raises:
        ValueError: If that is no group, or all.
    """
    values = np.unique(np.asarray(groups), return_inverse=True)[1]
    _, chosen = group_shuffle_split(
        values.tolist(),
        train_size=1 - fraction,
        test_size=fraction,
        random_state=derive_seed(seed, 'validation') % 2**32,
    )
    held = np.zeros(len(values), dtype=bool)
    held[chosen] = True
    return held


def blocks(places: Coordinates, side: float) -> Names:
    """Return the block that each place lies in.

    Blocks are cells of a fixed grid over the Earth, at least ``side`` wide and high, in
    rows of equal height from the South Pole.

    Args:
        places: (places, 2) longitude and latitude in degrees.
        side: Height of a block, and least width, in km.
    """
    lon, lat = places.T
    rows = np.maximum(np.floor(180 * _KM / side), 1)
    row = np.clip(np.floor((lat + 90) / 180 * rows), 0, rows - 1)
    edges = np.stack([row, row + 1]) * 180 / rows - 90
    narrowest = np.cos(np.radians(np.abs(edges).max(axis=0)))
    columns = np.maximum(np.floor(360 * _KM * narrowest / side), 1)
    column = np.floor((lon + 180) % 360 / 360 * columns)
    names = np.char.add(row.astype(int).astype(str), '_')
    found: Names = np.char.add(names, column.astype(int).astype(str))
    return found


def near(places: Coordinates, others: Coordinates, km: float) -> npt.NDArray[np.bool_]:
    """Return which places lie within a distance of any other place.

    Args:
        places: (places, 2) longitude and latitude in degrees.
        others: (others, 2) the other places.
        km: The distance in km.
    """
    tree = BallTree(np.radians(others[:, ::-1]), metric='haversine')
    distance, _ = tree.query(np.radians(places[:, ::-1]))
    found: npt.NDArray[np.bool_] = distance[:, 0] * _RADIUS <= km
    return found


@dataclass(frozen=True)
class Holdout:
    """How samples are split into training and validation.

    Attributes:
        val_by: What is held out whole: 'scene', 'tile', 'block', 'key', or 'random' for
            single samples. 'auto' is the first of scene (where scenes lie apart), tile
            and block that is known without opening every file.
        key: For 'key': name of a sequence of the dataset, or of an entry of its samples
            (all are then read once).
        fraction: Share of the groups held out.
        seed: Seed of the choice.
        block_km: Side of a block.
        gap_km: With tiles and blocks, training samples within this distance of one that
            is held out are left out, where coordinates are known.
    """

    val_by: str = 'auto'
    key: str | None = None
    fraction: float = 0.1
    seed: int = 0
    block_km: float = 100.0
    gap_km: float = 5.0

    def split(self, source: Source, rows: Rows) -> tuple[Rows, Rows, str]:
        """Split samples into training and validation.

        Returns:
            Rows to train on, rows to validate on, and a sentence about the split.

        Raises:
            ValueError: If what ``val_by`` needs is unknown.
        """
        by, groups = self._groups(source, rows)
        held = hold_out(groups, self.fraction, self.seed)
        kept = ~held
        counts = f'{held.sum()} of {len(rows)} samples validate'
        note = f'{source.name}: {counts} (val_by {by})'
        places = None
        if by in ('tile', 'block') and self.gap_km:
            places = source.places(rows)
        if places is not None:
            kept &= ~near(places, places[held], self.gap_km)
            left_out = (~held & ~kept).sum()
            note += f', {left_out} within gap_km={self.gap_km} of them are left out'
        return rows[kept], rows[held], f'{note}.'

    def _groups(self, source: Source, rows: Rows) -> tuple[str, npt.NDArray[Any]]:
        """Return how groups were found, and the group of each sample."""
        auto = self.val_by == 'auto'
        if self.val_by == 'random':
            return 'random', np.arange(len(rows))
        if self.val_by == 'key':
            return 'key', _values(source, rows, str(self.key))
        if self.val_by == 'scene' or (auto and source.facts.scenes_are_places):
            scenes = source.column('scenes', rows)
            if scenes is not None:
                return 'scene', scenes
        if self.val_by in ('auto', 'tile'):
            tiles = source.column('tiles', rows)
            if tiles is not None:
                return 'tile', tiles[:, 0]
        if self.val_by in ('tile', 'block') or (auto and 'places' in source.columns):
            places = source.places(rows)
            if places is not None and self.val_by == 'tile':
                return 'tile', mgrs_squares(places)
            if places is not None:
                return 'block', blocks(places, self.block_km)
        raise ValueError(
            f'{source.name} lacks what val_by={self.val_by!r} needs. Use key with a '
            f'val_key, or random if neighbors may be on both sides.'
        )


def _values(source: Source, rows: Rows, key: str) -> npt.NDArray[Any]:
    """Return the value that each sample has under a key."""
    column: Any = getattr(source.dataset, key, None)
    if hasattr(column, '__len__') and len(column) == len(source.dataset):
        return np.asarray(column)[rows]
    values = []
    for row in tqdm(rows.tolist(), desc=f'Reading {key} of {source.name}'):
        sample = source.sample(row)
        if key not in sample:
            raise ValueError(
                f'{source.name} has no val_key {key!r}. Use one of {", ".join(sample)}.'
            )
        values.append(str(np.asarray(sample[key]).tolist()))
    return np.array(values)


def transfer_tiles(root: str | Path) -> Names:
    """Return the tiles of the official test split of a BigEarthNet.

    Args:
        root: Its folder, or its ``metadata.parquet``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If its table is damaged.
    """
    path = Path(root)
    folder = path.parent if path.name == 'metadata.parquet' else path
    table = read_table(folder)
    names = table.s1_names[table.split == 'test']
    found = {tile(name.decode()) for name in names} - {None}
    return np.array(sorted(map(str, found)), dtype=np.str_)


def exclude_test_tiles(
    rows: Rows, tiles: Names | None, test: Names, overlap: str, name: str
) -> Rows:
    """Keep samples off the tiles of a transfer's test split.

    Args:
        rows: The samples.
        tiles: (samples, K) tiles that each may be on, padded with ''; None if unknown.
        test: The tiles of the test split.
        overlap: 'raise', 'drop' or 'allow'.
        name: Name of the dataset.

    Returns:
        The samples to use.

    Raises:
        ValueError: If some are on such tiles and may not be.
    """
    if tiles is None or not len(test):
        rank_zero_warn(
            f'Overlap of {name} with transfer_test is unchecked: the tiles are unknown.'
        )
        return rows
    nowhere = (tiles == '').all(axis=1)
    on_test = np.isin(tiles, test)
    dropped = overlap == 'drop'
    if nowhere.any():
        rank_zero_warn(
            f'The tiles of {nowhere.sum()} of {len(rows)} samples of {name} are '
            f'unknown: {"left out" if dropped else "used unchecked"}.'
        )
    shared = on_test.any(axis=1)
    what = f'{shared.sum()} of {len(rows)} samples of {name}'
    report_overlap(what, tiles[on_test], overlap)
    return rows[~(shared | nowhere)] if dropped else rows


def report_overlap(what: str, tiles: Names, overlap: str) -> None:
    """Raise or warn if samples may be on tiles of a transfer's test split.

    Raises:
        ValueError: If there are such tiles and ``overlap`` is 'raise'.
    """
    if not len(tiles):
        return
    found = np.unique(tiles)
    said = f'{what} may be on {len(found)} tiles of transfer_test, such as {found[0]}'
    if overlap == 'raise':
        raise ValueError(f'{said}. Leave them out with overlap drop, or allow them.')
    rank_zero_warn(f'{said}: {"left out" if overlap == "drop" else "used"}.')


def known_tiles(tiles: Names | None) -> tuple[str, ...] | None:
    """Return the different tiles of samples; None if those of any are unknown.

    Args:
        tiles: (samples, K), padded with '', or None.
    """
    if tiles is None or (tiles == '').all(axis=1).any():
        return None
    return tuple(np.unique(tiles[tiles != '']).tolist())
