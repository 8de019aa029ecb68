"""Look up the land cover of samples: their labels, their own map, or a raster."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
import shapely
import torch
import yaml
from shapely.geometry.base import BaseGeometry
from torch.utils.data import DataLoader, Dataset
from torchgeo.datasets import MMEarth, RasterDataset
from tqdm import tqdm

from ..samplers.shares import Values, label_shares

Counts = Counter[int]
"""Pixels per value of a land-cover map."""

CLASSES: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name('landcover.yaml').read_text()
)
"""Classes of MMEarth's ``maps`` and of TorchGeo's ``rasters``."""

_LEAST = 0.5  # of a sample's pixels must have a class
_DEGREES = pyproj.CRS('EPSG:4326')


class _Lookups(Dataset[Any]):
    """The results of a function of samples."""

    def __init__(self, look: Callable[[int], Any], rows: Sequence[int]) -> None:
        self.look = look
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.look(self.rows[index])


def _unchanged(value: Any) -> Any:
    return value


def look_up(
    look: Callable[[int], Any], rows: Sequence[int], workers: int
) -> Iterator[Any]:
    """Call a function for each sample, in order, with a progress bar."""
    loader = DataLoader(
        _Lookups(look, rows),
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
    )
    yield from tqdm(loader, desc='land cover', unit='sample', disable=None)


@dataclass
class LabelLookup:
    """Return the label of a sample, without reading its image if possible."""

    dataset: Any

    def __call__(self, row: int) -> npt.NDArray[Any]:
        """Return a class number, or (K,) 1 for each of its classes."""
        targets = getattr(self.dataset, 'targets', None)  # of a folder of images
        if isinstance(targets, list):
            return np.asarray(targets[row])
        label = self.dataset[row].get('label')
        if not isinstance(label, torch.Tensor | int) or np.ndim(label) > 1:
            raise ValueError(
                f'Sample {row} of {type(self.dataset).__name__} has no label of '
                f'classes. Use another source.'
            )
        return np.asarray(label)


def read_labels(
    dataset: Any, rows: Sequence[int], workers: int
) -> tuple[Values, tuple[str, ...]]:
    """Return class shares from a dataset's labels.

    Args:
        dataset: A dataset with a ``table`` of patches, the ``targets`` of a folder of
            images, or samples with a ``label``.
        rows: Samples.
        workers: Number of data loading processes.

    Returns:
        (rows, K) shares and the names of the classes.

    Raises:
        ValueError: If samples have no such label.
    """
    names = tuple(getattr(dataset, 'classes', ()))
    table: Any = getattr(dataset, 'table', None)
    if hasattr(table, 'labels'):  # all at hand
        return label_shares(table.labels.numpy()[rows]), names
    labels = np.stack(list(look_up(LabelLookup(dataset), rows, workers)))
    if labels.ndim == 1:
        labels = np.eye(max(len(names), int(labels.max()) + 1))[labels]
    numbered = tuple(f'class {column}' for column in range(labels.shape[1]))
    return label_shares(labels), names if len(names) == len(numbered) else numbered


@dataclass
class MapLookup:
    """Count the pixels of a land-cover map that MMEarth has for each sample."""

    dataset: MMEarth
    modality: str

    def __post_init__(self) -> None:
        """Read nothing but the map."""
        bands = self.dataset.all_modality_bands[self.modality]
        self.dataset = copy.copy(self.dataset)
        self.dataset.modality_bands = {self.modality: bands}

    def __call__(self, row: int) -> tuple[Counts, int]:
        """Return the pixels per class of a sample, and the number of all pixels."""
        pixels = self.dataset[row][f'mask_{self.modality}'].numpy()
        return count_values(pixels[~np.isnan(pixels)], (255,)), pixels.size


@dataclass
class RasterLookup:
    """Count the pixels of a land-cover raster in the footprint of a sample.

    A footprint is a square on the ground around the sample's center, or its bounds. It
    is transformed to the raster's CRS, and the pixels of the upright rectangle around
    it are counted.

    Attributes:
        raster: The raster.
        dataset: The dataset.
        centers: Longitude and latitude of samples in degrees, by row. None reads
            ``lon`` and ``lat``, ``x`` and ``y`` or ``bounds`` of the samples.
        size: Side of the square in meters.
        crs: CRS of ``x``, ``y`` and ``bounds``.
        ignored: Values that are no class.
    """

    raster: RasterDataset
    dataset: Any
    centers: Mapping[int, tuple[float, float]] | None
    size: float | None
    crs: pyproj.CRS
    ignored: Sequence[int]

    def __call__(self, row: int) -> tuple[Counts, int]:
        """Return the pixels per class of a sample, and of all; 0 if not covered."""
        box = self._footprint(row)
        if not np.isfinite(box).all() or box[0] >= box[2] or not self._covers(box):
            return Counter(), 0
        (left, bottom, right, top), (x, y) = box, self.raster.res
        wide, high = max((right - left - x) / -2, 0), max((top - bottom - y) / -2, 0)
        sample = self.raster[left - wide : right + wide, bottom - high : top + high]
        pixels = sample['mask'].numpy()
        return count_values(pixels, self.ignored), pixels.size

    def _footprint(self, row: int) -> tuple[float, float, float, float]:
        """Return left, bottom, right and top of a sample in the raster's CRS."""
        crs, bounds = self._bounds(row)
        move = pyproj.Transformer.from_crs(crs, self.raster.crs, always_xy=True)
        return move.transform_bounds(*bounds, densify_pts=5)

    def _bounds(self, row: int) -> tuple[pyproj.CRS, tuple[float, float, float, float]]:
        if self.centers is not None:
            return _DEGREES, self._around(row, *self.centers[row])
        sample = self.dataset[row]
        if 'bounds' in sample and len(sample['bounds']) == 9:  # TorchGeo's
            left, right, _, bottom, top, *_ = map(float, sample['bounds'])
            return self.crs, (left, bottom, right, top)
        for crs, keys in ((_DEGREES, ('lon', 'lat')), (self.crs, ('x', 'y'))):
            if set(keys) <= set(sample):
                place = [float(np.ravel(sample[key])[0]) for key in keys]
                move = pyproj.Transformer.from_crs(crs, _DEGREES, always_xy=True)
                return _DEGREES, self._around(row, *move.transform(*place))
        raise ValueError(
            f'Sample {row} of {type(self.dataset).__name__} has no coordinates (lon '
            f'and lat, x and y, or bounds). Use another source.'
        )

    def _around(
        self, row: int, lon: float, lat: float
    ) -> tuple[float, float, float, float]:
        if not (abs(lon) <= 180 and abs(lat) <= 90):
            raise ValueError(
                f'Sample {row} of {type(self.dataset).__name__} is at {lon:g}, '
                f'{lat:g}, not longitude and latitude. Set crs.'
            )
        if self.size is None:
            raise ValueError('Samples have centers but no extent. Set size in meters.')
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
        near = self._outlines[self._tree.query(wanted, predicate='intersects')]
        return bool(shapely.union_all(near).covers(wanted))

    @cached_property
    def _outlines(self) -> npt.NDArray[np.object_]:
        """What each file covers; the raster's index has upright rectangles instead."""
        paths = self.raster.index['filepath']
        found = [outline(path, self.raster.crs) for path in paths]
        return np.array(found, dtype=np.object_)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self._outlines)


