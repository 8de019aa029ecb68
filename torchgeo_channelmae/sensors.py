"""Bands: name, sensor, wavelength, resolution and pixel statistics.

A sensor is a tuple of bands. All other modules look bands up here, by name.

Sources:

* Sentinel-2 central wavelengths: ESA, *Sentinel-2 Spectral Response Functions*
  (COPE-GSEG-EOPG-TN-15-0007), spacecraft 2A; resolutions: *Sentinel-2 User Handbook*.
* L2A and Sentinel-1 statistics: the official training split of BigEarthNet v2 after
  bilinear resampling to 120 px, as published with BigEarthNet's own training code
  (reBEN, https://arxiv.org/abs/2407.03653). L2A in digital numbers of surface
  reflectance x 10,000, Sentinel-1 in decibels.
* L1C statistics: SSL4EO-S12 (https://arxiv.org/abs/2211.07044), digital numbers of
  top-of-atmosphere reflectance x 10,000, as TorchGeo's own ``SENTINEL2_ALL`` weights
  use them.
* Sentinel-1 GRD pixel spacing: *Sentinel-1 Product Specification* (IW GRDH, 10 m).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """One spectral band or radar channel.

    Attributes:
        name: Name as the sensor's operator writes it, e.g. ``B8A`` or ``VV``.
        sensor: Name of the sensor and product level.
        wavelength: Central wavelength in nm, or None if the bands of the sensor do not
            differ in it (radar channels differ in polarisation).
        resolution: Native pixel spacing in m.
        mean: Mean pixel value in the product's own unit.
        std: Standard deviation of the pixel values in the same unit.
    """

    name: str
    sensor: str
    wavelength: float | None
    resolution: float
    mean: float
    std: float


Sensor = tuple[Band, ...]

_S2_OPTICS = {  # name: (central wavelength in nm, resolution in m)
    'B01': (442.7, 60),
    'B02': (492.7, 10),
    'B03': (559.8, 10),
    'B04': (664.6, 10),
    'B05': (704.1, 20),
    'B06': (740.5, 20),
    'B07': (782.8, 20),
    'B08': (832.8, 10),
    'B8A': (864.7, 20),
    'B09': (945.1, 60),
    'B10': (1373.5, 60),
    'B11': (1613.7, 20),
    'B12': (2202.4, 20),
}


def _sentinel2(sensor: str, statistics: dict[str, tuple[float, float]]) -> Sensor:
    return tuple(
        Band(name, sensor, *_S2_OPTICS[name], mean, std)
        for name, (mean, std) in statistics.items()
    )


SENTINEL2_L2A: Sensor = _sentinel2(
    'Sentinel-2 L2A',
    {
        'B01': (360.65, 563.17),
        'B02': (438.37, 607.03),
        'B03': (614.06, 603.30),
        'B04': (588.41, 684.57),
        'B05': (942.75, 727.58),
        'B06': (1769.85, 1087.43),
        'B07': (2049.48, 1261.43),
        'B08': (2193.29, 1369.37),
        'B8A': (2235.49, 1342.49),
        'B09': (2241.11, 1294.36),
        'B11': (1568.21, 1063.92),
        'B12': (997.72, 806.88),
    },
)
"""The 12 bands of Sentinel-2 surface reflectance, by wavelength."""

SENTINEL2_L1C: Sensor = _sentinel2(
    'Sentinel-2 L1C',
    {
        'B01': (1612.9, 791.0),
        'B02': (1397.6, 854.3),
        'B03': (1322.3, 878.7),
        'B04': (1373.1, 1144.9),
        'B05': (1561.0, 1127.5),
        'B06': (2108.4, 1164.2),
        'B07': (2390.7, 1276.0),
        'B08': (2318.7, 1249.5),
        'B8A': (2581.0, 1345.9),
        'B09': (837.7, 577.5),
        'B10': (22.0, 47.5),
        'B11': (2195.2, 1340.0),
        'B12': (1537.4, 1142.9),
    },
)
"""The 13 bands of Sentinel-2 top-of-atmosphere reflectance, by wavelength."""

RGB: Sensor = tuple(
    next(band for band in SENTINEL2_L2A if band.name == name)
    for name in ('B04', 'B03', 'B02')
)
"""Red, green and blue of Sentinel-2 L2A, in the order in which a screen shows them."""

SENTINEL1_GRD: Sensor = (
    Band('VV', 'Sentinel-1 GRD', None, 10, -12.644, 5.133),
    Band('VH', 'Sentinel-1 GRD', None, 10, -19.353, 5.591),
)
"""Sentinel-1 backscatter in decibels, co-polarised first."""

SENSORS: dict[str, Sensor] = {
    'sentinel2_l2a': SENTINEL2_L2A,
    'sentinel2_l1c': SENTINEL2_L1C,
    'rgb': RGB,
    'sentinel1_grd': SENTINEL1_GRD,
}


def names(bands: Iterable[Band]) -> tuple[str, ...]:
    """Return the names of the bands, in order."""
    return tuple(band.name for band in bands)


def default_names(in_chans: int) -> tuple[str, ...]:
    """Return the default band names for a number of channels.

    12 is Sentinel-2 L2A, 13 Sentinel-2 L1C, 3 RGB (B04, B03, B02) and 2 Sentinel-1
    (VV, VH). Other numbers raise a ValueError.
    """
    for sensor in SENSORS.values():
        if len(sensor) == in_chans:
            return names(sensor)
    counts = ', '.join(f'{len(sensor)} ({name})' for name, sensor in SENSORS.items())
    raise ValueError(
        f'No default band names for {in_chans} channels (only for {counts}). Name '
        f'them with bands=[...] or, where a task takes no names, in a variant '
        f'(register_variant of torchgeo_channelmae.models).'
    )


def select(requested: Sequence[str], available: Sequence[Band]) -> Sensor:
    """Select bands by name, in the requested order.

    Raises a ValueError if a name is unknown or repeated, or none is given.
    """
    by_name = {band.name: band for band in available}
    check_names(requested)
    for name in requested:
        if name not in by_name:
            near = [known for known in by_name if known.lower() == name.lower()]
            hint = f', did you mean {near[0]!r}' if near else ''
            raise ValueError(
                f'Unknown band {name!r}{hint}. Choose from {", ".join(by_name)}.'
            )
    return tuple(by_name[name] for name in requested)


def check_names(requested: Sequence[str]) -> None:
    """Raise a ValueError if band names cannot be names of parameters.

    They must be a list of at least one; none repeated, empty or with a dot.
    """
    if not requested:
        raise ValueError('bands is empty. Name at least one band.')
    if isinstance(requested, str):
        raise ValueError(f'bands is {requested!r}. Give a list, such as [{requested}].')
    for position, name in enumerate(requested):
        if not name or '.' in name:
            raise ValueError(f'Band name {name!r} is empty or contains a dot.')
        if name in requested[:position]:
            raise ValueError(
                f'Band {name!r} is repeated in bands. Name each band once.'
            )


def find(name: str) -> Band | None:
    """Return the band of that name, or None if it is unknown.

    Sentinel-2 L2A comes before L1C; the two share wavelengths.
    """
    known = (band for sensor in SENSORS.values() for band in sensor)
    return next((band for band in known if band.name == name), None)


def wavelength(name: str) -> float | None:
    """Return the central wavelength of a band in nm; None if it has none."""
    band = find(name)
    return None if band is None else band.wavelength
