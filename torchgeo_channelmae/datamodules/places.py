"""Random places of TorchGeo's ``GeoDataset``s, drawn by address."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, override

import numpy as np
import numpy.typing as npt
import shapely
import torchgeo.datasets as tg
from pandas import Interval
from pyproj import CRS, Transformer
from shapely import Polygon
from shapely.geometry.base import BaseGeometry
from torchgeo.samplers import RandomPatchSampler, RandomTimestampSampler

from .. import sensors
from ..randomness import derive_seed
from ..sensors import Band
from .grouping import hold_out
from .known import LEVELS, Names, Rows, Source, described_bands
from .known.source import padded
from .mgrs_tiles import product_tiles
from .statistics import missing_pixels

_DEGREE = 111_320.0  # metres at most
_TRIES = 100  # places looked at before a sample is given up
_OFFSET = 1000.0  # added to reflectance x 10,000 from processing baseline 04.00 on
_BASELINE = re.compile(r'_N(\d{4})_')

Place = tuple[slice, slice, slice]


class Places(Source):
    """Random places of a ``GeoDataset``, each of one date.

    Place i of visit v is a function of its address alone, so that batches, workers and
    resumed runs agree. TorchGeo's ``RandomPatchSampler`` chooses a place, its
    ``RandomTimestampSampler`` one of the dates there. Places are passed over that have
    too little data, or a corner or centre in a tile to avoid.

    From processing baseline 04.00 on (January 2022), Sentinel-2's digital numbers are
    1,000 larger; where the path names the baseline (``_N0400_``), that is undone.
    """

    def __init__(
        self,
        dataset: Any,
        pixels: int,
        max_nodata: float,
        level: str | None = None,
        key: str = 'image',
        bands: Sequence[str] | None = None,
        nodata: float | None = None,
    ) -> None:
        """Initialise places anywhere.

        Args:
            dataset: A ``GeoDataset``.
            pixels: Height and width of a place in pixels.
            max_nodata: Largest share of a band's pixels without data.
            level: Product level of its Sentinel-2 bands; None is what file names tell.
            key: Key of the image in a sample.
            bands: Names of its channels, in order; None is those of TorchGeo's class.
            nodata: Pixel value that stands for no data; None is 0 for Sentinel-2.

        Raises:
            ValueError: If its bands are not known.
        """
        self._process = os.getpid()
        self.pixels = pixels
        self.max_nodata = max_nodata
        self.avoid: Names = np.array([], dtype=np.str_)
        if isinstance(dataset, tg.Sentinel2):
            level = level or _level(dataset)
        super().__init__(dataset, level, key, bands, nodata)
        if nodata is None and any('Sentinel-2' in band.sensor for band in self.bands):
            self.nodata = 0
        if self.nodata is not None and isinstance(dataset, tg.RasterDataset):
            dataset.nodata = self.nodata  # so that resampling does not mix it in
        self.area = dataset.index.geometry.union_all()
        self.offsets = _offsets(dataset)
        self._degrees = Transformer.from_crs(dataset.crs, 'EPSG:4326', always_xy=True)
        geographic = CRS(dataset.crs).is_geographic
        self._metres = (
            _DEGREE
            if geographic
            else CRS(dataset.crs).axis_info[0].unit_conversion_factor
        )
        self.count = self._aim(self.area, None)

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """TorchGeo's rasters name their bands."""
        bands = getattr(self.dataset, 'bands', None)
        if not bands or isinstance(bands, str):
            return super().find_bands()
        return described_bands([padded(band) for band in bands], self.level)

    @override
    def missing(self, image: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Tell which pixels have no data, band by band.

        At the edge of the data, bands of coarser pixels end elsewhere; and 0 is no
        reflectance in Sentinel-2's products.
        """
        missing = [missing_pixels(band[None], self.nodata) for band in image]
        return np.concatenate(missing)

    def within(self, area: BaseGeometry, count: int | None, role: str) -> 'Places':
        """Return places inside an area.

        Args:
            area: In the dataset's coordinate reference system.
            count: Number of places; None is about as many as fit without overlap.
            role: What they are for, to name it.

        Raises:
            ValueError: If none fits in.
        """
        new = Places.__new__(Places)
        new.__dict__.update(self.__dict__)
        new.count = new._aim(area, count)
        if new._sampler.series.is_empty.all():
            raise ValueError(
                f'No place of {self.pixels} px fits into the {role} area of '
                f'{self.name}, where the circle around it has to: give a smaller size '
                f'or another block or val_fraction.'
            )
        return new

    def _aim(self, area: BaseGeometry, count: int | None) -> int:
        """Draw from an area from now on; returns the number of places."""
        self.area = area
        self._sampler = RandomPatchSampler(
            self.dataset, size=self.pixels, length=1, roi=area
        )
        self._dates = RandomTimestampSampler(self.dataset)
        height, width = self._sampler.size
        return count or max(round(area.area / (height * width)), 1)

    @override
    def rows(self) -> Rows:
        """Return a number for each place."""
        return np.arange(self.count)

    @override
    def sample(self, row: int, *address: int | str) -> dict[str, Any]:
        """Return the sample at a place.

        Raises:
            ValueError: If many places in a row have too little data.
        """
        self._reopen_after_fork()
        best = 1.0
        for attempt in range(_TRIES):
            place = self.place(derive_seed(*address, row, attempt))
            offset = self._offset(place)
            if offset is None or self._is_to_avoid(place):
                continue
            sample: dict[str, Any] = self.dataset[place]
            image = super().image(sample)
            share = float(self.missing(image.numpy()).mean(axis=(1, 2)).max())
            best = min(best, share)
            if share <= self.max_nodata:
                if offset:
                    blank = image == 0
                    sample[self.key] = (image - offset).masked_fill(blank, 0)
                return sample
        raise ValueError(
            f'{_TRIES} random places in a row are no use, having no data in more than '
            f'max_nodata={self.max_nodata:.0%} of their pixels (the best {best:.0%}): '
            f'check nodata and transfer_test, add scenes or raise max_nodata.'
        )

    def place(self, seed: int) -> Place:
        """Draw a place and one of its dates."""
        rng = np.random.default_rng(seed)
        self._sampler.generator = self._dates.generator = rng
        place: Place = next(self._dates._iter_subset(next(iter(self._sampler))))
        return place

    def _reopen_after_fork(self) -> None:
        """Forget files that another process opened, whose position all would share."""
        if os.getpid() != self._process:
            self._process = os.getpid()
            opened = getattr(self.dataset, '_cached_load_warp_file', None)
            if opened is not None:
                opened.cache_clear()

    def _is_to_avoid(self, place: Place) -> bool:
        """Whether a corner or the centre may be in a tile to avoid."""
        if not len(self.avoid):
            return False
        x, y, _ = place
        middle = ((x.start + x.stop) / 2, (y.start + y.stop) / 2)
        corners = [(a, b) for a in (x.start, x.stop) for b in (y.start, y.stop)]
        tiles = product_tiles(*self._degrees.transform(*np.array([*corners, middle]).T))
        return bool(np.isin(tiles, self.avoid).any())

    def area_tiles(self) -> Names:
        """Return the Sentinel-2 tiles that may cover a part of the area.

        No point of the area is further than the margin from a point of the grid, which
        reaches beyond it, so that a tile with a sliver of the area is not missed.
        """
        xmin, ymin, xmax, ymax = self.area.bounds
        step = max(self._sampler.size[0] / 2, max(xmax - xmin, ymax - ymin) / 300)
        wide = self.area.buffer(step)
        x, y = np.meshgrid(
            np.arange(xmin - step, xmax + step, step),
            np.arange(ymin - step, ymax + step, step),
        )
        shapely.prepare(wide)
        inside = shapely.contains_xy(wide, x, y)
        margin = 0.75 * step * self._metres + 100
        lon, lat = self._degrees.transform(x[inside], y[inside])
        found: Names = np.unique(product_tiles(lon, lat, margin))
        return found[found != '']

    def _offset(self, place: Place) -> float | None:
        """Return what to subtract at a place; None where files there differ."""
        if not self.offsets.any():
            return 0.0
        x, y, t = place
        there = self.dataset.index.index.overlaps(Interval(t.start, t.stop))
        bounds = shapely.box(x.start, y.start, x.stop, y.stop)
        there &= self.dataset.index.geometry.intersects(bounds).to_numpy()
        found = np.unique(self.offsets[there])
        return float(found[0]) if len(found) == 1 else None


def split_area(
    area: BaseGeometry, block: float, fraction: float, gap: float, seed: int
) -> tuple[BaseGeometry, BaseGeometry]:
    """Split an area into blocks to train on and blocks to validate on.

    Blocks are cells of a grid that is fixed in the coordinate reference system, so that
    scenes of several dates are split alike; TorchGeo's ``random_grid_cell_assignment``
    lays a grid over each file, which puts one place's dates on both sides.

    Args:
        area: What has data.
        block: Side of a block.
        fraction: Share of the blocks to validate on, in (0, 1).
        gap: Distance that training keeps from blocks that validate.
        seed: Seed of the choice.

    Returns:
        The area to train on and the area to validate on.

    Raises:
        ValueError: If there are too few blocks.
    """
    parts = getattr(area, 'geoms', [area])
    cells: set[tuple[int, int]] = set()
    for part in parts:
        left, bottom, right, top = np.floor(np.array(part.bounds) / block).astype(int)
        cells |= {
            (x, y) for x in range(left, right + 1) for y in range(bottom, top + 1)
        }
    shapes = np.array([_cell(x, y, block) for x, y in sorted(cells)])
    shapely.prepare(area)
    filled = shapely.area(shapely.intersection(shapes, area)) / block**2
    # A sliver of a block has no room for a place to validate at.
    enough = 0.5 if (filled >= 0.5).sum() > 1 else 1e-9
    shapes = shapes[filled >= enough]
    held = hold_out(
        np.arange(len(shapes)), fraction, seed, 'val_fraction, or a smaller block'
    )
    validation = shapely.union_all(shapes[held])
    kept = validation.buffer(gap, join_style='mitre')
    return area.difference(kept), area.intersection(validation)


def raster_arguments(kind: type, bands: Sequence[str] | None) -> Mapping[str, Any]:
    """Return arguments that make a class of TorchGeo read bands.

    Args:
        kind: A ``GeoDataset``.
        bands: Names of bands; None is all, of Sentinel-2 all but B10, which L2A lacks.

    Raises:
        ValueError: If Sentinel-2 has no such band.
    """
    if issubclass(kind, tg.Sentinel2):
        chosen = bands or sensors.names(LEVELS['L2A'])
        return {'bands': list(sensors.names(sensors.select(chosen, LEVELS['L1C'])))}
    known = getattr(kind, 'all_bands', ())
    return {'bands': list(bands)} if bands and set(bands) <= set(known) else {}


def _cell(x: int, y: int, block: float) -> Polygon:
    return shapely.box(x * block, y * block, (x + 1) * block, (y + 1) * block)


def _level(dataset: Any) -> str:
    """Tell L2A, whose files name a resolution, from L1C."""
    name = os.path.basename(dataset.index['filepath'].iloc[0])
    return 'L2A' if re.search(r'_\d0m\.', name) else 'L1C'


def _offsets(dataset: Any) -> npt.NDArray[np.float64]:
    """Return what the digital numbers of each file are too large by."""
    count = len(dataset.index)
    if not isinstance(dataset, tg.Sentinel2):
        return np.zeros(count)
    found = [_BASELINE.search(path) for path in dataset.index['filepath']]
    return np.array(
        [_OFFSET if match and int(match[1]) >= 400 else 0.0 for match in found]
    )
