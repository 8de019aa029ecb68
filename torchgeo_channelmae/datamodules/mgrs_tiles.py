"""MGRS 100 km squares, and Sentinel-2's tiles, which are named after them."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
from pyproj import Proj

Degrees = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_LETTERS = np.array(list('ABCDEFGHJKLMNPQRSTUVWXYZ'))  # no I, no O
_SIDE = 100_000  # of a square in metres
_BEYOND = 9_800  # by which a tile is larger, on the right and below


def mgrs_tile(lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Return the MGRS 100 km square of each place.

    Squares as in NGA.STND.0037, with the wide zones of Norway and Svalbard. Sentinel-2
    names its tiles after them, but these reach over their neighbours: see
    :func:`product_tiles`.

    Args:
        lon: (places,) longitudes in degrees.
        lat: (places,) latitudes in degrees.

    Returns:
        (places,) names such as '33UUP'; '' beyond 84 degrees north and 80 south, where
        no UTM is, and for NaN.

    Raises:
        ValueError: If a latitude is beyond 90 degrees.
    """
    lon, lat, inside = _checked(lon, lat)
    names = np.zeros(lat.shape, dtype='U5')
    lon, lat = lon[inside], lat[inside]
    zone = _zone(lon, lat)
    east, north = _project(zone, lon, lat)
    names[inside] = _named(zone, _cell(east), _cell(north), _band(lat))
    return names


def product_tiles(
    lon: npt.ArrayLike, lat: npt.ArrayLike, margin: float = 100.0
) -> npt.NDArray[np.str_]:
    """Return the names of all Sentinel-2 tiles that may cover each place.

    A tile is the square that it is named after, extended to 109.8 km on the right and
    downwards, in the projection of one UTM zone. So up to four tiles of a zone cover a
    place, and near the edge of a zone those of the next zone do as well, where they
    reach into their own. A tile across two bands of latitude has one name, and both
    possible ones are returned: no tile that covers a place is missing, and some names
    are of no tile.

    Args:
        lon: (places,) longitudes in degrees.
        lat: (places,) latitudes in degrees.
        margin: Distance in metres by which tiles count as larger on all sides.

    Returns:
        (places, K) names such as '33UUP', each row sorted and filled up with ''; K is
        the most that a place has, at least 1.

    Raises:
        ValueError: If a latitude is beyond 90 degrees.
    """
    lon, lat, inside = _checked(lon, lat)
    where = np.flatnonzero(inside)
    plain = _plain_zone(lon[where])
    far = np.abs(lat[where]) >= 72  # where a tile is wider than a zone
    places, codes = [], []
    for step in (-2, -1, 0, 1, 2):
        near = where[far] if abs(step) == 2 else where
        zone = (plain[far] if abs(step) == 2 else plain) + step
        for at, code in _squares_over(near, (zone - 1) % 60 + 1, lon, lat, margin):
            places.append(at)
            codes.append(code)
    squares, square = np.unique(np.concatenate(codes), return_inverse=True)
    names, owner = _tile_names(squares, margin)
    return _rows(len(lon), np.concatenate(places), square, names, owner)


def _squares_over(
    at: Integers, zone: Integers, lon: Degrees, lat: Degrees, margin: float
) -> Iterator[tuple[Integers, Integers]]:
    """Yield places and codes of squares whose tiles, in a zone, are over them."""
    east, north = _project(zone, lon[at], lat[at])
    left, right = _cell(east - _BEYOND - margin), _cell(east + margin)
    low, high = _cell(north - margin), _cell(north + _BEYOND + margin)
    for i in range(int((right - left).max(initial=0)) + 1):
        for j in range(int((high - low).max(initial=0)) + 1):
            column, row = left + i, low + j
            there = (column <= right) & (row <= high) & (column >= 1) & (column <= 8)
            yield at[there], _code(zone, column, row)[there]


def _code(zone: Integers, column: Integers, row: Integers) -> Integers:
    return (zone * 16 + column) * 256 + row + 100


