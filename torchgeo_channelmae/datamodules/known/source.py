"""What a dataset has: channels, names and places, which its samples don't tell."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ... import sensors
from ...randomness import derive_seed
from ...sensors import Band
from ..statistics import missing_pixels

Coordinates = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]
Rows = npt.NDArray[np.int64]

_TILE = re.compile(r'_T(\d{2}[A-Z]{3})(?![A-Za-z0-9])')

LEVELS = {'L1C': sensors.SENTINEL2_L1C, 'L2A': sensors.SENTINEL2_L2A}


class Source:
    """A dataset with what is known of it.

    This class takes a user's word for it; each dataset that is known has a subclass.
    Places (names, scenes, tiles, coordinates) are looked up only when they are asked
    for, since that may take a while; None is unknown.

    Attributes:
        dataset: The dataset.
        bands: What each channel is, in order.
        key: Key of the image in a sample.
        nodata: Pixel value that stands for no data where all bands have it.
        draws: Whether the dataset itself draws which season to return, out of a folder
            in the order in which the file system lists it.
        places_at_hand: Whether coordinates come without opening every file.
        scenes_are_places: Whether scenes lie apart; not where several dates of one
            place are scenes.
    """

    key: str = 'image'
    nodata: float | None = None
    draws: bool = False
    places_at_hand: bool = False
    scenes_are_places: bool = False

    def __init__(
        self,
        dataset: Any,
        level: str | None = None,
        key: str = 'image',
        bands: Sequence[str] | None = None,
        nodata: float | None = None,
    ) -> None:
        """Initialise the source.

        Args:
            dataset: A dataset, built.
            level: Product level of its Sentinel-2 bands.
            key: Key of the image in a sample.
            bands: Names of its channels, in order.
            nodata: Pixel value that stands for no data.

        Raises:
            ValueError: If its bands are not known, or are of another level.
        """
        self.dataset = dataset
        self.level = level
        self._found: tuple[Rows, Coordinates | None] | None = None
        if bands is not None:
            self.key = key
            self.bands = described_bands(bands, level)
        else:
            self.bands = self.find_bands()
            self._check_level(level)
        if nodata is not None:
            self.nodata = nodata
        sensors.check_names(sensors.names(self.bands))

    @property
    def name(self) -> str:
        """Name of the dataset's class."""
        return type(self.dataset).__name__

    @classmethod
    def dataset_class(cls, kind: type) -> type:
        """Return the class to build for a class of datasets."""
        return kind

    @classmethod
    def arguments(cls, bands: Sequence[str] | None) -> dict[str, Any]:
        """Return arguments that make the dataset read bands, if it has to be told.

        Args:
            bands: Names of bands; None is all.
        """
        return {}

    def find_bands(self) -> tuple[Band, ...]:
        """Return what each channel is.

        Raises:
            ValueError: If that is not known.
        """
        raise ValueError(
            f'The bands of {self.name} are not known: name its channels, in the order '
            f'of the file, in dataset_bands (and the key of its image in image_key).'
        )

    def rows(self) -> Rows:
        """Return the indices of the samples that are there."""
        return np.arange(len(self.dataset))

    def sample(self, row: int, *address: int | str) -> dict[str, Any]:
        """Return a sample of the dataset.

        Args:
            row: Its index.
            address: What a dataset that draws draws from.
        """
        if not self.draws:
            sample: dict[str, Any] = self.dataset[row]
            return sample
        state = random.getstate()
        random.seed(derive_seed(*address, row))
        try:
            return self.dataset[row]  # type: ignore[no-any-return]
        finally:
            random.setstate(state)

    def image(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the channels of a sample, (C, height, width), in physical units.

        Raises:
            ValueError: If the sample has no such image.
        """
        if self.key not in sample:
            raise ValueError(
                f"Samples of {self.name} have no {self.key!r}: give the image's key "
                f'in image_key, one of {", ".join(sample)}.'
            )
        image: Tensor = sample[self.key]
        if image.ndim != 3 or len(image) != len(self.bands):
            raise ValueError(
                f'{self.key!r} of {self.name} has the shape {tuple(image.shape)}, not '
                f'the {len(self.bands)} channels {", ".join(sensors.names(self.bands))}'
                f' x height x width: name its channels in dataset_bands.'
            )
        return image

    def missing(self, image: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Tell which pixels have no data.

        Bands of one resolution are looked at together: one of them alone may be 0, and
        at the edge of the data, bands of coarser pixels end elsewhere.

        Args:
            image: All channels, (C, height, width).

        Returns:
            (C, height, width), True where a pixel is NaN or infinite, or all bands of
            its sensor and resolution have the value ``nodata``.
        """
        found = np.zeros(image.shape, dtype=bool)
        kinds = [f'{band.sensor} {band.resolution:g} m' for band in self.bands]
        for kind in sorted(set(kinds)):
            channels = [number for number, each in enumerate(kinds) if each == kind]
            found[channels] = missing_pixels(image[channels], self.nodata)
        return found

    def names(self, rows: Rows) -> Names | None:
        """Return the name of each sample."""
        return None

    def scenes(self, rows: Rows) -> Names | None:
        """Return the scene that each sample was cut from."""
        return None

    def tiles(self, rows: Rows) -> Names | None:
        """Return the MGRS tiles in the names of each sample's images.

        Returns:
            (rows, K), filled up with ''; None if no name has one.
        """
        return None

    def coordinates(self, rows: Rows) -> Coordinates | None:
        """Return longitude and latitude of each sample's centre, (rows, 2) degrees."""
        return None

    def places(self, rows: Rows) -> Coordinates | None:
        """Return the coordinates, looked up once for rows and parts of them."""
        if self._found is None or not np.isin(rows, self._found[0]).all():
            self._found = np.sort(rows), self.coordinates(np.sort(rows))
        known, places = self._found
        return None if places is None else places[np.searchsorted(known, rows)]

    @property
    def places_read(self) -> bool:
        """Whether coordinates have been looked up, or come without opening files."""
        return self.places_at_hand or self._found is not None

    def patches(self, rows: Rows) -> npt.NDArray[np.bytes_] | None:
        """Return the BigEarthNet v1 name of each sample."""
        return None

    def _check_level(self, level: str | None) -> None:
        has = {band.sensor for band in self.bands if 'Sentinel-2' in band.sensor}
        if level is not None and has and has != {f'Sentinel-2 {level}'}:
            raise ValueError(
                f'level is {level!r}, but the bands of {self.name} are '
                f'{", ".join(sorted(has))}: leave level out.'
            )


def described_bands(names: Sequence[str], level: str | None) -> tuple[Band, ...]:
    """Look up bands that a user names.

    Args:
        names: Names of bands. Unknown names are bands without statistics.
        level: Product level of Sentinel-2 bands among them.

    Returns:
        A band each.

    Raises:
        ValueError: If a Sentinel-2 band is named but no level.
    """
    known = {band.name: band for band in sensors.SENTINEL1_GRD}
    if level is not None:
        known |= {band.name: band for band in LEVELS[level]}
    else:
        optical = [name for name in names if name in sensors.names(LEVELS['L1C'])]
        if optical:
            raise ValueError(
                f'dataset_bands has Sentinel-2 band {optical[0]}, of which product '
                f'level is not said: give level L1C (top of atmosphere) or L2A.'
            )
    unknown = float('nan')
    return tuple(
        known.get(name, Band(name, 'unknown', None, unknown, unknown, unknown))
        for name in names
    )


def padded(name: str) -> str:
    """Write a Sentinel-2 band with two digits: B1 to B01."""
    if len(name) == 2 and name[0] == 'B' and name[1].isdigit():
        return f'B0{name[1]}'
    return name


def lookup(names: Sequence[str], *known: Sequence[Band]) -> tuple[Band, ...]:
    """Return the bands of these names, from the first sensor that has each."""
    by_name = {band.name: band for sensor in reversed(known) for band in sensor}
    return tuple(by_name[padded(name)] for name in names)


def stems(paths: Sequence[str | Path]) -> Names:
    """Return the names of files without folder and suffix."""
    return np.array([Path(path).stem for path in paths], dtype=np.str_)


def tiles_in(texts: Iterable[str]) -> Names | None:
    """Return the MGRS tiles in each text.

    Args:
        texts: Names of Sentinel-2 images, each with a part such as ``_T33UUP``.

    Returns:
        (texts, K) tiles, each row sorted, once each and filled up with ''; None if no
        text has one.
    """
    found = [sorted(set(_TILE.findall(text))) for text in texts]
    most = max(map(len, found), default=0)
    if not most:
        return None
    return np.array([[*tiles, *[''] * (most - len(tiles))] for tiles in found])
