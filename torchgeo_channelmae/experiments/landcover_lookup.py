"""Look up the land cover of samples: their labels, their own map, or a raster."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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
from shapely.ops import transform
from torch.utils.data import DataLoader
from torchgeo.datasets import MMEarth, RasterDataset
from tqdm import tqdm

from ..samplers.shares import Values, label_shares

Counts = Counter[int]
"""Pixels per value of a land-cover map."""

CLASSES: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name('landcover.yaml').read_text()
)
"""Classes of MMEarth's ``maps`` and of TorchGeo's ``rasters``."""

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

_LEAST = 0.5  # of a sample's pixels must have a class
_DEGREES = pyproj.CRS('EPSG:4326')


def look_up(look: Any, rows: Any, workers: int) -> Iterable[Any]:
    """Call a function for each sample, in order, with a progress bar."""
    loader = DataLoader(rows, batch_size=None, collate_fn=look, num_workers=workers)
    return tqdm(loader, desc='land cover', unit='sample', disable=None)


def _label(dataset: Any, row: int) -> npt.NDArray[Any]:
    """Return a class number, or (K,) 1 for each class of a sample."""
    targets = getattr(dataset, 'targets', None)  # of a folder of images
    label = targets[row] if targets is not None else dataset[row].get('label')
    if not isinstance(label, torch.Tensor | int) or np.ndim(label) > 1:
        raise ValueError(
            f'Sample {row} of {type(dataset).__name__} has no label of classes. Use '
            f'another source.'
        )
    return np.asarray(label)


def read_labels(
    dataset: Any, rows: Sequence[int], workers: int
) -> tuple[Values, tuple[str, ...]]:
    """Return (rows, K) class shares from a dataset's labels, and the names of classes.

    The dataset has a ``table`` of patches, the ``targets`` of a folder of images, or
    samples with a ``label``.
    """
    names = tuple(getattr(dataset, 'classes', ()))
    table: Any = getattr(dataset, 'table', None)
    if hasattr(table, 'labels'):  # all at hand
        return label_shares(table.labels.numpy()[rows]), names
    labels = np.stack(list(look_up(partial(_label, dataset), rows, workers)))
    if labels.ndim == 1:
        labels = np.eye(max(len(names), int(labels.max()) + 1))[labels]
    numbered = tuple(f'class {column}' for column in range(labels.shape[1]))
    return label_shares(labels), names if len(names) == len(numbered) else numbered


def map_lookup(dataset: MMEarth, modality: str) -> Callable[[int], tuple[Counts, int]]:
    """Return a function that counts the pixels of a sample in a map of MMEarth."""
    dataset = copy.copy(dataset)
    dataset.modality_bands = {modality: dataset.all_modality_bands[modality]}
    return partial(_count_map, dataset, f'mask_{modality}')


def _count_map(dataset: MMEarth, key: str, row: int) -> tuple[Counts, int]:
    pixels = dataset[row][key].numpy()
    return count_values(pixels[~np.isnan(pixels)], (255,)), pixels.size


@dataclass
class RasterLookup:
    """Count the pixels of a land-cover raster in the footprint of a sample.

    A footprint is a square on the ground around the sample's center, or its bounds. It
    is transformed to the raster's CRS, and the pixels of the upright rectangle around
    it are counted.

    A sample of the dataset, or of a mapping from row to sample, has ``lon`` and ``lat``
    in degrees, or ``x`` and ``y`` or ``bounds`` in ``crs``. The size is in meters.
    """

    raster: RasterDataset
    samples: Any
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

    def _footprint(self, row: int) -> Box:
        """Return left, bottom, right and top of a sample in the raster's CRS."""
        sample = self.samples[row]
        if len(sample.get('bounds', ())) == 9:  # TorchGeo's
            left, right, _, bottom, top, *_ = map(float, sample['bounds'])
            crs, bounds = self.crs, (left, bottom, right, top)
        else:
            crs, bounds = _DEGREES, self._square(row, *self._center(row, sample))
        move = pyproj.Transformer.from_crs(crs, self.raster.crs, always_xy=True)
        return move.transform_bounds(*bounds, densify_pts=5)

    def _center(self, row: int, sample: Mapping[str, Any]) -> tuple[float, float]:
        """Return longitude and latitude."""
        for crs, keys in ((_DEGREES, ('lon', 'lat')), (self.crs, ('x', 'y'))):
            if set(keys) <= set(sample):
                place = [float(np.ravel(sample[key])[0]) for key in keys]
                move = pyproj.Transformer.from_crs(crs, _DEGREES, always_xy=True)
                return move.transform(*place)
        raise ValueError(
            f'Sample {row} of {type(self.samples).__name__} has no coordinates (lon '
            f'and lat, x and y, or bounds). Use another source.'
        )

    def _square(self, row: int, lon: float, lat: float) -> Box:
        if not (abs(lon) <= 180 and abs(lat) <= 90):
            raise ValueError(
                f'Sample {row} is at {lon:g}, {lat:g}, not longitude and latitude. Set '
                f'crs.'
            )
        if self.size is None:
            raise ValueError('Samples have centers but no extent. Set size in meters.')
        lons, lats, _ = pyproj.Geod(ellps='WGS84').fwd(
            [lon] * 4, [lat] * 4, [270, 180, 90, 0], [self.size / 2] * 4
        )
        return lons[0], lats[1], lons[2], lats[3]

    def _covers(self, box: Box) -> bool:
        slack = min(self.raster.res) / 2  # what rounding to pixels leaves open
        wanted = shapely.box(*box).buffer(-slack, join_style='mitre')
        if wanted.is_empty:
            wanted = shapely.box(*box).centroid
        near = self._tree.query(wanted, predicate='intersects')
        return bool(shapely.union_all(self._tree.geometries[near]).covers(wanted))

    @cached_property
    def _tree(self) -> shapely.STRtree:
        """What each file covers; the raster's index has upright rectangles instead."""
        paths = self.raster.index['filepath']
        return shapely.STRtree([outline(path, self.raster.crs) for path in paths])


