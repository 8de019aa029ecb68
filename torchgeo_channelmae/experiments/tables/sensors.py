"""The sensors of a table: overlays of bands, by name."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from ...models.registry import did_you_mean
from ...sensors import find

DEFAULT = ('s2', 'rgb', 's1')

_TITLES = {
    's1': 'Sentinel-1',
    's2': 'Sentinel-2',
    'rgb': 'RGB',
    'vnir': 'Sentinel-2 VNIR',
    'swir': 'Sentinel-2 SWIR',
    's1s2': 'Sentinel-1 and -2',
}


def title_of(sensor: str) -> str:
    """What a reader sees for a sensor, whatever its case."""
    return _TITLES.get(sensor.lower(), sensor.lower())


def bands_of(sensor: str, overlays: Path) -> tuple[str, ...]:
    """Names of a sensor's bands.

    Args:
        sensor: Name of an overlay in the folder ``bands``.
        overlays: The folder that has it.

    Raises:
        ValueError: If there is no such overlay, or it names no bands.
    """
    folder = overlays / 'bands'
    path = folder / f'{sensor}.yaml'
    if not path.is_file() or sensor != sensor.lower():  # names of targets are capitals
        known = sorted(each.stem for each in folder.glob('*.yaml'))
        hint = did_you_mean(sensor.lower(), known, 0.4)
        raise ValueError(
            f'There is no sensor {sensor!r}{hint}: the overlays in {folder} are '
            f'{", ".join(known)}; add one, named in small letters, for bands of your '
            f'own.'
        )
    values = yaml.safe_load(path.read_text())
    try:
        bands = values['data']['init_args']['bands']
    except (KeyError, TypeError):
        bands = None
    if not isinstance(bands, list) or not bands:
        raise ValueError(f'{path} names no bands: give data.init_args.bands.')
    return tuple(map(str, bands))


def check_sensors(sensors: Sequence[str], overlays: Path) -> None:
    """Check that sensors are known, and each is named once.

    Args:
        sensors: Names of overlays.
        overlays: The folder that has the folder ``bands``.

    Raises:
        ValueError: If one is not, or there is none.
    """
    if not sensors:
        raise ValueError('No sensor is named: give one or more with --sensors.')
    for number, sensor in enumerate(sensors):
        if sensor in sensors[:number]:
            raise ValueError(f'Sensor {sensor!r} is named twice: name each once.')
        bands_of(sensor, overlays)


def has_radar(sensor: str, overlays: Path) -> bool:
    """Whether a sensor has a band without a wavelength, which optical data lack."""
    found = [find(band) for band in bands_of(sensor, overlays)]
    return any(band is not None and band.wavelength is None for band in found)
