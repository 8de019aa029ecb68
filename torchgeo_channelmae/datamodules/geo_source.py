"""Random places of TorchGeo's ``GeoDataset``s as a source."""

import copy
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self, override

import numpy as np
import numpy.typing as npt
import shapely
import torchgeo.datasets as tg
from pyproj import CRS, Transformer
from shapely.geometry.base import BaseGeometry
from torchgeo.samplers import RandomPatchSampler, RandomTimestampSampler

from ..randomness import derive_seed
from .georeference import Names, sentinel2_tiles
from .holdout import hold_out
from .sources import Source, SourceFacts, described_bands, padded
from .statistics import missing_pixels

_DEGREE = 111_320.0  # meters at most
_TRIES = 100  # places tried per sample
_OFFSET = 1000.0  # added to reflectance x 10,000 from processing baseline 04.00 on
_BASELINE = re.compile(r'_N(\d{4})_')

Place = tuple[slice, slice, slice]


class GeoSource(Source):
    """Random places of a ``GeoDataset``, each of one date.

    A place is a function of the seed and number of its draw. TorchGeo's samplers draw
    places until one has enough data, and no corner or center in an excluded tile.

    From processing baseline 04.00 on (January 2022), Sentinel-2's digital numbers are
    1,000 larger; where the path has the baseline (``_N0400_``), that is undone.
    """

    def __init__(
        self,
        dataset: Any,
        pixels: int,
        max_nodata: float,
        level: str | None = None,
        **reading: Any,
    ) -> None:
        """Initialize from a whole dataset.

        Args:
            dataset: A ``GeoDataset``.
            pixels: Height and width of a place in pixels.
            max_nodata: Largest share of a band's pixels without data.
            level: Product level of its Sentinel-2 bands; None is that in file names.
            **reading: ``key``, ``bands`` and ``nodata``, see :class:`.Source`; the
                default is the bands of the class, and 0 for Sentinel-2.

        Raises:
            ValueError: If its bands are unknown.
        """
        sentinel2 = isinstance(dataset, tg.Sentinel2)
        paths = list(map(str, dataset.index.get('filepath', [])))
        if sentinel2 and level is None:  # names of L2A have resolutions
            level = 'L2A' if re.search(r'_\d0m\.[^/]*$', paths[0]) else 'L1C'
        named = getattr(dataset, 'bands', None)
        facts = SourceFacts()
        if named and not isinstance(named, str):
            bands = described_bands([padded(name) for name in named], level)
            facts = replace(facts, bands=lambda source: bands)
        super().__init__(dataset, facts, level, **reading)
        if any('Sentinel-2' in band.sensor for band in self.bands):
            self.nodata = 0 if self.nodata is None else self.nodata
        if self.nodata is not None and isinstance(dataset, tg.RasterDataset):
            dataset.nodata = self.nodata  # so that resampling leaves it out
        self.pixels = pixels
        self.max_nodata = max_nodata
        self.excluded: Names = np.array([], dtype=np.str_)
        self._offsets: dict[Any, set[float]] = defaultdict(set)
        for interval, path in zip(dataset.index.index, paths, strict=False):
            baseline = _BASELINE.search(path) if sentinel2 else None
            new = baseline is not None and int(baseline[1]) >= 400
            self._offsets[interval.left].add(_OFFSET if new else 0.0)
        self._degrees = Transformer.from_crs(dataset.crs, 'EPSG:4326', always_xy=True)
        self._process = os.getpid()
        self._set_area(dataset.index.geometry.union_all(), None)

    @override
    def missing(self, image: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which pixels have no data, band by band.

        At the edge of the data, bands of coarser pixels end elsewhere; and Sentinel-2's
        products have no reflectance of 0.
        """
        missing = [missing_pixels(band[None], self.nodata) for band in image]
        return np.concatenate(missing)

    def within(self, area: BaseGeometry, count: int | None) -> Self:
        """Return the source of places inside an area.

        Args:
            area: In the dataset's coordinate reference system.
            count: Number of places; None is about as many as fit without overlap.

        Raises:
            ValueError: If no place fits.
        """
        new = copy.copy(self)
        new._set_area(area, count)
        return new

    def _set_area(self, area: BaseGeometry, count: int | None) -> None:
        patches = RandomPatchSampler(
            self.dataset, size=self.pixels, length=_TRIES, roi=area
        )
        if patches.series.is_empty.all():
            raise ValueError(
                f'No place of {self.pixels} px, with the circle around it, fits into '
                f'an area of {self.name}. Check size, block and val_fraction.'
            )
        self.area = area
        self.side = max(patches.size)
        self.rows = np.arange(count or max(round(area.area / self.side**2), 1))
        self._sampler = patches @ RandomTimestampSampler(self.dataset)

    def draw_places(self, seed: int) -> Iterator[Place]:
        """Draw places to try, with a date each."""
        rng = np.random.default_rng(seed)
        self._sampler.spatial_sampler.generator = rng
        self._sampler.temporal_sampler.generator = rng
        return iter(self._sampler)

    @override
    def sample(self, row: int, *address: int | str) -> dict[str, Any]:
        """Return the sample at a place.

        Raises:
            ValueError: If none of 100 places can be used.
        """
        if os.getpid() != self._process:  # open files of its own in a forked worker
            self._process = os.getpid()
            self.dataset = copy.deepcopy(self.dataset)
        for place in self.draw_places(derive_seed(*address, row)):
            offsets = self._offsets.get(place[2].start, {0.0})
            if len(offsets) > 1 or self._is_excluded(place):
                continue
            sample: dict[str, Any] = self.dataset[place]
            image = self.image(sample)
            shares = self.missing(image.numpy()).mean(axis=(1, 2))
            if shares.max() <= self.max_nodata:
                (offset,) = offsets
                sample[self.key] = (image - offset).masked_fill(image == 0, 0)
                return sample
        raise ValueError(
            f'No random place of {self.pixels} px in {self.name} has enough data '
            f'(max_nodata={self.max_nodata:.0%}) and is off transfer_test. Check '
            f'these, nodata, size and block.'
        )

    def _is_excluded(self, place: Place) -> bool:
        """Whether a corner or the center may be in an excluded tile."""
        if not len(self.excluded):
            return False
        x, y = (np.array([s.start, s.stop, (s.start + s.stop) / 2]) for s in place[:2])
        points = np.stack(self._degrees.transform(*np.meshgrid(x, y)), axis=-1)
        tiles = sentinel2_tiles(points.reshape(-1, 2))
        return bool(np.isin(tiles, self.excluded).any())

    def area_tiles(self) -> Names:
        """Return the Sentinel-2 tiles that may cover a part of the area.

        No point of the area is further than the margin from a point of the grid, which
        reaches beyond it, so that a tile with a sliver of the area is not missed.
        """
        xmin, ymin, xmax, ymax = self.area.bounds
        step = max(self.side / 2, max(xmax - xmin, ymax - ymin) / 300)
        wide = self.area.buffer(step)
        x, y = np.meshgrid(
            np.arange(xmin - step, xmax + step, step),
            np.arange(ymin - step, ymax + step, step),
        )
        shapely.prepare(wide)
        inside = shapely.contains_xy(wide, x, y)
        crs = CRS(self.dataset.crs)
        unit = crs.axis_info[0].unit_conversion_factor
        margin = 0.75 * step * (_DEGREE if crs.is_geographic else unit) + 100
        points = np.stack(self._degrees.transform(x[inside], y[inside]), axis=-1)
        found: Names = np.unique(sentinel2_tiles(points, margin))
        return found[found != '']


def split_area(
    area: BaseGeometry, block: float, fraction: float, gap: float, seed: int
) -> tuple[BaseGeometry, BaseGeometry]:
    """Split an area into blocks to train on and blocks to validate on.

    Blocks are cells of a grid that is fixed in the coordinate reference system, so that
    scenes of several dates are split alike; TorchGeo's ``random_grid_cell_assignment``
    lays a grid over each file, which puts dates of one place on both sides.

    Args:
        area: Where there are data.
        block: Side of a block.
        fraction: Share of the blocks to validate on, in (0, 1).
        gap: Distance of training from blocks that validate.
        seed: Seed of the choice.

    Returns:
        The area to train on and the area to validate on.

    Raises:
        ValueError: If there are too few blocks.
    """
    left, bottom, right, top = np.floor(np.array(area.bounds) / block).astype(int)
    x, y = np.meshgrid(np.arange(left, right + 1), np.arange(bottom, top + 1))
    x, y = x.ravel() * block, y.ravel() * block
    cells = shapely.box(x, y, x + block, y + block)
    shapely.prepare(area)
    cells = cells[shapely.intersects(area, cells)]
    filled = shapely.area(shapely.intersection(cells, area)) / block**2
    # A sliver of a block has no room for a place to validate at.
    cells = cells[filled >= (0.5 if (filled >= 0.5).sum() > 1 else 1e-9)]
    held = hold_out(np.arange(len(cells)), fraction, seed)
    validation = shapely.union_all(cells[held])
    kept = validation.buffer(gap, join_style='mitre')
    return area.difference(kept), area.intersection(validation)
