"""Samples of any dataset as named bands, with a number of its own for every draw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from .. import sensors
from .georeference import Names
from .sources import Rows, Source

_REPEATS = 1 << 20  # more than an epoch draws any sample


@dataclass(eq=False)
class NamedBands(Dataset[dict[str, Any]]):
    """Some bands of some samples of a dataset, selected by name.

    Item n is sample ``n % len(self)`` with n as its ``index``, so that random choices
    (its mask, its season) differ from draw to draw. A sample has ``image`` (C, height,
    width) float32 in physical units and ``index``, and ``patch_id`` if it has a name.

    Attributes:
        source: The whole dataset.
        bands: Names of the bands, in order.
        rows: Index of each sample in the whole dataset.
        address: Seed, with the number of the draw, of a dataset that draws.
        max_nodata: Largest share of a band's pixels without data that may be filled.
        on_error: 'raise' or, to return the reason as a sample, 'skip'.
        fill: Whether to fill pixels without data (band's mean); otherwise they are NaN.
        names: Name of each sample; None if they have none.
        sensors: Names of the sensors of the bands, sorted.
    """

    source: Source
    bands: Sequence[str]
    rows: Rows
    address: tuple[int | str, ...] = ()
    max_nodata: float = 0.5
    on_error: str = 'raise'
    fill: bool = True

    def __post_init__(self) -> None:
        """Look up the bands and names."""
        available = sensors.names(self.source.bands)
        self.order = [available.index(band) for band in self.bands]
        chosen = {self.source.bands[number].sensor for number in self.order}
        self.sensors = tuple(sorted(chosen))
        self.names: Names | None = self.source.column('names', self.rows)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample by the number of its draw.

        With ``on_error='skip'``, an unreadable sample has ``patch_id``, ``index`` and
        ``skipped``, the reason.
        """
        draw, position = divmod(index, len(self))
        row = int(self.rows[position])
        names = self.names
        named = {} if names is None else {'patch_id': str(names[position])}
        try:
            return {'image': self._image(row, draw), 'index': index, **named}
        except (ValueError, OSError, IndexError, KeyError) as error:
            label = named.get('patch_id', f'{self.source.name} {row}')
            reason = ' '.join(str(error).split()) or type(error).__name__
            message = f'Sample {row} ({label}) of {self.source.name}: {reason}'
            if self.on_error != 'skip':
                raise ValueError(message) from error
            return {'patch_id': label, 'index': index, 'skipped': message}

    def _image(self, row: int, draw: int) -> Tensor:
        sample = self.source.sample(row, *self.address, draw)
        pixels = self.source.image(sample).to(torch.float32).numpy()
        picked = pixels[self.order]  # a copy
        holes = self.source.missing(pixels)[self.order]
        if self.fill:
            self._fill(picked, holes)
        else:
            picked[holes] = np.nan
        return torch.from_numpy(picked)

    def _fill(
        self, pixels: npt.NDArray[np.float32], holes: npt.NDArray[np.bool_]
    ) -> None:
        """Fill pixels (C, height, width) without data, in place."""
        for name, band, missing in zip(self.bands, pixels, holes, strict=True):
            share = missing.mean()
            if share > self.max_nodata or share == 1:
                raise ValueError(
                    f'Band {name} has no data in {share:.1%} of its pixels. Raise '
                    f"max_nodata, or leave such samples out with on_error='skip'."
                )
            if share:
                band[missing] = band[~missing].mean(dtype=np.float64)


class EpochNumbers(DistributedSampler[Any]):
    """Number n of a sampler, made different per epoch: n + epoch * 2**20 * size.

    Workers do not know the epoch, so this is how a dataset draws differently in each.
    An iteration skips the first ``start`` samples.
    """

    start: int = 0

    def __init__(self, sampler: DistributedSampler[Any], size: int) -> None:
        """Initialize from a sampler of numbers ``repeat * size + row``."""
        super().__init__(sampler.dataset, num_replicas=1, rank=0)
        self.sampler = sampler
        self.size = size

    @override
    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of both."""
        super().set_epoch(epoch)
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Return the number of samples of this rank per epoch."""
        return len(self.sampler)

    @override
    def __iter__(self) -> Iterator[int]:
        """Iterate over the samples of this rank, from ``start`` on."""
        rest = islice(self.sampler, self.start, None)
        return (int(n) + self.epoch * _REPEATS * self.size for n in rest)
