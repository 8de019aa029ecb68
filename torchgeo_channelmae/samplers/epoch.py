"""The order in which an epoch visits a dataset, as a function of seed and epoch."""

import math
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

from ..randomness import generator
from .balancing import Array, expected_draws
from .draws import ONE, deal, number_visits, systematic_counts, to_integers
from .shares import ClassShares, Values, check_shares, read_shares, rows_of


class EpochSampler(DistributedSampler[Any]):
    """Draws a dataset in an order that depends on the seed and the epoch only.

    The order of an epoch is one random permutation of the dataset, or as many
    independent ones as ``samples_per_epoch`` needs, cut to that length. In pass p,
    sample i has the number ``p * len(dataset) + i`` (see :class:`RepeatedDataset`).
    Ranks take turns along the order, so that the samples of a step are the same for any
    number of processes with the same global batch size.

    It is a :class:`~torch.utils.data.DistributedSampler`, so that Lightning leaves it
    in place and sets its epoch.

    Attributes:
        start: Number of this rank's samples that an iteration skips.
    """

    start: int = 0

    def __init__(
        self,
        dataset: Sized,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
    ) -> None:
        """Initialize a new EpochSampler instance.

        Args:
            dataset: What is sampled from; only its length is used.
            samples_per_epoch: Samples per epoch over all ranks, more or fewer than the
                dataset has. None for each sample once.
            seed: Seed that all ranks share.
            num_replicas: Number of ranks. Defaults to that of ``torch.distributed``, or
                1 without it.
            rank: Rank of this process. Defaults to that of ``torch.distributed``, or 0.
            drop_last: If the ranks cannot share evenly, drop the last samples of the
                order; otherwise repeat its first samples at the end.

        Raises:
            ValueError: If the dataset is empty, ``samples_per_epoch`` is not positive
                or the rank does not exist.
        """
        distributed = dist.is_available() and dist.is_initialized()
        if num_replicas is None:
            num_replicas = dist.get_world_size() if distributed else 1
        if rank is None:
            rank = dist.get_rank() if distributed else 0
        if len(dataset) == 0:
            raise ValueError('The dataset to sample from is empty.')
        if samples_per_epoch is not None and samples_per_epoch < 1:
            raise ValueError(
                f'samples_per_epoch is {samples_per_epoch}: give at least 1, or null '
                f'for each sample once.'
            )
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=num_replicas,
            rank=rank,
            seed=seed,
            drop_last=drop_last,
        )
        self.dataset_size = len(dataset)
        self.samples_per_epoch = samples_per_epoch or self.dataset_size
        share = self.samples_per_epoch / self.num_replicas
        self.num_samples = math.floor(share) if drop_last else math.ceil(share)
        self.total_size = self.num_samples * self.num_replicas

    @override
    def __iter__(self) -> Iterator[int]:
        """Iterate over this rank's share of the epoch's order, from ``start`` on."""
        order = self.fill(self.order())
        return iter(self.share(order[: self.total_size])[self.start :])

    def fill(self, order: list[int]) -> list[int]:
        """Return at least as many numbers as the ranks can share evenly."""
        while len(order) < self.total_size:
            order += order[: self.total_size - len(order)]
        return order

    def share(self, order: list[int]) -> list[int]:
        """Return this rank's share of numbers that the ranks can share evenly."""
        return order[self.rank :: self.num_replicas]

    def order(self) -> list[int]:
        """Return the epoch's ``samples_per_epoch`` numbers, those of all ranks."""
        passes = math.ceil(self.samples_per_epoch / self.dataset_size)
        permutations = [
            torch.randperm(
                self.dataset_size,
                generator=generator(self.seed, 'order', self.epoch, number),
            )
            + number * self.dataset_size
            for number in range(passes)
        ]
        indices: list[int] = torch.cat(permutations)[: self.samples_per_epoch].tolist()
        return indices


