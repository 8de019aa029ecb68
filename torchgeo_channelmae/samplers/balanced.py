"""Sample land-cover classes evenly."""

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torch

from ..randomness import generator
from .balance import Array, Counts, expected_draws
from .epoch import EpochSampler
from .shares import ClassShares, Values, check_shares, read_shares, rows_of

_UNIT = 1 << 20  # of a draw, so that expected draws add up exactly as integers


class LandCoverBalancedSampler(EpochSampler):
    """Samples land-cover classes evenly.

    How often each sample is expected per epoch is found once, see
    :mod:`~torchgeo_channelmae.samplers.balance`. Each epoch then draws every sample as
    often as expected, rounded up or down. The k-th draw (from 0) of sample i in an
    epoch has the number ``k * len(dataset) + i``. The order is a function of seed and
    epoch only, and ranks take turns along it, as with :class:`EpochSampler`.

    A sample of unknown land cover (NaN shares) is drawn as often as the average one; a
    sample of zero shares is never drawn.

    Attributes:
        classes: Names of the classes that are balanced.
        uses_labels: Whether the dataset's own labels steer the sampling.
        expected: (N,) expected draws of each sample per epoch.
    """

    def __init__(
        self,
        dataset: Sized,
        shares: str | Path | ClassShares | npt.NDArray[Any] | None,
        samples_per_epoch: int | None = None,
        temperature: float = 1.0,
        replacement: bool = True,
        max_repeats: int = 20,
        min_distinct: float = 0.5,
        absent: str = 'raise',
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
    ) -> None:
        """Initialize the sampler.

        Args:
            dataset: What is sampled from.
            shares: File of `channelmae landcover`, its content, or an array (N, K) of
                class shares.
            samples_per_epoch: Draws per epoch over all ranks. None is ``len(dataset)``.
            temperature: 0 draws all samples alike; 1 makes classes as even as weights
                can within the two limits below. If each sample has one class, a class
                is drawn in proportion to its share to the power 1 - temperature. Below
                1, every sample is drawn occasionally.
            replacement: Whether a sample may be drawn more than once per epoch. If
                not, an epoch has to be shorter than the dataset.
            max_repeats: Most draws of a sample per epoch.
            min_distinct: Smallest share of an epoch's draws that are distinct samples.
                In very long epochs, each sample is drawn at least once.
            absent: Action for a class that no sample has: 'raise' or 'ignore'.
            seed: Seed that all ranks share.
            num_replicas: Number of ranks, see :class:`EpochSampler`.
            rank: Rank of this process.
            drop_last: If the ranks cannot share evenly, drop the last draws; otherwise
                repeat the first ones.

        Raises:
            ValueError: If the shares are of another dataset, or a class is absent.
        """
        super().__init__(
            dataset, samples_per_epoch, seed, num_replicas, rank, drop_last
        )
        for name, value in (
            ('temperature', temperature),
            ('min_distinct', min_distinct),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f'{name} is {value}. Use a number from 0 to 1.')
        if max_repeats < 1:
            raise ValueError(f'max_repeats is {max_repeats}. Use at least 1.')
        if absent not in ('raise', 'ignore'):
            raise ValueError(f"absent is {absent!r}. Use 'raise' or 'ignore'.")
        if isinstance(shares, np.ndarray):
            values = check_shares(shares, 'shares')
            classes = tuple(f'class {column}' for column in range(values.shape[1]))
            shares = ClassShares(values, classes, 'array', 'an array', True)
        elif not isinstance(shares, ClassShares):
            shares = read_shares(shares)
        self.uses_labels = shares.uses_labels
        found = shares.rows(rows_of(dataset, shares))
        self._shares, self.classes = _present(found, absent)
        self._known = self._shares.sum(axis=1) > 0  # neither left out nor unknown
        draws, cap = self.samples_per_epoch, max_repeats if replacement else 1
        used = int((self._known | np.isnan(self._shares[:, 0])).sum())
        if draws > used * cap or (draws == used and cap == 1 and temperature > 0):
            raise ValueError(
                f'samples_per_epoch is {draws}, but {used} samples with at most {cap} '
                f'draws each cannot be balanced in it. Use a smaller '
                f'samples_per_epoch, or replacement and a larger max_repeats.'
            )
        self.expected = expected_draws(
            self._shares, draws, temperature, cap, min_distinct
        )
        self._parts = _integers(self.expected, draws, cap)
        # Samples that are drawn for the same class stand side by side in the row that
        # is sampled, so that the class comes as often as expected in each epoch.
        natural = self._shares[self._known].mean(axis=0)
        self._stratum = np.where(
            self._known, (self._shares / natural).argmax(axis=1), len(self.classes)
        )

    @override
    def order(self) -> list[int]:
        """Return the epoch's ``samples_per_epoch`` numbers, those of all ranks."""
        rng = generator(self.seed, 'balanced', self.epoch)
        row = torch.randperm(self.dataset_size, generator=rng).numpy()
        row = row[np.argsort(self._stratum[row], kind='stable')]
        # Systematic sampling: samples lie end to end, each as long as its expected
        # draws, and one draw falls on every integer after a random start.
        start = int(torch.randint(_UNIT, (), generator=rng))
        ends = (np.cumsum(self._parts[row]) + start) // _UNIT
        drawn = np.repeat(row, np.diff(ends, prepend=0))
        drawn = drawn[torch.randperm(len(drawn), generator=rng).numpy()]
        by_sample = np.argsort(drawn, kind='stable')
        first = np.searchsorted(drawn[by_sample], drawn[by_sample], side='left')
        draw = np.empty_like(drawn)
        draw[by_sample] = np.arange(len(drawn)) - first  # k, per sample
        numbers: list[int] = (draw * self.dataset_size + drawn).tolist()
        return numbers

    def class_shares(self, numbers: Sequence[int] | None = None) -> Array:
        """Return the (K,) mean class shares of draws with known land cover.

        Args:
            numbers: Draws, such as :meth:`order` returns. None is each sample once.
        """
        drawn = np.arange(self.dataset_size) if numbers is None else np.array(numbers)
        counts = np.bincount(drawn % self.dataset_size, minlength=self.dataset_size)
        counts = counts[self._known]
        return counts @ self._shares[self._known].astype(np.float64) / counts.sum()


def _integers(expected: Array, draws: int, cap: int) -> Counts:
    """Return (N,) expected draws in units, with the exact sum; 0 stays 0."""
    parts = np.minimum(np.rint(expected * _UNIT).astype(np.int64), cap * _UNIT)
    while rest := draws * _UNIT - int(parts.sum()):
        fits = (parts > 0) & ((parts < cap * _UNIT) if rest > 0 else True)
        some = np.flatnonzero(fits)[: abs(rest)]
        parts[some] += 1 if rest > 0 else -1
    return parts


def _present(shares: ClassShares, absent: str) -> tuple[Values, tuple[str, ...]]:
    """Return the shares and names of the classes that some sample has."""
    there = np.nansum(shares.values, axis=0) > 0
    missing = [name for name, has in zip(shares.classes, there, strict=True) if not has]
    if not there.any():
        raise ValueError('No sample has any land cover. Use other shares.')
    if missing and absent == 'raise':
        raise ValueError(
            f'No sample has the class {", ".join(map(repr, missing))}. Use '
            f"absent='ignore' to balance the others."
        )
    kept = tuple(name for name in shares.classes if name not in missing)
    return shares.values[:, there], kept
