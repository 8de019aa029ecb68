"""What the published weights of TorchGeo were trained on: ``published.yaml``."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import yaml
from torchvision.models import WeightsEnum

from .. import sensors


@dataclass(frozen=True)
class Seen:
    """What weights were trained on.

    Attributes:
        dataset: Names of the datasets.
        sensors: Names of the sensors, with product level where known.
        bands: Names of the bands, in the order of the input where that is fixed.
        source: Paper or code that says so.
        supervised: Whether labels of the images were learned; None is unknown.
        labels_steered: Whether labels decided which images there are; None is unknown.
    """

    dataset: str
    sensors: tuple[str, ...]
    bands: tuple[str, ...]
    source: str
    supervised: bool | None
    labels_steered: bool | None


def _read(path: Path) -> dict[str, Seen]:
    rows = yaml.safe_load(path.read_text(encoding='utf-8'))['weights']
    names = ('sensors', 'bands')
    return {
        pattern: Seen(**row | {name: tuple(row[name]) for name in names})
        for pattern, row in rows.items()
    }


SEEN = _read(Path(__file__).with_name('published.yaml'))
"""What weights have read, by patterns of their names."""


def input_bands(weights: WeightsEnum) -> tuple[str, ...] | None:
    """Return the bands of published weights, in order, by the names of this package.

    Bands of a satellite that this package does not know begin with its name, so that
    none is mistaken for another. None if the weights are not listed.
    """
    seen = seen_by(weights)
    if seen is None:
        return None
    if seen.bands == ('red', 'green', 'blue'):
        return sensors.names(sensors.RGB)
    ours = any(name.startswith('Sentinel-') for name in seen.sensors)
    return seen.bands if ours else tuple(f'{seen.sensors[0]} {b}' for b in seen.bands)


def seen_by(weights: WeightsEnum) -> Seen | None:
    """Return what published weights have read; None if they are not listed."""
    name = str(weights)
    return next((seen for key, seen in SEEN.items() if fnmatch(name, key)), None)
