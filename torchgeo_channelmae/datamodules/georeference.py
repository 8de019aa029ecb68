"""Where samples lie: centers of files, MGRS squares, Sentinel-2 tiles."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import mgrs  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import Proj
from rasterio.warp import transform
from tqdm.contrib.concurrent import thread_map

Coordinates = npt.NDArray[np.float64]
"""(places, 2): longitude and latitude in degrees."""

Names = npt.NDArray[np.str_]
_Mask = npt.NDArray[np.bool_]

_SQUARE = 100_000  # side of an MGRS square in meters
_OVERHANG = 9_800  # by which a Sentinel-2 tile exceeds its square, east and south
_UTM = Proj(proj='utm', zone=31, ellps='WGS84')  # all zones are alike
_MGRS = mgrs.MGRS()
_LETTERS = 'ABCDEFGHJKLMNPQRSTUVWXYZ'  # of columns and rows of squares


def centers(paths: Iterable[str | Path]) -> Coordinates:
    """Read the centers of georeferenced files, (files, 2) in degrees."""
    found = thread_map(_center, list(paths), max_workers=16, desc='Reading places')
    return np.array(found).reshape(-1, 2)


def _center(path: str | Path) -> tuple[float, float]:
    with rasterio.open(path) as file:
        left, bottom, right, top = file.bounds
        x, y = (left + right) / 2, (bottom + top) / 2
        (lon,), (lat,) = transform(file.crs, 'EPSG:4326', [x], [y])
        return lon, lat


def mgrs_squares(places: Coordinates) -> Names:
    """Return the MGRS 100 km square of each place, such as '33UUP'.

    It is '' for NaN and outside of UTM (84° N to 80° S).

    Args:
        places: (places, 2) longitude and latitude in degrees.
    """
    lon, lat, known = _checked(places)
    names = [
        _MGRS.toMGRS(*place, MGRSPrecision=0) if inside else ''
        for *place, inside in zip(lat, lon, known, strict=True)
    ]
    return np.array(names, dtype='U5')


def sentinel2_tiles(places: Coordinates, margin: float = 100.0) -> Names:
    """Return the names of all Sentinel-2 tiles that may cover each place.

    A tile is an MGRS square, extended to 109.8 km east- and southwards in the
    projection of its UTM zone. Up to four tiles of a zone cover a place, and near the
    edge of a zone those of its neighbor do, too. A tile across two bands of latitude
    has one name, but both candidates are returned: none that covers a place is missing.

    Args:
        places: (places, 2) longitude and latitude in degrees.
        margin: Meters, below 45,000, by which tiles count as larger on all sides.

    Returns:
        (places, K) sorted names, after '' where a place has fewer than K.
    """
    lon, lat, known = _checked(places)
    # Beyond 72 degrees, a tile may be wider than a zone.
    steps = (-2, -1, 0, 1, 2) if (np.abs(lat) >= 72).any() else (-1, 0, 1)
    codes = []
    for step in steps:
        zone = ((lon + 180) // 6 + step) % 60 + 1
        x, y = _UTM((lon - 6 * zone + 363) % 360 - 177, lat)
        for east in (x - _OVERHANG - margin, x + margin):
            for north in (y - margin, y + _OVERHANG + margin):
                row, column = north // _SQUARE + 100, east // _SQUARE
                inside = known & (column >= 1) & (column <= 8)
                code = (zone * 10 + column) * 200 + row
                codes.append(np.where(inside, code, 0).astype(np.int64))
    squares, square = np.unique(np.stack(codes, axis=1), return_inverse=True)
    pairs = [('', ''), *map(_square_names, squares.tolist())]
    names, numbers = np.unique(np.array(pairs, dtype='U5'), return_inverse=True)
    found = numbers.reshape(-1, 2).astype(np.int32)[square + 1]
    found = np.sort(found.reshape(len(lon), -1), axis=1)
    found[:, 1:] *= found[:, 1:] != found[:, :-1]  # each name once
    found = np.sort(found, axis=1)
    return names[found[:, found.any(axis=0)]]


@cache
def _square_names(code: int) -> tuple[str, str]:
    """Return the names of a tile, '' if no part of it is in its own zone."""
    zone, column, row = code // 2000, code // 200 % 10, code % 200 - 100
    norths = [-_OVERHANG, 1, _SQUARE // 2, _SQUARE]
    x, y = np.meshgrid([0, _SQUARE // 2, _SQUARE + _OVERHANG], norths)
    lon, lat = _UTM(column * _SQUARE + x, row * _SQUARE + y, inverse=True)
    lon = (lon + 6 * zone - 6) % 360 - 180
    found = mgrs_squares(np.stack([lon.ravel(), lat.ravel()], axis=1)).tolist()
    bands = sorted({name[2] for name in found[3:] if name})  # of the square itself
    if not bands or not any(name.startswith(f'{zone:02}') for name in found):
        return '', ''
    end = _LETTERS[(zone - 1) % 3 * 8 + column - 1]
    end += _LETTERS[(row + 5 * (zone % 2 == 0)) % 20]
    return f'{zone:02}{bands[0]}{end}', f'{zone:02}{bands[-1]}{end}'


def _checked(places: Coordinates) -> tuple[Coordinates, Coordinates, _Mask]:
    """Return longitudes from -180 on, latitudes, and which places UTM covers."""
    lon, lat = places.T
    known = np.isfinite(lon) & (lat >= -80) & (lat < 84)
    return np.where(known, (lon + 180) % 360 - 180, 0), np.where(known, lat, 0), known
