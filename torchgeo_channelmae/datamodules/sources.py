"""A dataset with what pretraining needs to know: bands, units, names, places."""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from .. import sensors
from ..randomness import derive_seed
from ..sensors import Band
from .georeference import Coordinates, Names, centers, sentinel2_tiles
from .statistics import missing_pixels

Rows = npt.NDArray[np.int64]

LEVELS = {'L1C': sensors.SENTINEL2_L1C, 'L2A': sensors.SENTINEL2_L2A}

_TILE = re.compile(r'_T(\d{2}[A-Z]{3})(?![A-Za-z0-9])')


@dataclass(frozen=True)
class SourceFacts:
    """How to read a class of datasets.

    Attributes:
        bands: Returns the band of each channel, in order. None if unknown.
        arguments: Returns the arguments with which the dataset reads only the wanted
            bands (None for all).
        level: Product level of Sentinel-2 to use where the dataset has both.
        nodata: Pixel value without data, if in all bands of a sensor and resolution.
        scale: Factor from Sentinel-2 pixels to reflectance x 10,000.
        image: Returns the channels of a sample. None is its entry ``image``.
        rows: Returns the indices of the usable samples. None is all.
        columns: Returns what tables and file names say of samples: ``names``;
            ``scenes`` that they were cut from; (rows, K) MGRS ``tiles``, padded with
            ''; ``patches``, their BigEarthNet v1 names; and ``places``, longitude and
            latitude in degrees.
        file: Returns a georeferenced file of a sample, where no table has places.
        scenes_are_places: Whether scenes lie apart, rather than being dates of a place.
        draws: Whether the dataset itself draws one of several dates of a sample.
    """

    bands: Callable[['Source'], Sequence[Band]] | None = None
    arguments: Callable[[Sequence[str] | None], dict[str, Any]] = lambda bands: {}
    level: str | None = None
    nodata: float | None = None
    scale: float = 1.0
    image: Callable[['Source', Mapping[str, Any]], Tensor] | None = None
    rows: Callable[['Source'], Rows] | None = None
    columns: Callable[[Any, Rows], Mapping[str, Any]] = lambda dataset, rows: {}
    file: Callable[[Any, int], str | Path] | None = None
    scenes_are_places: bool = False
    draws: bool = False


