"""Datasets of single patches: a file or a record a sample."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torchgeo.datasets as tg
from torch import Tensor

from ... import sensors
from ...sensors import Band
from .places import centres
from .source import LEVELS, Names, Rows, Source, lookup, stems

_S1 = sensors.SENTINEL1_GRD
_L1C, _L2A = LEVELS['L1C'], LEVELS['L2A']


class EuroSAT(Source):
    """``EuroSAT``: L1C with B8A behind B12."""

    nodata = 0

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """Bands are in the order asked for."""
        return lookup(self.dataset.bands, _L1C)

    @override
    def names(self, rows: Rows) -> Names:
        """Return the names of the files."""
        return stems(self._paths(rows))

    @override
    def coordinates(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Read the files' georeference."""
        return centres(self._paths(rows))

    def _paths(self, rows: Rows) -> list[str]:
        return [self.dataset.imgs[row][0] for row in rows]


class So2Sat(Source):
    """``So2Sat``: ten L1C bands as reflectance of 0 to 1, behind eight of radar.

    The radar channels (real and imaginary parts, filtered intensities, covariances)
    keep their names ``S1_B1`` to ``S1_B8``, and need statistics of their own.
    """

    @classmethod
    @override
    def arguments(cls, bands: Sequence[str] | None) -> dict[str, Any]:
        """Only the sensors wanted are read."""
        if bands is None:
            return {'bands': list(tg.So2Sat.all_s2_band_names)}
        known = tg.So2Sat.all_band_names
        names = [band if band in known else f'S2_{band}' for band in bands]
        return {'bands': names} if set(names) <= set(known) else {}

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """Sentinel-1 first, whatever order was asked for."""
        unknown = float('nan')
        radar = tuple(
            Band(name, 'Sentinel-1 SLC', None, 10, unknown, unknown)
            for name in self.dataset.s1_band_names
        )
        optical = [name.removeprefix('S2_') for name in self.dataset.s2_band_names]
        return radar + lookup(optical, _L1C)

    @override
    def image(self, sample: Mapping[str, Any]) -> Tensor:
        """Return digital numbers, reflectance x 10,000, as the other datasets have."""
        image = super().image(sample).clone()
        image[len(self.dataset.s1_band_names) :] *= 10_000
        return image


class SEN12MS(Source):
    """``SEN12MS``: L1C; patches of a scene overlap by half, scenes lie apart."""

    nodata = 0
    scenes_are_places = True

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """Bands are in the order asked for."""
        return lookup(self.dataset.bands, _S1, _L1C)

    @override
    def names(self, rows: Rows) -> Names:
        """Return the names of the patches, less the part that names a source."""
        return np.array(['_'.join(self._parts(row)) for row in rows])

    @override
    def scenes(self, rows: Rows) -> Names:
        """Return region, season and scene."""
        return np.array(['_'.join(self._parts(row)[:3]) for row in rows])

    @override
    def coordinates(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Read the files' georeference."""
        paths = []
        for row in rows:
            region, season, scene, patch = self._parts(row)
            name = f'{region}_{season}_s2_{scene}_{patch}.tif'
            folder = Path(self.dataset.root, f'{region}_{season}', f's2_{scene}')
            paths.append(folder / name)
        return centres(paths)

    def _parts(self, row: int) -> list[str]:
        region, season, _, *rest = Path(self.dataset.ids[row]).stem.split('_')
        return [region, season, *rest]


class S2100k(Source):
    """``S2100k``: L2A, with the coordinates of each patch in a table."""

    nodata = 0
    places_at_hand = True

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """All 12, by wavelength."""
        return _L2A

    @override
    def names(self, rows: Rows) -> Names:
        """Return the names of the files."""
        return stems(self.dataset.index['fn'].iloc[rows].tolist())

    @override
    def coordinates(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Return the table's coordinates."""
        places = self.dataset.index[['lon', 'lat']].iloc[rows]
        return places.to_numpy(dtype=np.float64)
