"""Streaming statistics of bands, and the YAML file that datamodules read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml

RELATIVE_ERROR = 0.001
"""A percentile is at most this share of its value away from the exact one."""

PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)

_SMALLEST, _LARGEST = 1e-9, 1e9  # |values| that the sketch tells apart
_LOG_BASE = math.log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_FIRST = math.ceil(math.log(_SMALLEST) / _LOG_BASE)
_BUCKETS = math.ceil(math.log(_LARGEST) / _LOG_BASE) - _FIRST + 1

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of values.

    Attributes:
        count: Number of values.
        mean: Their mean, 0 for none.
        squares: Sum of their squared deviations from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Values) -> Self:
        """Return the moments of values, in two passes."""
        if not values.size:
            return cls()
        mean = float(values.mean())
        return cls(values.size, mean, float(np.square(values - mean).sum()))

    def __add__(self, other: 'Moments') -> 'Moments':
        """Return the moments of both sets of values taken together.

        The update of Chan, Golub and LeVeque (https://doi.org/10.2307/2683386).
        """
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * other.count / count,
            self.squares + other.squares + delta**2 * self.count * other.count / count,
        )

    @property
    def std(self) -> float:
        """Standard deviation (of the population), 0 for no values."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


class Sketch:
    """Percentiles in bounded memory.

    Values are counted in buckets that grow by a constant factor, so that each is
    known to within :data:`RELATIVE_ERROR` of itself (DDSketch,
    https://doi.org/10.14778/3352063.3352135). Magnitudes below 1e-9 count as 0,
    those above 1e9 as 1e9. About 166 kB a sign and band.
    """

    def __init__(self) -> None:
        """Initialise an empty sketch."""
        self.negative = np.zeros(_BUCKETS, dtype=np.int64)
        self.zeros = 0
        self.positive = np.zeros(_BUCKETS, dtype=np.int64)

    def update(self, values: Values) -> None:
        """Count finite values."""
        size = np.abs(values)
        self.zeros += int((size < _SMALLEST).sum())
        for counts, chosen in (
            (self.positive, values >= _SMALLEST),
            (self.negative, values <= -_SMALLEST),
        ):
            if chosen.any():
                bucket = np.ceil(np.log(size[chosen]) / _LOG_BASE).astype(np.int64)
                bucket = np.clip(bucket - _FIRST, 0, _BUCKETS - 1)
                counts += np.bincount(bucket, minlength=_BUCKETS)

    def percentile(self, percent: float) -> float:
        """Return a percentile, to within :data:`RELATIVE_ERROR` of its value.

        It is the value of rank ``ceil(percent / 100 * count)`` in sorted order
        (numpy's method ``inverted_cdf``).

        Args:
            percent: From 0 to 100.

        Returns:
            The percentile; NaN if nothing was counted.
        """
        counts = np.concatenate([self.negative[::-1], [self.zeros], self.positive])
        total = counts.cumsum()
        if not total[-1]:
            return math.nan
        rank = max(math.ceil(percent / 100 * int(total[-1])), 1)
        bucket = int(np.searchsorted(total, rank)) - _BUCKETS
        if not bucket:
            return 0.0
        exponent = abs(bucket) - 1 + _FIRST
        middle = 2 * math.exp(exponent * _LOG_BASE) / (1 + math.exp(_LOG_BASE))
        return math.copysign(middle, bucket)


@dataclass
class BandStatistics:
    """What is known of one band after some images.

    Attributes:
        moments: Count, mean and deviations of the pixels with data.
        sketch: Their percentiles.
        nodata: Number of pixels without data.
        minimum: Smallest pixel.
        maximum: Largest pixel.
    """

    moments: Moments = field(default_factory=Moments)
    sketch: Sketch = field(default_factory=Sketch)
    nodata: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf

    def update(self, pixels: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> None:
        """Add the pixels of one image.

        Args:
            pixels: (height, width) of any type.
            missing: (height, width), True where there is no data.
        """
        values = pixels[~missing].astype(np.float64)
        self.nodata += int(missing.sum())
        if not values.size:
            return
        self.moments += Moments.of(values)
        self.sketch.update(values)
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))

    def summary(self) -> dict[str, Any]:
        """Return what is written to the file."""
        values = {
            'mean': self.moments.mean,
            'std': self.moments.std,
            'min': self.minimum,
            'max': self.maximum,
        }
        percentiles = {
            percent: _short(
                min(max(self.sketch.percentile(percent), self.minimum), self.maximum)
            )
            for percent in PERCENTILES
        }
        return {
            **{name: _short(value) for name, value in values.items()},
            'percentiles': percentiles,
            'pixels': self.moments.count,
            'pixels_without_data': self.nodata,
        }


