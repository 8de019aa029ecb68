"""MGRS 100 km squares, which Sentinel-2's tiles are named after."""

from functools import cache

import numpy as np
import numpy.typing as npt
from pyproj import Proj

_LETTERS = np.array(list('ABCDEFGHJKLMNPQRSTUVWXYZ'))  # no I, no O


def mgrs_tile(lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Return the MGRS 100 km square of each place.

    Squares as in NGA.STND.0037, with the wide zones of Norway and Svalbard. Sentinel-2
    names its tiles after them, but these reach about 10 km over their neighbours: an
    image near an edge may have been cut from the tile next to that of its centre.

    Args:
        lon: (places,) longitudes in degrees.
        lat: (places,) latitudes in degrees.

    Returns:
        (places,) names such as '33UUP'; '' beyond 84 degrees north and 80 south, where
        no UTM is, and for NaN.

    Raises:
        ValueError: If a latitude is beyond 90 degrees.
    """
    lon, lat = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    if (np.abs(lat) > 90).any():
        raise ValueError(
            f'Latitude {lat[np.abs(lat) > 90][0]} is beyond 90 degrees: give '
            f'longitudes first, then latitudes, in degrees.'
        )
    names = np.zeros(lat.shape, dtype='U5')
    inside = np.isfinite(lon) & (lat >= -80) & (lat < 84)
    names[inside] = _squares((lon[inside] + 180) % 360 - 180, lat[inside])
    return names


def _squares(
    lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]
) -> npt.NDArray[np.str_]:
    zone = (np.floor(lon / 6).astype(np.int64) + 30) % 60 + 1
    zone[(lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 12)] = 32
    svalbard = (lat >= 72) & (lon >= 0) & (lon < 42)
    zone[svalbard] = 31 + 2 * np.digitize(lon[svalbard], (9, 21, 33))
    # UTM is the same in every zone, counted from the zone's middle.
    easting, northing = _utm()(lon - (6 * zone - 183) + 3, lat)
    band = np.minimum((lat + 80) // 8, 19).astype(np.int64)
    column = (easting // 100_000).astype(np.int64) - 1 + (zone - 1) % 3 * 8
    row = (northing // 100_000).astype(np.int64) + 5 * (1 - zone % 2)
    name = np.char.mod('%02d', zone)
    for letters in (_LETTERS[band + 2], _LETTERS[column], _LETTERS[row % 20]):
        name = np.char.add(name, letters)
    return name


@cache
def _utm() -> Proj:
    return Proj(proj='utm', zone=31, ellps='WGS84')
