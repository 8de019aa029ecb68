"""Samples of any dataset, as named bands, each visit with an address of its own."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from .. import sensors
from .known import Names, Rows, Source

_PASSES = 1 << 20  # more than any epoch visits a sample


class NamedBands(Dataset[dict[str, Any]]):
    """Some bands of some samples of a dataset, picked by name.

    Item n is sample ``n % len(self)`` with n as its ``index``: what is drawn (its mask,
    or a season) then differs from visit to visit. A sample has ``image`` (C, height,
    width) float32 in physical units and ``index``, and ``patch_id`` if it has a name.

    Attributes:
        rows: Number of each sample in the whole dataset.
        names: Name of each sample, None if they have none.
    """

    def __init__(
        self,
        source: Source,
        bands: Sequence[str],
        rows: Rows,
        address: Sequence[int | str] = (),
        max_nodata: float = 0.5,
        on_error: str = 'raise',
        fill: bool = True,
    ) -> None:
        """Initialise the dataset.

        Args:
            source: The dataset, with what is known of it.
            bands: Names of bands, in the order wanted.
            rows: The samples to use.
            address: What a dataset that draws draws from, with the number of a visit.
            max_nodata: Largest share of a band's pixels without data that is filled
                with the mean of its other pixels. More is an error.
            on_error: 'raise' or, to return the reason as a sample, 'skip'.
            fill: Whether to fill pixels without data. Without, they are NaN.

        Raises:
            ValueError: If the dataset lacks a band.
        """
        self.source = source
        available = sensors.names(source.bands)
        self.bands = sensors.names(sensors.select(bands, source.bands))
        self.order = [available.index(band) for band in self.bands]
        self.rows = rows
        self.names: Names | None = source.names(rows)
        self.address = tuple(address)
        self.max_nodata = max_nodata
        self.on_error = on_error
        self.fill = fill

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample.

        Args:
            index: Number of the visit.

        Returns:
            A sample, see the class; or, with ``on_error='skip'``, ``patch_id``,
            ``index`` and ``skipped``, the reason why there is none.

        Raises:
            ValueError: If the sample can't be read or has too few pixels with data.
        """
        position = index % len(self)
        row = int(self.rows[position])
        name = str(self.names[position]) if self.names is not None else None
        try:
            image = self._image(row, index // len(self))
        except (ValueError, OSError, IndexError, KeyError) as error:
            shown = f'{row}' if name is None else f'{row} ({name})'
            reason = ' '.join(str(error).split()) or type(error).__name__
            message = f'Sample {shown} of {self.source.name}: {reason}'
            if self.on_error != 'skip':
                raise ValueError(message) from error
            label = f'{self.source.name} {row}' if name is None else name
            return {'patch_id': label, 'index': index, 'skipped': message}
        sample: dict[str, Any] = {'image': image, 'index': index}
        if name is not None:
            sample['patch_id'] = name
        return sample

    def _image(self, row: int, visit: int) -> Tensor:
        sample = self.source.sample(row, *self.address, visit)
        image = self.source.image(sample).to(torch.float32)
        pixels = image.numpy()
        picked = pixels[self.order]  # a copy
        holes = self.source.missing(pixels)[self.order]
        if holes.any():
            if self.fill:
                self._fill(picked, holes)
            else:
                picked[holes] = np.nan
        return torch.from_numpy(picked)

    def _fill(
        self, pixels: npt.NDArray[np.float32], holes: npt.NDArray[np.bool_]
    ) -> None:
        """Fill the pixels without data of (C, height, width), in place."""
        shares = holes.mean(axis=(1, 2))
        worst = int(shares.argmax())
        if shares[worst] > self.max_nodata or shares[worst] == 1:
            raise ValueError(
                f'Band {self.bands[worst]} has no data in {shares[worst]:.1%} of its '
                f'pixels, more than max_nodata={self.max_nodata:.1%}: raise max_nodata '
                f"or leave such samples out with on_error 'skip'."
            )
        for band, missing in zip(pixels, holes, strict=True):
            if missing.any():
                band[missing] = band[~missing].mean(dtype=np.float64)


class EpochNumbers(DistributedSampler[Any]):
    """Makes the numbers of a sampler differ from epoch to epoch as well.

    A dataset that draws needs an address that is new in each epoch, which its workers
    do not know. Number n of epoch e becomes ``n + e * 2**20 * len(dataset)``, the same
    sample under :class:`NamedBands`.

    Attributes:
        start: Number of samples that an iteration skips.
    """

    start: int = 0

    def __init__(self, sampler: DistributedSampler[Any], size: int) -> None:
        """Initialize a new EpochNumbers instance.

        Args:
            sampler: Gives the numbers ``pass * size + i`` of each epoch.
            size: Length of the dataset.
        """
        super().__init__(sampler.dataset, num_replicas=1, rank=0)
        self.sampler = sampler
        self.size = size

    @override
    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of both."""
        super().set_epoch(epoch)
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Return the number of this rank's samples per epoch."""
        return len(self.sampler)

    @override
    def __iter__(self) -> Iterator[int]:
        """Iterate over this rank's share of the epoch, from ``start`` on."""
        rest = islice(self.sampler, self.start, None)
        return (int(n) + self.epoch * _PASSES * self.size for n in rest)