def missing_pixels(
    image: npt.NDArray[Any], nodata: float | None
) -> npt.NDArray[np.bool_]:
    """Tell which pixels have no data.

    Args:
        image: (C, height, width) of any type.
        nodata: The value that stands for no data where all bands have it (0 in one of
            several is a fair reflectance); None for none.

    Returns:
        (C, height, width), True where a pixel is NaN or infinite, or no data.
    """
    missing: npt.NDArray[np.bool_]
    if image.dtype.kind == 'f':
        missing = ~np.isfinite(image)
    else:
        missing = np.zeros(image.shape, dtype=bool)
    if nodata is not None and len(image):
        missing |= (image == nodata).all(axis=0)
    return missing


def write_statistics(
    path: Path, statistics: Mapping[str, BandStatistics], about: Mapping[str, Any]
) -> None:
    """Write statistics as YAML that :func:`read_statistics` reads.

    Args:
        path: The file, which must not exist.
        statistics: Those of each band, by name.
        about: Other facts to note down, such as the dataset.

    Raises:
        FileExistsError: If the file exists.
        ValueError: If a band had no pixel with data.
    """
    empty = [name for name, band in statistics.items() if not band.moments.count]
    if empty:
        raise ValueError(
            f'Band {empty[0]} has no pixel with data: check its nodata value and the '
            f'names of the bands.'
        )
    content = {
        **about,
        'percentile_error': f'{RELATIVE_ERROR:.1%} of the value',
        'bands': {name: band.summary() for name, band in statistics.items()},
    }
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    with path.open('x') as file:
        file.write('# Statistics of bands, for `statistics:` of a datamodule.\n')
        file.write(text)


def read_statistics(
    path: str | Path, bands: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Read the mean and standard deviation of bands.

    Args:
        path: A file of :func:`write_statistics`, or with the same ``bands: {NAME:
            {mean: ..., std: ...}}``.
        bands: Names of the bands wanted.

    Returns:
        (mean, std) of each band, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, lacks a band or a value makes no sense.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no statistics file {path}: write one with `channelmae stats`.'
        )
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'Statistics file {path} is not YAML: {reason}') from None
    known = content.get('bands') if isinstance(content, dict) else None
    if not isinstance(known, dict):
        raise ValueError(
            f'Statistics file {path} has no mapping `bands`: write one with '
            f'`channelmae stats`.'
        )
    found = {}
    for band in bands:
        if band not in known:
            raise ValueError(
                f'Statistics file {path} lacks band {band!r}: it has '
                f'{", ".join(map(str, known))}.'
            )
        found[band] = _pair(known[band], band, path)
    return found


def _pair(entry: Any, band: str, path: Path) -> tuple[float, float]:
    values = [
        entry.get(name) if isinstance(entry, dict) else None for name in ('mean', 'std')
    ]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f'Band {band!r} in statistics file {path} needs numbers as mean and '
                f'std: it has {entry!r}.'
            )
    mean, std = map(float, values)  # type: ignore[arg-type]
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise ValueError(
            f'Band {band!r} in statistics file {path} has mean {mean} and std {std}: '
            f'both have to be finite, and std above 0.'
        )
    return mean, std


def _short(value: float) -> float:
    """Round to seven digits, more than float32 has."""
    return float(f'{value:.7g}')
