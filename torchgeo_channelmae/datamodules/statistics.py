"""Streaming statistics of bands, and the YAML file that datamodules read."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ..files import whole

RELATIVE_ERROR = 0.001
"""A percentile differs from the exact one by at most this share of its value."""

PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)


@dataclass
class BandStatistics:
    """Running statistics of one band.

    Attributes:
        count: Number of pixels with data.
        mean: Their mean.
        squares: Sum of their squared deviations from the mean.
        counts: Number of pixels per value, rounded to 10 bits of mantissa.
        nodata: Number of pixels without data.
        minimum: Smallest pixel.
        maximum: Largest pixel.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    counts: Counter[float] = field(default_factory=Counter)
    nodata: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf

    def update(self, pixels: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> None:
        """Add the pixels of one image, (height, width), with their mask.

        Moments are merged as by Chan, Golub and LeVeque
        (https://doi.org/10.2307/2683386).
        """
        values = pixels[~missing].astype(np.float64)
        self.nodata += int(missing.sum())
        if not values.size:
            return
        mean = float(values.mean())
        total, delta = self.count + values.size, mean - self.mean
        self.squares += float(np.square(values - mean).sum())
        self.squares += delta**2 * self.count * values.size / total
        self.mean += delta * values.size / total
        self.count = total
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))
        mantissa, exponent = np.frexp(values)
        rounded = np.ldexp(np.rint(mantissa * 1024) / 1024, exponent)
        kinds, counts = np.unique(rounded, return_counts=True)
        self.counts.update(dict(zip(kinds.tolist(), counts.tolist(), strict=True)))

    @property
    def std(self) -> float:
        """Standard deviation of the population, 0 without pixels."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Return percentiles (0 to 100), as numpy's method ``inverted_cdf``."""
        values = sorted(self.counts)
        ranks = np.cumsum([self.counts[value] for value in values])
        wanted = np.maximum(np.ceil(np.array(percents) / 100 * self.count), 1)
        found = np.array(values)[np.searchsorted(ranks, wanted)]
        return found.clip(self.minimum, self.maximum).tolist()

    def summary(self) -> dict[str, Any]:
        """Return the entry of the band in the file."""
        percentiles = map(_short, self.percentiles(PERCENTILES))
        return {
            'mean': _short(self.mean),
            'std': _short(self.std),
            'min': _short(self.minimum),
            'max': _short(self.maximum),
            'percentiles': dict(zip(PERCENTILES, percentiles, strict=True)),
            'pixels': self.count,
            'pixels_without_data': self.nodata,
        }


def missing_pixels(
    image: npt.NDArray[Any], nodata: float | None
) -> npt.NDArray[np.bool_]:
    """Return which pixels are NaN, infinite or without data, (C, height, width).

    Args:
        image: (C, height, width) of any type.
        nodata: Value that means no data if all bands have it (0 in one of several is a
            valid reflectance); None for none.
    """
    missing: npt.NDArray[np.bool_] = ~np.isfinite(image)
    if nodata is not None:
        missing |= (image == nodata).all(axis=0)
    return missing


def write_statistics(
    path: Path, statistics: Mapping[str, BandStatistics], about: Mapping[str, Any]
) -> None:
    """Write statistics as YAML that :func:`read_statistics` reads.

    Args:
        path: The file.
        statistics: Statistics by band name, each with data.
        about: Other facts to note, such as the dataset.
    """
    empty = [name for name, band in statistics.items() if not band.count]
    if empty:
        raise ValueError(
            f'Band {empty[0]} has no pixel with data. Check the nodata value and the '
            f'names of the bands.'
        )
    content = {
        **about,
        'percentile_error': f'{RELATIVE_ERROR:.1%} of the value',
        'bands': {name: band.summary() for name, band in statistics.items()},
    }
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    with whole(path) as partial:
        partial.write_text('# For `statistics:` of a datamodule.\n' + text)


def read_statistics(
    path: str | Path, bands: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return the (mean, std) of bands by name.

    Args:
        path: A file of :func:`write_statistics`, or with the same ``bands: {NAME:
            {mean: ..., std: ...}}``.
        bands: Names of the bands.

    Raises:
        ValueError: If a band is missing or its values cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no statistics file {path}. Write it with `channelmae stats`.'
        )
    content = yaml.safe_load(path.read_text())
    found = {}
    for band in bands:
        try:
            entry = content['bands'][band]
            mean, std = float(entry['mean']), float(entry['std'])
        except (KeyError, TypeError, ValueError):
            mean = std = math.nan
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(
                f'Statistics file {path} has no usable mean and std of band {band!r}. '
                f'Write it with `channelmae stats`.'
            )
        found[band] = mean, std
    return found


def _short(value: float) -> float:
    """Round to seven digits, more than float32 has."""
    return float(f'{value:.7g}')
