"""Datasets of locations with several dates each."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torchgeo.datasets as tg
from torch import Tensor

from ... import sensors
from ...sensors import Band
from .places import centres
from .source import LEVELS, Names, Rows, Source, lookup, tiles_in

_S1 = sensors.SENTINEL1_GRD
_L1C, _L2A = LEVELS['L1C'], LEVELS['L2A']
_SECO_BANDS = tg.SeasonalContrastS2.all_bands


class _Seasons(Source):
    """Locations with several dates each, of which the dataset draws one or more."""

    draws = True
    nodata = 0

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """Check that a sample is one season."""
        if self.dataset.seasons != 1:
            raise ValueError(
                f'seasons of {self.name} is {self.dataset.seasons}: leave it at 1, as '
                f'each visit of a location draws a season of its own.'
            )
        return self.bands_of_season()

    def bands_of_season(self) -> tuple[Band, ...]:
        """Return what each channel of a season is."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """The folder with one folder a location."""
        raise NotImplementedError

    @override
    def rows(self) -> Rows:
        """Return the locations on disk: the dataset's length is that of the whole."""
        found = sorted(int(name) for name in os.listdir(self.folder) if name.isdigit())
        return np.array(
            [row for row in found if row < len(self.dataset)], dtype=np.int64
        )

    @override
    def names(self, rows: Rows) -> Names:
        """Return the names of the locations' folders."""
        return np.array([self.location(row).name for row in rows])

    @override
    def tiles(self, rows: Rows) -> Names | None:
        """Return the tiles in the names of the Sentinel-2 images, of all seasons."""
        with ThreadPoolExecutor(16) as pool:
            return tiles_in(pool.map(self._images, rows.tolist()))

    @override
    def coordinates(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Read the georeference of a file a location."""
        return centres(
            [next(iter(sorted(self.location(row).glob('*/*.tif')))) for row in rows]
        )

    def location(self, row: int) -> Path:
        """Return the folder of a location."""
        raise NotImplementedError

    def _images(self, row: int) -> str:
        return ' '.join(sorted(os.listdir(self.location(row))))


class AnySSL4EOS12(tg.SSL4EOS12):
    """``SSL4EOS12`` that takes a part of the locations for the data, as any part is."""

    @override
    def _verify(self) -> None:
        """Ask for one location, where TorchGeo asks for one of the first hundred."""
        folder = Path(self.root, self.split)
        if folder.is_dir() and any(name.isdigit() for name in os.listdir(folder)):
            return
        super()._verify()


class SSL4EOS12(_Seasons):
    """``SSL4EOS12``: a product a split; bands are named B1 rather than B01."""

    @classmethod
    @override
    def dataset_class(cls, kind: type) -> type:
        """Accept parts of the whole."""
        return AnySSL4EOS12 if kind is tg.SSL4EOS12 else kind

    @property
    @override
    def name(self) -> str:
        """TorchGeo's name."""
        return 'SSL4EOS12'

    @override
    def bands_of_season(self) -> tuple[Band, ...]:
        """Bands are in the order of the split."""
        level = {'s1': _S1, 's2c': _L1C, 's2a': _L2A}[self.dataset.split]
        return lookup(self.dataset.bands, level)

    @property
    @override
    def folder(self) -> Path:
        """The folder of the split."""
        return Path(self.dataset.root, self.dataset.split)

    @override
    def location(self, row: int) -> Path:
        """Return the folder of a location."""
        return self.folder / f'{row:07}'


class SeasonalContrast(_Seasons):
    """``SeasonalContrastS2``: L2A as bytes, 255 for reflectance 1; RGB by default."""

    @classmethod
    @override
    def arguments(cls, bands: Sequence[str] | None) -> dict[str, Any]:
        """Only the bands wanted are read."""
        known = {sensors.names(_L2A)[i]: name for i, name in enumerate(_SECO_BANDS)}
        wanted = known if bands is None else [band for band in bands if band in known]
        return {'bands': [known[band] for band in wanted]}

    @override
    def bands_of_season(self) -> tuple[Band, ...]:
        """Bands are in the order asked for."""
        return lookup(self.dataset.bands, _L2A)

    @override
    def image(self, sample: Mapping[str, Any]) -> Tensor:
        """Return digital numbers, reflectance x 10,000, as the other datasets have."""
        return super().image(sample) * (10_000 / 255)

    @property
    @override
    def folder(self) -> Path:
        """The folder of the version."""
        directory = self.dataset.metadata[self.dataset.version]['directory']
        return Path(self.dataset.root, directory)

    @override
    def location(self, row: int) -> Path:
        """Return the folder of a location."""
        return self.folder / f'{row:06}'