class Source:
    """A dataset with its facts.

    Names, scenes, tiles and places are looked up once on demand; None if unknown.
    """

    def __init__(
        self,
        dataset: Any,
        facts: SourceFacts,
        level: str | None = None,
        key: str = 'image',
        bands: Sequence[str] | None = None,
        nodata: float | None = None,
    ) -> None:
        """Initialize the source.

        Args:
            dataset: The dataset.
            facts: How to read it.
            level: Product level of its Sentinel-2 bands.
            key: Key of the image in a sample, where ``bands`` are given.
            bands: Names of its channels, in order. None is those of the facts.
            nodata: Pixel value that means no data. None is that of the facts.

        Raises:
            ValueError: If its bands are unknown, or of another level.
        """
        self.dataset = dataset
        self.name = type(dataset).__name__
        self.facts = facts
        self.level = level or facts.level
        self.level_is_given = level is not None
        self.key = 'image' if bands is None else key
        self.nodata = facts.nodata if nodata is None else nodata
        if bands is not None:
            self.bands = described_bands(bands, level)
        elif facts.bands is None:
            raise ValueError(
                f'The bands of {self.name} are unknown. Set dataset_bands to the names '
                f'of its channels, and image_key.'
            )
        else:
            self.bands = tuple(facts.bands(self))
            found = {b.sensor for b in self.bands if 'Sentinel-2' in b.sensor}
            if level and found and found != {f'Sentinel-2 {level}'}:
                raise ValueError(
                    f'level is {level!r}, but {self.name} has {min(found)}. Leave it '
                    f'out.'
                )
        sensors.check_names(sensors.names(self.bands))

    def sample(self, row: int, *address: int | str) -> dict[str, Any]:
        """Return a sample; ``address`` seeds the draw of a dataset that draws."""
        if not self.facts.draws:
            sample: dict[str, Any] = self.dataset[row]
            return sample
        with isolate_rng(include_cuda=False):
            random.seed(derive_seed(*address, row))
            return self.dataset[row]  # type: ignore[no-any-return]

    def image(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the channels of a sample, (C, height, width), in physical units."""
        if self.facts.image is not None:
            image = self.facts.image(self, sample)
        elif self.key in sample:
            image = sample[self.key]
        else:
            raise ValueError(
                f'Samples of {self.name} have no {self.key!r}. Set image_key to one of '
                f'{", ".join(sample)}.'
            )
        if image.ndim != 3 or len(image) != len(self.bands):
            raise ValueError(
                f'{self.key!r} of {self.name} has shape {tuple(image.shape)}, not the '
                f'{len(self.bands)} channels {", ".join(sensors.names(self.bands))}. '
                f'Name its channels in dataset_bands.'
            )
        if self.facts.scale != 1:
            optical = ['Sentinel-2' in band.sensor for band in self.bands]
            image = image.clone()
            image[optical] *= self.facts.scale
        return image

    def missing(self, image: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which pixels of an image, (C, height, width), have no data.

        These are NaN or infinite, or ``nodata`` in all bands of a sensor and
        resolution: a single band may be 0, and bands of coarser pixels end elsewhere at
        the edge of the data.
        """
        found = np.zeros(image.shape, dtype=bool)
        kinds = np.array([f'{band.sensor} {band.resolution}' for band in self.bands])
        for kind in np.unique(kinds):
            found[kinds == kind] = missing_pixels(image[kinds == kind], self.nodata)
        return found

    @cached_property
    def rows(self) -> Rows:
        """The sorted indices of the usable samples."""
        rows = self.facts.rows
        return np.arange(len(self.dataset)) if rows is None else rows(self)

    @cached_property
    def columns(self) -> dict[str, Any]:
        """What tables and file names say of all usable samples."""
        return dict(self.facts.columns(self.dataset, self.rows))

    def column(self, key: str, rows: Rows) -> npt.NDArray[Any] | None:
        """Return ``names``, ``scenes``, ``tiles`` or ``patches`` of usable samples."""
        values = self.columns.get(key)
        if values is None:
            return None
        return np.asarray(values)[np.searchsorted(self.rows, rows)]

    def places(self, rows: Rows) -> Coordinates | None:
        """Return longitude and latitude of usable samples, (rows, 2) in degrees."""
        if 'places' not in self.columns and self.facts.file is not None:
            files = [self.facts.file(self.dataset, row) for row in self.rows.tolist()]
            self.columns['places'] = centers(files)
        return self.column('places', rows)

    def covering_tiles(self, rows: Rows, read: bool) -> Names | None:
        """Return the Sentinel-2 tiles that may cover each sample.

        Args:
            rows: The samples.
            read: Whether to open files for coordinates.

        Returns:
            (rows, K) names, padded with ''; None if neither names nor places are known.
        """
        named = self.column('tiles', rows)
        places = self.places(rows) if read else self.column('places', rows)
        if places is None:
            return named
        covering = sentinel2_tiles(places)
        return covering if named is None else np.concatenate([named, covering], axis=1)


def described_bands(names: Sequence[str], level: str | None) -> tuple[Band, ...]:
    """Look up bands that a user names; unknown names are bands without statistics."""
    optical = [name for name in names if name in sensors.names(LEVELS['L1C'])]
    if level is None and optical:
        raise ValueError(
            f'dataset_bands has Sentinel-2 band {optical[0]}, which is in two product '
            f'levels. Set level to L1C (top of atmosphere) or L2A.'
        )
    listed = sensors.SENTINEL1_GRD + LEVELS.get(str(level), ())
    known = {band.name: band for band in listed}
    nan = float('nan')
    return tuple(
        known.get(name, Band(name, 'unknown', None, nan, nan, nan)) for name in names
    )


def padded(name: str) -> str:
    """Write a Sentinel-2 band with two digits: B1 to B01."""
    return re.sub(r'^B(\d)$', r'B0\1', name)


def lookup(names: Sequence[str], *known: Sequence[Band]) -> tuple[Band, ...]:
    """Return the bands of these names, each from the first sensor that has it."""
    by_name = {band.name: band for sensor in reversed(known) for band in sensor}
    return tuple(by_name[padded(name)] for name in names)


def tiles_in(texts: Iterable[str]) -> Names | None:
    """Return the MGRS tiles in names of Sentinel-2 images, such as ``_T33UUP``.

    They are (texts, K), sorted and padded with ''; None if no text has one.
    """
    found = [sorted(set(_TILE.findall(text))) for text in texts]
    most = max(map(len, found), default=0)
    if not most:
        return None
    return np.array([[*tiles, *[''] * (most - len(tiles))] for tiles in found])
