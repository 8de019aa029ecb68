"""Land cover at a sample's place, looked up in a raster of any CRS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
import shapely
from shapely.geometry.base import BaseGeometry
from torchgeo.datasets import RasterDataset

from .landcover_classes import RASTERS

Counts = dict[int, int]
"""Pixels of each value of a land-cover map."""

_DEGREES = pyproj.CRS('EPSG:4326')


@dataclass
class RasterLookup:
    """Counts the pixels of a land-cover raster in the footprint of a sample.

    A footprint is a square on the ground around the sample's centre, or its bounds. It
    is brought to the raster's CRS, and the pixels of the upright rectangle around it
    are counted.

    Attributes:
        raster: The raster.
        dataset: The dataset.
        centres: Longitude and latitude of the centre of each sample in degrees, by row.
            None looks at a sample's ``lon`` and ``lat``, ``x`` and ``y`` or ``bounds``.
        size: Side of the square in metres.
        crs: CRS of ``x``, ``y`` and ``bounds``.
        ignored: Values that are no class.
    """

    raster: RasterDataset
    dataset: Any
    centres: Mapping[int, tuple[float, float]] | None
    size: float | None
    crs: pyproj.CRS
    ignored: tuple[int, ...]
    _moves: dict[str, pyproj.Transformer] = field(default_factory=dict)

    def __call__(self, row: int) -> tuple[Counts, int]:
        """Return the pixels of each class of a sample, and of all; 0 if outside."""
        box = self.footprint(row)
        if box is None or not self._covers(box):
            return {}, 0
        (left, bottom, right, top), (x, y) = box, self.raster.res
        wide, high = max((right - left - x) / -2, 0), max((top - bottom - y) / -2, 0)
        sample = self.raster[left - wide : right + wide, bottom - high : top + high]
        pixels = sample['mask'].numpy()
        return count_values(pixels, self.ignored), pixels.size

    def footprint(self, row: int) -> tuple[float, float, float, float] | None:
        """Return left, bottom, right and top of a sample in the raster's CRS.

        None where the CRS does not reach.

        Raises:
            ValueError: If the sample has no coordinates, or no extent.
        """
        crs, bounds = self._bounds(row)
        key = crs.to_wkt()
        if key not in self._moves:
            self._moves[key] = pyproj.Transformer.from_crs(
                crs, self.raster.crs, always_xy=True
            )
        moved = self._moves[key].transform_bounds(*bounds, densify_pts=5)
        return moved if np.isfinite(moved).all() and moved[0] < moved[2] else None

    def _bounds(self, row: int) -> tuple[pyproj.CRS, tuple[float, float, float, float]]:
        if self.centres is not None:
            return _DEGREES, self._around(row, *self.centres[row])
        sample = self.dataset[row]
        if 'bounds' in sample and len(sample['bounds']) == 9:  # TorchGeo's
            left, right, _, bottom, top, *_ = map(float, sample['bounds'])
            return self.crs, (left, bottom, right, top)
        for x, y in (('lon', 'lat'), ('x', 'y')):
            if x in sample and y in sample:
                place = [float(np.ravel(sample[key])[0]) for key in (x, y)]
                if x == 'x':
                    to_degrees = pyproj.Transformer.from_crs(
                        self.crs, _DEGREES, always_xy=True
                    )
                    place = list(to_degrees.transform(*place))
                return _DEGREES, self._around(row, *place)
        raise ValueError(
            f'Sample {row} of {type(self.dataset).__name__} has no coordinates, that '
            f'is no lon and lat, x and y, or bounds, but {", ".join(map(str, sample))}:'
            f' land cover can be looked up for datasets with coordinates only.'
        )

    def _around(
        self, row: int, lon: float, lat: float
    ) -> tuple[float, float, float, float]:
        name = f'Sample {row} of {type(self.dataset).__name__}'
        if not (abs(lon) <= 180 and abs(lat) <= 90):
            raise ValueError(
                f'{name} is at {lon:g}, {lat:g}, which are not longitude and latitude '
                f'in degrees: give the crs of the coordinates.'
            )
        if self.size is None:
            raise ValueError(
                f'{name} has a centre but no extent: give size, the side of a sample '
                f'on the ground in metres.'
            )
        lons, lats, _ = pyproj.Geod(ellps='WGS84').fwd(
            [lon] * 4, [lat] * 4, [270, 180, 90, 0], [self.size / 2] * 4
        )
        return lons[0], lats[1], lons[2], lats[3]

    def _covers(self, box: tuple[float, float, float, float]) -> bool:
        left, bottom, right, top = box
        slack = min(self.raster.res) / 2  # what rounding to pixels leaves open
        if min(right - left, top - bottom) > 2 * slack:
            wanted = shapely.box(
                left + slack, bottom + slack, right - slack, top - slack
            )
        else:
            wanted = shapely.Point((left + right) / 2, (bottom + top) / 2)
        near = self.outlines[self._tree.query(wanted, predicate='intersects')]
        return bool(shapely.union_all(near).covers(wanted))

    @cached_property
    def outlines(self) -> npt.NDArray[np.object_]:
        """Return what each file covers, in the raster's CRS.

        The index has the upright rectangles around files that are brought to that CRS,
        whose corners are empty and read as the value 0.
        """
        index = self.raster.index
        found = [
            outline_in(path, self.raster.crs, box)
            for path, box in zip(index['filepath'], index.geometry, strict=True)
        ]
        return np.array(found, dtype=np.object_)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.outlines)


def outline_in(path: str, crs: pyproj.CRS, box: BaseGeometry) -> BaseGeometry:
    """Return what a raster file covers, in a CRS.

    Args:
        path: The file.
        crs: The CRS.
        box: What it covers if its own CRS is this one, or it has none.

    Returns:
        Its outline, with points every 1/50 of a side.
    """
    with rasterio.open(path) as file:
        if file.crs is None or pyproj.CRS(file.crs.to_wkt()) == crs:
            return box
        steps = np.linspace(0, 1, 51)[:-1]
        across = np.concatenate([steps, steps * 0 + 1, 1 - steps, steps * 0])
        x, y = file.transform @ (across * file.width, np.roll(across, 50) * file.height)
        move = pyproj.Transformer.from_crs(file.crs.to_wkt(), crs, always_xy=True)
    points = np.stack(move.transform(x, y), axis=1)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 3:
        return box
    return shapely.make_valid(shapely.Polygon(points))


def count_values(pixels: npt.NDArray[Any], ignored: Sequence[int]) -> Counts:
    """Count the pixels of each value, without those that are no class."""
    values, counts = np.unique(pixels, return_counts=True)
    found = zip(values.tolist(), counts.tolist(), strict=True)
    return {int(value): count for value, count in found if value not in ignored}


def raster_values(
    raster: Any, classes: dict[int, str] | None, ignore: Sequence[int]
) -> tuple[dict[int, str] | None, tuple[int, ...]]:
    """Return what the values of a land-cover raster mean.

    Args:
        raster: The raster, which is read as classes from here on.
        classes: Values and names, if the user gives them.
        ignore: Values that are no class, if the user gives them.

    Returns:
        Names by value, None where every value is a class, and the values that are none.

    Raises:
        ValueError: If it is no raster of whole numbers.
    """
    if not isinstance(raster, RasterDataset):
        raise ValueError(
            f'raster is a {type(raster).__name__}: give a TorchGeo RasterDataset.'
        )
    path = raster.index['filepath'].iloc[0]
    with rasterio.open(path) as file:
        kind, nodata = file.dtypes[0], file.nodata
    if np.dtype(kind).kind not in 'iu':
        raise ValueError(
            f'{Path(path).name} of {type(raster).__name__} has {kind} pixels: give a '
            f'raster of land-cover classes, which are whole numbers.'
        )
    raster.is_image = False  # class numbers, so nearest neighbours
    names, known = next(
        (table for base, table in RASTERS.items() if isinstance(raster, base)),
        (None, () if nodata is None else (int(nodata),)),
    )
    return classes or names, (*known, *ignore)