class LandCoverBalancedSampler(EpochSampler):
    """Draws samples so that land-cover classes come evenly.

    How often each sample is expected in an epoch is found once, see
    :mod:`~torchgeo_channelmae.samplers.balancing`; each epoch then draws which samples come how
    often: as often as expected, rounded up or down. The k-th draw (from 0) of sample i
    in an epoch has the number ``k * len(dataset) + i``, so that each visit has a number
    of its own (:class:`RepeatedDataset` takes such numbers). The order is a function of
    seed and epoch only.

    Ranks see disjoint samples, in the order of the epoch: without replacement they take
    turns along it as those of :class:`EpochSampler`; with replacement all draws of a
    sample go to one rank (:func:`~torchgeo_channelmae.samplers.draws.deal`), so that the
    samples of a step depend on the number of ranks. As ranks visit equally many,
    samples may be shared, fewer than there are ranks, where too few come only once.

    A sample of which the land cover is unknown (its shares are NaN) is drawn as often
    as the average one; one whose shares are all 0 is never drawn.

    Attributes:
        classes: Names of the classes that are balanced.
        uses_labels: Whether the dataset's own labels steer the sampling.
        expected: (N,) expected draws of each sample in an epoch.
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
        rows: npt.NDArray[np.integer] | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
    ) -> None:
        """Initialise the sampler.

        Args:
            dataset: What is sampled from.
            shares: File of `channelmae landcover`, what was read from it, or an array
                (N, K) of class shares.
            samples_per_epoch: Samples of an epoch over all ranks. None is as many as
                the dataset has.
            temperature: 0 draws all samples alike; 1 makes classes as even as any
                weights can within the two limits below. Where each sample has one
                class, a class is drawn in proportion to its share to the power
                1 - temperature. Below 1, every sample is drawn now and then.
            replacement: Whether a sample may come more than once in an epoch. Without,
                an epoch has to be shorter than the dataset.
            max_repeats: Most draws of a sample in an epoch.
            min_distinct: Least share of an epoch's draws that are distinct samples. In
                epochs so long that there are too few samples for that, each comes at
                least once.
            absent: What to do about a class that no sample has: 'raise' or 'ignore'.
            rows: (N,) which row of ``shares`` each sample is. None finds them, see
                :func:`~torchgeo_channelmae.samplers.shares.rows_of`.
            seed: Seed that all ranks share.
            num_replicas: Number of ranks, see :class:`EpochSampler`.
            rank: This process's rank.
            drop_last: If the ranks can't share evenly, drop the last samples of the
                order; otherwise the epoch has as many draws more, within the limits.

        Raises:
            FileNotFoundError: If there is no such file of shares.
            ValueError: If an argument makes no sense, the shares are not those of the
                dataset, a class is absent, or the limits don't allow such an epoch.
        """
        super().__init__(
            dataset, samples_per_epoch, seed, num_replicas, rank, drop_last
        )
        _check_range('temperature', temperature)
        _check_range('min_distinct', min_distinct)
        if max_repeats < 1:
            raise ValueError(f'max_repeats is {max_repeats}: give at least 1.')
        if absent not in ('raise', 'ignore'):
            raise ValueError(f"absent is {absent!r}: use 'raise' or 'ignore'.")
        if isinstance(shares, np.ndarray):
            values = check_shares(shares, 'The array of class shares')
            classes = tuple(f'class {column}' for column in range(values.shape[1]))
            shares = ClassShares(values, classes, 'array', 'an array', True)
        elif not isinstance(shares, ClassShares):
            shares = read_shares(shares)
        chosen = rows_of(dataset, shares) if rows is None else np.asarray(rows)
        if len(chosen) != self.dataset_size or not _within(chosen, len(shares)):
            raise ValueError(
                f'rows has {len(chosen)} numbers: give one from 0 to '
                f'{len(shares) - 1}, the last row of the shares, for each of the '
                f'{self.dataset_size} samples.'
            )
        self.uses_labels = shares.uses_labels
        self._shares, self.classes = _present(shares.rows(chosen), absent)
        self._known = self._shares.sum(axis=1) > 0  # neither left out nor unknown
        used = int(self._known.sum() + np.isnan(self._shares[:, 0]).sum())
        cap = max_repeats if replacement else 1
        self._cap = cap
        self._check_length(used, cap, temperature)
        self.expected = expected_draws(
            self._shares, self.samples_per_epoch, temperature, cap, min_distinct
        )
        self._parts = to_integers(self.expected, self.samples_per_epoch, cap)
        # Samples that are drawn for the same class lie side by side in the row that is
        # sampled, so that the class comes as often as expected in each epoch.
        natural = self._shares[self._known].mean(axis=0)
        self._stratum = np.where(
            self._known, (self._shares / natural).argmax(axis=1), len(self.classes)
        ) + (self._parts >= ONE) * (len(self.classes) + 1)

    def _check_length(self, used: int, cap: int, temperature: float) -> None:
        draws = self.samples_per_epoch
        if max(draws, self.total_size) > used * cap:
            times = 'once' if cap == 1 else f'up to {cap} times'
            padded = '' if draws > used * cap else f', for {self.num_replicas} ranks '
            padded += f'{self.total_size}' if padded else ''
            raise ValueError(
                f'samples_per_epoch is {draws}{padded}, but {used} samples drawn '
                f'{times} each are at most {used * cap}: give fewer, or draw with '
                f'replacement and a larger max_repeats.'
            )
        if draws == used and cap == 1 and temperature > 0:
            raise ValueError(
                f'An epoch of {draws} draws without replacement has each of the {used} '
                f'samples once, whatever their classes: give a samples_per_epoch that '
                f'is less, or draw with replacement.'
            )

    @override
    def fill(self, order: list[int]) -> list[int]:
        """Return at least as many numbers as the ranks can share evenly."""
        missing = self.total_size - len(order)
        return order + self._more(order, missing) if missing > 0 else order

    @override
    def share(self, order: list[int]) -> list[int]:
        """Return this rank's share of numbers that the ranks can share evenly."""
        if self._cap == 1 or self.num_replicas == 1:
            return super().share(order)
        numbers = np.array(order)
        samples = numbers % self.dataset_size
        shown = deal(samples, self.num_replicas) == self.rank
        mine: list[int] = numbers[shown].tolist()
        return mine

    def _more(self, order: list[int], missing: int) -> list[int]:
        """Return visits of samples that have not come as often as they may."""
        drawn = np.array(order) % self.dataset_size
        counts = np.bincount(drawn, minlength=self.dataset_size)
        rng = generator(self.seed, 'balanced more', self.epoch)
        others = torch.randperm(self.dataset_size, generator=rng).numpy()
        others = others[(counts[others] == 0) & (self.expected[others] > 0)]
        more: list[int] = []
        # In the order of the draws first, which are balanced.
        for sample in np.concatenate([drawn, others]).tolist():
            while counts[sample] < self._cap and len(more) < missing:
                more.append(int(counts[sample]) * self.dataset_size + sample)
                counts[sample] += 1
        return more

    @override
    def order(self) -> list[int]:
        """Return the epoch's ``samples_per_epoch`` numbers, those of all ranks."""
        rng = generator(self.seed, 'balanced', self.epoch)
        row = torch.randperm(self.dataset_size, generator=rng).numpy()
        row = row[np.argsort(self._stratum[row], kind='stable')]
        start = int(torch.randint(ONE, (), generator=rng))
        counts = systematic_counts(self._parts, row, start)
        drawn = np.repeat(np.arange(self.dataset_size), counts)
        drawn = drawn[torch.randperm(len(drawn), generator=rng).numpy()]
        numbers: list[int] = number_visits(drawn, self.dataset_size).tolist()
        return numbers

    def class_shares(self, numbers: Sequence[int] | None = None) -> Array:
        """Return the shares of the classes in what is drawn.

        Args:
            numbers: Numbers of visits, such as :meth:`order` returns. None is each
                sample that may be drawn, once.

        Returns:
            (K,) mean of the class shares over all visits whose land cover is known.
        """
        drawn = np.arange(self.dataset_size) if numbers is None else np.array(numbers)
        counts = np.bincount(drawn % self.dataset_size, minlength=self.dataset_size)
        counts = counts[self._known]
        return counts @ self._shares[self._known].astype(np.float64) / counts.sum()


