"""How BigEarthNet stores the pixels of a band: their size, types and unit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import sensors


@dataclass(frozen=True)
class Stored:
    """What the pixels of a band have to be.

    Attributes:
        side: Height and width.
        dtypes: Types, the published one first.
        unit: What a number means.
    """

    side: int
    dtypes: tuple[np.dtype[Any], ...]
    unit: str

    def fault(self, pixels: npt.NDArray[Any]) -> str | None:
        """Say in half a sentence what is wrong with pixels (h, w), None if nothing."""
        if pixels.shape == (self.side, self.side) and pixels.dtype in self.dtypes:
            return None
        height, width = pixels.shape
        expected = ' or '.join(dtype.name for dtype in self.dtypes)
        return (
            f'is {height} x {width} {pixels.dtype}, expected {self.side} x {self.side} '
            f'{expected} ({self.unit})'
        )


_COUNTS = (np.dtype('u2'), np.dtype('i2'))

S2 = {
    band.name: Stored(round(1200 / band.resolution), _COUNTS, 'digital numbers')
    for band in sensors.SENTINEL2_L2A
}
S1 = {
    band.name: Stored(120, (np.dtype('f4'),), 'decibels')
    for band in sensors.SENTINEL1_GRD
}
BANDS = S1 | S2
"""Name of a band: how the archives store it, and an LMDB of them."""

REFERENCE_MAP = Stored(120, (*_COUNTS, np.dtype('i4')), 'CORINE codes')

RESAMPLED = {
    **{band: Stored(120, (*_COUNTS, np.dtype('i4')), S2[band].unit) for band in S2},
    **{
        band: Stored(120, (np.dtype('f4'), np.dtype('f8')), S1[band].unit)
        for band in S1
    },
}
"""The same for Copernicus-Bench, which has every band on the grid of 10 m."""
