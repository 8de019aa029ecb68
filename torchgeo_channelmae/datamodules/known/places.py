"""Where samples lie."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import Transformer
from tqdm import tqdm


def centres(paths: Iterable[str | Path]) -> npt.NDArray[np.float64]:
    """Read the centres of georeferenced files, by threads.

    Args:
        paths: The files.

    Returns:
        (files, 2): longitude and latitude in degrees.

    Raises:
        ValueError: If a file has no georeference.
        OSError: If a file can't be opened.
    """
    listed = list(paths)
    with ThreadPoolExecutor(16) as pool:
        found = tqdm(
            pool.map(_centre, listed), 'Reading places', len(listed), disable=None
        )
        return np.array(list(found)).reshape(-1, 2)


def _centre(path: str | Path) -> tuple[float, float]:
    with rasterio.open(path) as file:
        if file.crs is None:
            raise ValueError(
                f'{path} has no coordinate reference system, so that its place is '
                f'unknown: use another val_by.'
            )
        left, bottom, right, top = file.bounds
        x, y = (left + right) / 2, (bottom + top) / 2
        lon, lat = _to_degrees(file.crs.to_wkt()).transform(x, y)
        return lon, lat


@lru_cache(maxsize=256)
def _to_degrees(wkt: str) -> Transformer:
    return Transformer.from_crs(wkt, 'EPSG:4326', always_xy=True)