def outline(path: str, crs: pyproj.CRS) -> BaseGeometry:
    """Return what a raster file covers, in a CRS."""
    with rasterio.open(path) as file:
        box, own = shapely.box(*file.bounds), file.crs.to_wkt() if file.crs else crs
    move = pyproj.Transformer.from_crs(own, crs, always_xy=True).transform
    dense = shapely.segmentize(box, box.length / 200)
    return shapely.make_valid(transform(move, dense))


def count_values(pixels: npt.NDArray[Any], ignored: Sequence[int]) -> Counts:
    """Return the number of pixels per value, without ignored values."""
    found = zip(*np.unique(pixels, return_counts=True), strict=True)
    return Counter({int(v): int(count) for v, count in found if v not in ignored})


def count_shares(
    look: Callable[[int], tuple[Counts, int]],
    rows: Sequence[int],
    names: Mapping[int, str] | None,
    workers: int,
) -> tuple[Values, tuple[str, ...]]:
    """Return (rows, K) class shares from the pixels of samples, and names of classes.

    Shares are NaN for samples of which less than half has a class. Without names by
    value each value is a class; otherwise a value without a name is an error.
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
    table = np.array([[counts[value] for value in names] for counts in counted], float)
    return label_shares(table), tuple(names.values())


def raster_values(
    raster: Any, classes: dict[int, str] | None, ignore: Sequence[int]
) -> tuple[dict[int, str] | None, tuple[int, ...]]:
    """Return names by value of a land-cover raster, and the values that are no class.

    The user's classes replace known ones, and ignored values are added to known ones.
    Names are None if every value is a class. Sets the raster to be read as classes.
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
    kinds = (CLASSES['rasters'].get(kind.__name__) for kind in type(raster).__mro__)
    known: Any = next(filter(None, kinds), {})
    ignored = known.get('ignore', () if nodata is None else (int(nodata),))
    return classes or known.get('classes'), (*ignored, *ignore)