def _tile_names(
    codes: Integers, margin: float
) -> tuple[npt.NDArray[np.str_], Integers]:
    """Return the names of tiles, sorted, and the position of the square of each.

    Squares without any part of their tile in their own zone are left out.
    """
    zone, column, row = codes // 4096, codes // 256 % 16, codes % 256 - 100
    steps = np.linspace(0, 1, 5)
    x = column[:, None] * _SIDE + steps * _SIDE
    y = row[:, None] * _SIDE + steps * _SIDE
    lats = _turned(x, y)[1]
    lowest, highest = lats.min(axis=1) - 1e-3, lats.max(axis=1) + 1e-3
    wide_x = x + (steps * (_BEYOND + 2 * margin) - margin)
    wide_y = y - ((1 - steps) * (_BEYOND + margin) - steps * margin)
    degrees = _turned(wide_x, wide_y)[0]
    # The wide zones of Norway and Svalbard, and those between them, reach to 6 degrees.
    wide = (zone == 32) & (highest > 56) & (lowest < 64)
    wide |= (zone >= 31) & (zone <= 37) & (highest > 72)
    half = np.where(wide, 6, 3) + 0.02
    there = (degrees.min(axis=1) <= half) & (degrees.max(axis=1) >= -half)
    owner = np.flatnonzero(there)
    bands = [_band(bound[owner]) for bound in (lowest, highest)]
    two = bands[0] != bands[1]
    owner = np.concatenate([owner, owner[two]])
    band = np.concatenate([bands[0], bands[1][two]])
    names = _named(zone[owner], column[owner], row[owner], band)
    order = np.argsort(names)
    return names[order], owner[order]


def _rows(
    count: int,
    place: Integers,
    square: Integers,
    names: npt.NDArray[np.str_],
    owner: Integers,
) -> npt.NDArray[np.str_]:
    """Return the names of each place's squares as (places, K)."""
    first, second = (np.full(len(names) and owner.max() + 1, -1) for _ in range(2))
    second[owner] = np.arange(len(names))
    first[owner[::-1]] = np.arange(len(names))[::-1]
    second[first == second] = -1
    known = square < len(first)
    place, square = place[known], square[known]
    place = np.concatenate([place, place])
    name = np.concatenate([first[square], second[square]])
    place, name = place[name >= 0], name[name >= 0]
    order = np.argsort(place * (len(names) + 1) + name)
    place, name = place[order], name[order]
    nth = np.arange(len(place)) - np.searchsorted(place, place)
    found = np.zeros((count, int(nth.max(initial=0)) + 1), dtype='U5')
    found[place, nth] = names[name]
    return found


def _checked(
    lon: npt.ArrayLike, lat: npt.ArrayLike
) -> tuple[Degrees, Degrees, npt.NDArray[np.bool_]]:
    """Return longitudes from -180 on, latitudes, and which places UTM reaches."""
    lon, lat = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    if (np.abs(lat) > 90).any():
        raise ValueError(
            f'Latitude {lat[np.abs(lat) > 90][0]} is beyond 90 degrees: give '
            f'longitudes first, then latitudes, in degrees.'
        )
    inside = np.isfinite(lon) & (lat >= -80) & (lat < 84)
    return (lon + 180) % 360 - 180, lat, inside


def _plain_zone(lon: Degrees) -> Integers:
    return (np.floor(lon / 6).astype(np.int64) + 30) % 60 + 1


def _zone(lon: Degrees, lat: Degrees) -> Integers:
    """Return the zones, with the wide ones of Norway and Svalbard."""
    zone = _plain_zone(lon)
    zone[(lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 12)] = 32
    svalbard = (lat >= 72) & (lon >= 0) & (lon < 42)
    zone[svalbard] = 31 + 2 * np.digitize(lon[svalbard], (9, 21, 33))
    return zone


def _band(lat: Degrees) -> Integers:
    return np.clip((lat + 80) // 8, 0, 19).astype(np.int64)


def _cell(metres: Degrees) -> Integers:
    return np.floor(metres / _SIDE).astype(np.int64)


def _named(
    zone: Integers, column: Integers, row: Integers, band: Integers
) -> npt.NDArray[np.str_]:
    name = np.char.mod('%02d', zone)
    for letters in (
        _LETTERS[band + 2],
        _LETTERS[column - 1 + (zone - 1) % 3 * 8],
        _LETTERS[(row + 5 * (1 - zone % 2)) % 20],
    ):
        name = np.char.add(name, letters)
    return name


def _project(zone: Integers, lon: Degrees, lat: Degrees) -> tuple[Degrees, Degrees]:
    """Return easting and northing in a zone, negative south of the equator."""
    # UTM is the same in every zone, counted from the zone's middle.
    turned = (lon - (6 * zone - 183) + 180) % 360 - 180
    east, north = _utm()(turned + 3, lat)
    return east, north


def _turned(x: Degrees, y: Degrees) -> tuple[Degrees, Degrees]:
    """Return degrees from a zone's middle, and latitudes, of grids x (n, 5), y (n, 5).

    Returns:
        Two arrays (n, 25).
    """
    shape = (len(x), 5, 5)
    east = np.broadcast_to(x[:, :, None], shape).reshape(len(x), 25)
    north = np.broadcast_to(y[:, None, :], shape).reshape(len(x), 25)
    lon, lat = _utm()(east, north, inverse=True)
    return lon - 3, lat


@cache
def _utm() -> Proj:
    return Proj(proj='utm', zone=31, ellps='WGS84')
