"""Validation samples that are no neighbours of training samples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from torchgeo.datamodules.utils import group_shuffle_split
from tqdm import tqdm

from ..datasets.metadata import read_table
from ..datasets.names import tile
from ..randomness import derive_seed
from .known import Coordinates, Names, Rows, Source
from .mgrs_tiles import mgrs_tile, product_tiles

VAL_BY = ('auto', 'scene', 'tile', 'block', 'key', 'random')

_KM = 111.195  # a degree along a meridian of a sphere of 6,371 km


def hold_out(
    groups: Sequence[Any] | npt.NDArray[Any],
    fraction: float,
    seed: int,
    advice: str = 'val_fraction or val_by, or give val_dataset',
) -> npt.NDArray[np.bool_]:
    """Choose whole groups for validation.

    Args:
        groups: The group of each sample.
        fraction: Share of the groups to choose, in (0, 1).
        seed: Seed of the choice.
        advice: What else to choose if there are too few groups.

    Returns:
        (samples,), True for validation.

    Raises:
        ValueError: If there are too few groups.
    """
    values = np.unique(np.asarray(groups), return_inverse=True)[1].tolist()
    try:
        _, chosen = group_shuffle_split(
            values,
            train_size=1 - fraction,
            test_size=fraction,
            random_state=derive_seed(seed, 'validation') % 2**32,
        )
    except ValueError:
        raise ValueError(
            f'val_fraction {fraction} of {len(set(values))} groups holds out none or '
            f'all: choose another {advice}.'
        ) from None
    held = np.zeros(len(values), dtype=bool)
    held[chosen] = True
    return held


def blocks(coordinates: Coordinates, side: float) -> Names:
    """Return the block that each place lies in.

    Blocks are cells of a fixed grid over the Earth, of at least ``side`` along both
    axes, in rows of equal height from the South Pole.

    Args:
        coordinates: (places, 2), longitude and latitude in degrees.
        side: Height of a block, and least width, in km.

    Returns:
        The name of a block for each place.
    """
    lon, lat = coordinates.T
    rows = np.maximum(np.floor(180 * _KM / side), 1)
    row = np.clip(np.floor((lat + 90) / 180 * rows), 0, rows - 1)
    edges = np.stack([row, row + 1]) * 180 / rows - 90
    narrowest = np.cos(np.radians(np.abs(edges).max(axis=0)))
    columns = np.maximum(np.floor(360 * _KM * narrowest / side), 1)
    column = np.floor((lon + 180) % 360 / 360 * columns)
    names = np.char.add(row.astype(int).astype(str), '_')
    found: Names = np.char.add(names, column.astype(int).astype(str))
    return found


def near(
    coordinates: Coordinates,
    groups_at: Callable[[Coordinates], Names],
    held: Names,
    gap: float,
) -> npt.NDArray[np.bool_]:
    """Tell which places lie closer than a distance to the area of some groups.

    A grid of nine points around a place can't miss a group that is at least as wide and
    high as the distance.

    Args:
        coordinates: (places, 2), longitude and latitude in degrees.
        groups_at: Returns the groups of places.
        held: The groups to keep away from.
        gap: The distance in km.

    Returns:
        (places,), True where a place is in or near one of the groups.
    """
    close = np.zeros(len(coordinates), dtype=bool)
    north = gap / _KM
    widest = np.minimum(np.abs(coordinates[:, 1]) + north, 89.9)
    east = north / np.cos(np.radians(widest))
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            moved = coordinates + np.stack(
                [x * east, np.full_like(east, y * north)], axis=1
            )
            moved[:, 0] = (moved[:, 0] + 180) % 360 - 180
            moved[:, 1] = np.clip(moved[:, 1], -90, 90)
            close |= np.isin(groups_at(moved), held)
    return close


def close(places: Coordinates, held: Coordinates, gap: float) -> npt.NDArray[np.bool_]:
    """Tell which places lie closer than a distance to one of some others.

    Args:
        places: (places, 2), longitude and latitude in degrees, NaN where unknown.
        held: (others, 2), the others.
        gap: The distance in km.

    Returns:
        (places,), True where one of the others is that close.
    """
    near = np.zeros(len(places), dtype=bool)
    known = np.isfinite(places).all(axis=1)
    others = held[np.isfinite(held).all(axis=1)]
    if not len(others):
        return near
    chord = 2 * np.sin(np.radians(min(gap / _KM, 180)) / 2)
    distance, _ = cKDTree(_on_sphere(others)).query(_on_sphere(places[known]))
    near[known] = distance <= chord
    return near


def _on_sphere(places: Coordinates) -> Coordinates:
    lon, lat = np.radians(places.T)
    return np.stack(
        [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
    ).T


def tiles_of(source: Source, rows: Rows, read: bool) -> Names | None:
    """Return the Sentinel-2 tiles that may cover each sample.

    Those in the names of its images, and all that cover its coordinates.

    Args:
        source: The dataset.
        rows: The samples.
        read: Whether to open files for their coordinates.

    Returns:
        (rows, K) tiles, filled up with ''; None if none is known.
    """
    named = source.tiles(rows)
    places = source.places(rows) if read or source.places_read else None
    if places is None:
        return named
    covering: Names = product_tiles(*places.T)
    return covering if named is None else np.concatenate([named, covering], axis=1)


def tile_at(coordinates: Coordinates) -> Names:
    """Return the MGRS square that each place lies in.

    Args:
        coordinates: (places, 2), longitude and latitude in degrees.
    """
    return np.asarray(mgrs_tile(*coordinates.T), dtype=np.str_)


def split_rows(
    source: Source,
    rows: Rows,
    val_by: str,
    fraction: float,
    seed: int,
    block_km: float,
    gap_km: float,
    key: str | None,
) -> tuple[Rows, Rows, str]:
    """Split samples into training and validation.

    Args:
        source: The dataset.
        rows: The samples.
        val_by: What is held out whole: 'scene', 'tile', 'block', 'key' or, for single
            samples, 'random'. 'auto' is the first of scene (where scenes lie apart),
            tile and block that is known without opening every file.
        fraction: Share of the groups held out.
        seed: Seed of the choice.
        block_km: Side of a block.
        gap_km: Training samples closer than this to the area of a block or square that
            is held out, or to a sample of a tile that is, are left out, where
            coordinates are known.
        key: For 'key': name of a sequence that the dataset has, or of an entry of its
            samples (all are then read once).

    Returns:
        Rows to train on, rows to validate on, and a sentence that says how.

    Raises:
        ValueError: If what ``val_by`` needs is not known.
    """
    by, groups, groups_at = _groups(source, rows, val_by, block_km, key)
    held = hold_out(groups, fraction, seed)
    kept = ~held
    note = (
        f'{source.name}: {int(held.sum())} of {len(rows)} samples validate, in '
        f'{len(np.unique(groups[held]))} of {len(np.unique(groups))} groups (val_by '
        f'{by})'
    )
    places = source.places(rows) if by in ('tile', 'block') and gap_km else None
    if places is not None:
        if groups_at is None:  # tiles by name, which overlap
            left_out = close(places, places[held], gap_km) & kept
        else:
            left_out = near(places, groups_at, np.unique(groups[held]), gap_km) & kept
        kept &= ~left_out
        note += f', {int(left_out.sum())} within {gap_km} km of them are left out'
        if not kept.any():
            raise ValueError(
                f'No sample of {source.name} is {gap_km} km away from those that '
                f'validate: give a smaller gap_km, block_km or val_fraction.'
            )
    return rows[kept], rows[held], f'{note}.'


def _groups(
    source: Source, rows: Rows, val_by: str, block_km: float, key: str | None
) -> tuple[str, npt.NDArray[Any], Callable[[Coordinates], Names] | None]:
    """Return how groups were found, those of the rows, and those of places."""
    if val_by == 'random':
        return val_by, np.arange(len(rows)), None
    if val_by == 'key':
        if key is None:
            raise ValueError('val_by key needs val_key: name an entry of the samples.')
        return val_by, _values(source, rows, key), None
    if val_by == 'scene' or (val_by == 'auto' and source.scenes_are_places):
        scenes = source.scenes(rows)
        if scenes is not None:
            return 'scene', scenes, None
    if val_by in ('auto', 'tile'):
        tiles = source.tiles(rows)
        if tiles is not None:
            return 'tile', tiles[:, 0], None
    if val_by in ('tile', 'block') or (val_by == 'auto' and source.places_at_hand):
        places = source.places(rows)
        if places is not None and val_by == 'tile':
            return 'tile', tile_at(places), tile_at
        if places is not None:

            def block_at(where: Coordinates) -> Names:
                return blocks(where, block_km)

            return 'block', block_at(places), block_at
    missing = {
        'scene': 'scenes',
        'tile': 'tiles and coordinates',
        'block': 'coordinates',
        'auto': 'scenes that lie apart, tiles and coordinates at hand',
    }[val_by]
    raise ValueError(
        f'{source.name} has no {missing}, so that val_by {val_by!r} can keep no '
        f'neighbours apart: give val_by key with a val_key, val_dataset, or val_by '
        f'random if neighbours may be on both sides.'
    )


def _values(source: Source, rows: Rows, key: str) -> npt.NDArray[Any]:
    """Return the value that each sample has under a key."""
    column = getattr(source.dataset, key, None)
    if column is not None and not callable(column):
        if not hasattr(column, '__len__') or len(column) != len(source.dataset):
            raise ValueError(
                f'val_key {key!r} of {source.name} is no sequence with a value for '
                f'each sample: name another.'
            )
        return np.asarray(column)[rows]
    values = []
    for row in tqdm(rows.tolist(), desc=f'Reading {key} of {source.name}'):
        sample = source.sample(row)
        if key not in sample:
            raise ValueError(
                f'Samples of {source.name} have no val_key {key!r}: choose one of '
                f'{", ".join(sample)}.'
            )
        value = sample[key]
        values.append(str(value.tolist() if hasattr(value, 'tolist') else value))
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
