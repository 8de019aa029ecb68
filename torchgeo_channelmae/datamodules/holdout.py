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
    """Choose whole groups for validation; none or all is a ValueError.

    Args:
        groups: The group of each sample.
        fraction: Share of the groups to choose, in (0, 1).
        seed: Seed of the choice.

    Returns:
        (samples,), True for validation.
    """
    ids = np.unique(np.asarray(groups), return_inverse=True)[1].tolist()
    state = derive_seed(seed, 'validation') % 2**32
    _, chosen = group_shuffle_split(ids, test_size=fraction, random_state=state)
    return np.isin(np.arange(len(ids)), chosen)


def blocks(places: Coordinates, side: float) -> Names:
    """Return the block that each place lies in.

    Blocks are cells of a fixed grid over the Earth, at least ``side`` km wide and high,
    in rows of equal height from the South Pole.
    """
    lon, lat = places.T
    rows = np.maximum(np.floor(180 * _KM / side), 1)
    row = np.clip(np.floor((lat + 90) / 180 * rows), 0, rows - 1)
    edges = np.stack([row, row + 1]) * 180 / rows - 90
    narrowest = np.cos(np.radians(np.abs(edges).max(axis=0)))
    columns = np.maximum(np.floor(360 * _KM * narrowest / side), 1)
    column = np.floor((lon + 180) % 360 / 360 * columns)
    pairs = zip(row.astype(int), column.astype(int), strict=True)
    return np.array([f'{row}_{column}' for row, column in pairs])


def near(places: Coordinates, others: Coordinates, km: float) -> npt.NDArray[np.bool_]:
    """Return which places lie within a distance of any other place."""
    tree = BallTree(np.radians(others[:, ::-1]), metric='haversine')
    distance, _ = tree.query(np.radians(places[:, ::-1]))
    found: npt.NDArray[np.bool_] = distance[:, 0] * _RADIUS <= km
    return found


@dataclass(frozen=True)
class Holdout:
    """How samples are split; see the arguments of :class:`.PretrainingDataModule`.

    Attributes:
        val_by: 'auto', 'scene', 'tile', 'block', 'key' or 'random'.
        key: Name of a sequence of the dataset, or of an entry of its samples.
        fraction: Share of the groups held out.
        seed: Seed of the choice.
        block_km: Side of a block.
        gap_km: Distance of training from validation, with tiles and blocks.
    """

    val_by: str = 'auto'
    key: str | None = None
    fraction: float = 0.1
    seed: int = 0
    block_km: float = 100.0
    gap_km: float = 5.0

    def split(self, source: Source, rows: Rows) -> tuple[Rows, Rows, str]:
        """Return rows to train on, rows to validate on, and a sentence about it."""
        by = self._kind(source)
        held = hold_out(self._groups(by, source, rows), self.fraction, self.seed)
        kept = ~held
        note = f'{source.name}: {held.sum()} of {len(rows)} samples validate by {by}'
        by_place = by in ('tile', 'block') and self.gap_km
        places = source.places(rows) if by_place else None
        if places is not None:
            kept &= ~near(places, places[held], self.gap_km)
            left_out = (~held & ~kept).sum()
            note += f', {left_out} within gap_km={self.gap_km} of them are left out'
        return rows[kept], rows[held], f'{note}.'

    def _kind(self, source: Source) -> str:
        """Return ``val_by``, or what auto stands for."""
        if self.val_by != 'auto':
            return self.val_by
        if source.facts.scenes_are_places and 'scenes' in source.columns:
            return 'scene'
        if source.columns.get('tiles') is not None:
            return 'tile'
        return 'block' if 'places' in source.columns else 'auto'

    def _groups(self, by: str, source: Source, rows: Rows) -> npt.NDArray[Any]:
        """Return the group of each sample."""
        if by == 'random':
            return np.arange(len(rows))
        if by == 'key':
            return _values(source, rows, str(self.key))
        if by == 'scene' and (scenes := source.column('scenes', rows)) is not None:
            return scenes
        if by == 'tile' and (tiles := source.column('tiles', rows)) is not None:
            return tiles[:, 0]
        places = source.places(rows) if by in ('tile', 'block') else None
        if places is None:
            raise ValueError(
                f'{source.name} lacks what val_by={self.val_by!r} needs. Use key with '
                f'a val_key, or random if neighbors may be on both sides.'
            )
        return mgrs_squares(places) if by == 'tile' else blocks(places, self.block_km)


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
    """
    path = Path(root)
    table = read_table(path.parent if path.name == 'metadata.parquet' else path)
    names = table.s1_names[table.split == 'test'].tolist()
    found = {tile(name.decode()) for name in names} - {None}
    if not found:
        raise ValueError(
            f'transfer_test {root} names no tile of its test split. Use the '
            f'metadata.parquet of BigEarthNet.'
        )
    return np.array(sorted(map(str, found)))


def exclude_test_tiles(
    rows: Rows, tiles: Names | None, test: Names, overlap: str, name: str
) -> Rows:
    """Return the samples (rows) off the tiles of a transfer's test split.

    Args:
        rows: The samples.
        tiles: (samples, K) tiles that each may be on, padded with ''; None if unknown.
        test: The tiles of the test split.
        overlap: 'raise', 'drop' or 'allow'.
        name: Name of the dataset.
    """
    if tiles is None:
        rank_zero_warn(
            f'Overlap of {name} with transfer_test is unchecked: the tiles are unknown.'
        )
        return rows
    dropped = overlap == 'drop'
    nowhere = (tiles == '').all(axis=1)
    if nowhere.any():
        rank_zero_warn(
            f'The tiles of {nowhere.sum()} of {len(rows)} samples of {name} are '
            f'unknown: {"left out" if dropped else "used unchecked"}.'
        )
    on_test = np.isin(tiles, test)
    shared = on_test.any(axis=1)
    what = f'{shared.sum()} of {len(rows)} samples of {name}'
    report_overlap(what, tiles[on_test], overlap)
    return rows[~(shared | nowhere)] if dropped else rows


def report_overlap(what: str, tiles: Names, overlap: str) -> None:
    """Raise or warn if samples may be on ``tiles`` of a transfer's test split."""
    if not len(tiles):
        return
    found = np.unique(tiles)
    tiles_of = f'{len(found)} tiles of transfer_test, such as {found[0]}'
    message = f'{what} may be on {tiles_of}'
    if overlap == 'raise':
        raise ValueError(f'{message}. Leave them out with overlap drop, or allow them.')
    rank_zero_warn(f'{message}: {"left out" if overlap == "drop" else "used"}.')