def _within(rows: npt.NDArray[np.integer], count: int) -> bool:
    return bool(((rows >= 0) & (rows < count)).all())


def _check_range(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f'{name} is {value}: give a number from 0 to 1.')


def _present(shares: ClassShares, absent: str) -> tuple[Values, tuple[str, ...]]:
    """Return the shares and names of the classes that some sample has."""
    there = np.nansum(shares.values, axis=0) > 0
    missing = [name for name, has in zip(shares.classes, there, strict=True) if not has]
    if not there.any():
        raise ValueError(
            'No sample has any land cover: there is nothing that could be balanced.'
        )
    if missing and absent == 'raise':
        more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
        raise ValueError(
            f"No sample has the class {missing[0]!r}{more}: give absent='ignore' to "
            f'balance the other {there.sum()}, or shares in which it occurs.'
        )
    kept = tuple(name for name in shares.classes if name not in missing)
    return shares.values[:, there], kept


class RepeatedDataset(Dataset[dict[str, Any]]):
    """A dataset whose samples are drawn more than once per epoch.

    Item ``p * len(dataset) + i`` is sample i with that number as its ``index``: what is
    drawn from a sample's index (its mask) then differs from draw to draw.
    """

    def __init__(self, dataset: Any) -> None:
        """Initialize a new RepeatedDataset instance.

        Args:
            dataset: A dataset with a length, whose samples have an ``index``.
        """
        self.dataset = dataset

    def __len__(self) -> int:
        """Return the number of distinct samples."""
        return len(self.dataset)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample ``index % len(self)`` under the number of this draw."""
        return {**self.dataset[index % len(self)], 'index': index}