def outline(path: str, crs: pyproj.CRS) -> BaseGeometry:
    """Return what a raster file covers, in a CRS."""
    with rasterio.open(path) as file:
        box = shapely.box(*file.bounds)
        if file.crs is None or pyproj.CRS(file.crs.to_wkt()) == crs:
            return box
        move = pyproj.Transformer.from_crs(file.crs.to_wkt(), crs, always_xy=True)
    box = shapely.segmentize(box, box.length / 200)
    return shapely.make_valid(
        shapely.transform(box, lambda xy: np.stack(move.transform(*xy.T), axis=1))
    )


def count_values(pixels: npt.NDArray[Any], ignored: Sequence[int]) -> Counts:
    """Return the number of pixels per value, without ignored values."""
    values, counts = np.unique(pixels, return_counts=True)
    found = zip(values.tolist(), counts.tolist(), strict=True)
    return Counter({int(v): count for v, count in found if v not in ignored})


def count_shares(
    look: Callable[[int], tuple[Counts, int]],
    rows: Sequence[int],
    names: Mapping[int, str] | None,
    workers: int,
) -> tuple[Values, tuple[str, ...]]:
    """Return class shares from the pixels of samples.

    Args:
        look: Counts the pixels of one sample.
        rows: Samples.
        names: Names of classes by value. None makes each value a class.
        workers: Number of data loading processes.

    Returns:
        (rows, K) shares, NaN for samples of which less than half has a class, and the
        names of the classes.

    Raises:
        ValueError: If a value is no class.
    """
    counted: list[Counts] = []
    for row, (counts, pixels) in zip(rows, look_up(look, rows, workers), strict=True):
        if names is not None and (unknown := set(counts) - set(names)):
            raise ValueError(
                f'The land cover of sample {row} has the value {min(unknown)}, which '
                f'is no class. Name it in classes or list it in ignore.'
            )
        enough = counts.total() >= max(_LEAST * pixels, 1)
        counted.append(counts if enough else Counter())
    if names is None:
        names = {value: f'class {value}' for value in sorted(set().union(*counted))}
    shares = np.array([[counts[value] for value in names] for counts in counted], float)
    total = shares.sum(axis=1, keepdims=True)
    total[total == 0] = np.nan
    return (shares / total).astype(np.float32), tuple(names.values())


def raster_values(
    raster: Any, classes: dict[int, str] | None, ignore: Sequence[int]
) -> tuple[dict[int, str] | None, tuple[int, ...]]:
    """Return what the values of a land-cover raster mean, and read it as classes.

    Args:
        raster: The raster.
        classes: Names by value, if given by the user.
        ignore: Values that are no class, if given by the user.

    Returns:
        Names by value (None if every value is a class), and the values that are none.

    Raises:
        ValueError: If it is not a raster of integers.
    """
    if not isinstance(raster, RasterDataset):
        raise ValueError(
            f'raster is a {type(raster).__name__}. Use a TorchGeo RasterDataset.'
        )
    path = raster.index['filepath'].iloc[0]
    with rasterio.open(path) as file:
        kind, nodata = file.dtypes[0], file.nodata
    if np.dtype(kind).kind not in 'iu':
        raise ValueError(f'{path} has {kind} pixels. Use a raster of classes.')
    raster.is_image = False  # nearest neighbors
    kinds = (kind.__name__ for kind in type(raster).__mro__)
    known: Any = next(
        (CLASSES['rasters'][k] for k in kinds if k in CLASSES['rasters']), {}
    )
    ignored = known.get('ignore', () if nodata is None else (int(nodata),))
    return classes or known.get('classes'), (*ignored, *ignore)
