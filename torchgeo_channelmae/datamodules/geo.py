"""Any of TorchGeo's ``GeoDataset``s for pretraining, such as a folder of scenes."""

import copy
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Self, override

import numpy as np
import numpy.typing as npt
import shapely
import torchgeo.datasets as tg
from lightning.pytorch.utilities import rank_zero_info
from pyproj import CRS, Transformer
from shapely.geometry.base import BaseGeometry
from torchgeo.samplers import RandomPatchSampler, RandomTimestampSampler

from .. import sensors
from ..config import ClassSpec, deferred_errors
from ..randomness import derive_seed, global_seed
from .georeference import Names, sentinel2_tiles
from .holdout import hold_out, report_overlap, transfer_tiles
from .named_bands import NamedBands
from .source_datamodule import SourceDataModule
from .sources import LEVELS, Source, SourceFacts, padded
from .statistics import missing_pixels

_DEGREE = 111_320.0  # meters at most
_TRIES = 100  # places tried per sample
_OFFSET = 1000.0  # added to reflectance x 10,000 from processing baseline 04.00 on
_BASELINE = re.compile(r'_N(\d{4})_')

Place = tuple[slice, slice, slice]


class GeoPretrainingDataModule(SourceDataModule):
    """Named bands at random places of any ``GeoDataset`` of TorchGeo.

    For a folder of Sentinel-2 scenes, that is TorchGeo's ``Sentinel2``. Each epoch
    draws new places, each of one date; blocks of the area validate, at fixed places.

    Once set up, it has ``facts``, ``train_dataset`` and ``val_dataset``.
    """

    root_argument = 'paths'

    def __init__(
        self,
        dataset: ClassSpec | None = None,
        *,
        val_samples: int | None = None,
        block: float | None = None,
        gap: float | None = None,
        max_nodata: float = 0.1,
        **kwargs: Any,
    ) -> None:
        """Initialize the datamodule.

        Args:
            dataset: ``{class_path: NAME, init_args: {...}}`` of the dataset.
            val_samples: Number of places to validate at. None is about as many as fit.
            block: Side of a block in units of the dataset's coordinate reference
                system. None is 20 places.
            gap: Distance of training from these, in the same units. None is one place.
            max_nodata: Largest share of a band's pixels without data at a place.
            **kwargs: See :class:`.SourceDataModule`.
        """
        super().__init__(dataset, max_nodata=max_nodata, **kwargs)
        self.val_samples = val_samples
        self.block = block
        self.gap = gap
        with deferred_errors(self):
            self.check_choices()
            for name in ('val_samples', 'block', 'gap'):
                if (vars(self)[name] or 0) < 0:
                    raise ValueError(f'{name} is {vars(self)[name]}. Use 0 or more.')

    @override
    def make_source(self) -> 'GeoSource':
        """Build the dataset and look up its facts."""
        dataset = self.build_dataset(self._band_arguments)
        return GeoSource(dataset, self.size, self.max_nodata, **self.reading)

    def _band_arguments(self, kind: Any) -> dict[str, Any]:
        """Return arguments that make a class read the bands; B10 is not in L2A."""
        if issubclass(kind, tg.Sentinel2):
            bands = self.wanted or sensors.names(LEVELS['L2A'])
            return {'bands': list(sensors.names(sensors.select(bands, LEVELS['L1C'])))}
        known = set(self.wanted or ()) <= set(getattr(kind, 'all_bands', ()))
        return {'bands': self.wanted} if self.wanted and known else {}

    @override
    def split(self) -> tuple[NamedBands, NamedBands | None]:
        """Return places to train at and places to validate at."""
        source, val = self.source, None
        areas = source.area, source.area
        if self.val_fraction:
            side = self.size * max(source.dataset.res)
            block, gap = self.block or 20 * side, side if self.gap is None else self.gap
            areas = split_area(
                source.area, block, self.val_fraction, gap, self.split_seed
            )
            shares = [f'{area.area / source.area.area:.0%}' for area in areas]
            rank_zero_info(
                f'{source.name}: {shares[0]} of the area train, {shares[1]} validate.'
            )
        train = source.within(areas[0], self.samples_per_epoch)
        if self.transfer_test is not None:
            test = transfer_tiles(self.transfer_test)
            shared = np.intersect1d(train.area_tiles(), test)
            report_overlap(f'The area of {train.name}', shared, self.overlap)
            if self.overlap == 'drop':
                train.excluded = test
        if self.val_fraction:
            places = source.within(areas[1], self.val_samples)
            places.excluded = train.excluded
            val = self._named(places, 'validation')
        return self._named(train, 'place', global_seed()), val

    def _named(self, places: 'GeoSource', *address: int | str) -> NamedBands:
        return NamedBands(places, self.bands, places.rows, address, self.max_nodata)

    @override
    def what_is_read(self, train: NamedBands) -> dict[str, Any]:
        """Return ``tiles`` and ``patches`` of the record."""
        source: Any = train.source
        tiles = np.setdiff1d(source.area_tiles(), source.excluded)
        return {'tiles': tuple(tiles.tolist()), 'patches': None}


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
        bands: Sequence[str] | None = None,
        **reading: Any,
    ) -> None:
        """Initialize from a whole dataset.

        Args:
            dataset: A ``GeoDataset``.
            pixels: Height and width of a place in pixels.
            max_nodata: Largest share of a band's pixels without data.
            level: Product level of its Sentinel-2 bands. None is that in file names.
            bands: Names of its channels, in order. None is its own ``bands``.
            **reading: ``key`` and ``nodata``, see :class:`.Source`; Sentinel-2's is 0.
        """
        sentinel2 = isinstance(dataset, tg.Sentinel2)
        paths = list(map(str, dataset.index.get('filepath', [])))
        if sentinel2 and level is None:  # names of L2A have resolutions
            level = 'L2A' if re.search(r'_\d0m\.[^/]*$', paths[0]) else 'L1C'
        own = getattr(dataset, 'bands', None)
        if bands is None and own and not isinstance(own, str):
            bands = [padded(name) for name in own]
        super().__init__(dataset, SourceFacts(), level, bands=bands, **reading)
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
            count: Number of places. None is about as many as fit without overlap.
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
        for sampler in (self._sampler.spatial_sampler, self._sampler.temporal_sampler):
            sampler.generator = rng
        return iter(self._sampler)

    @override
    def sample(self, row: int, *address: int | str) -> dict[str, Any]:
        """Return the sample at a place, of the first of 100 that can be used."""
        if os.getpid() != self._process:  # open files of its own in a forked worker
            self._process = os.getpid()
            self.dataset = copy.deepcopy(self.dataset)
        for place in self.draw_places(derive_seed(*address, row)):
            offsets = self._offsets.get(place[2].start, {0.0})
            if len(offsets) > 1 or (len(self.excluded) and self._is_excluded(place)):
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
        x, y = (np.array([s.start, s.stop, (s.start + s.stop) / 2]) for s in place[:2])
        points = np.stack(self._degrees.transform(*np.meshgrid(x, y)), axis=-1)
        tiles = sentinel2_tiles(points.reshape(-1, 2))
        return bool(np.isin(tiles, self.excluded).any())

    def area_tiles(self) -> Names:
        """Return the Sentinel-2 tiles that may cover a part of the area.

        Each point of the area is within the margin of a grid point: no tile is missed.
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
