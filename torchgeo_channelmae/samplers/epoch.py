"""The order in which an epoch visits a dataset, as a function of seed and epoch."""

import math
from collections.abc import Iterator, Sized
from typing import Any, override

import torch
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

from ..randomness import generator


class EpochSampler(DistributedSampler[Any]):
    """Visits a dataset in an order that only the seed and the epoch decide.

    The order of an epoch is one random permutation of the dataset, or as many
    independent ones as ``samples_per_epoch`` needs, cut to that length. In pass p,
    sample i has the number ``p * len(dataset) + i``, so that each visit has a number of
    its own (:class:`Visits` takes such numbers). Ranks take turns along the order, so
    that the samples of a step are the same for any number of processes with the same
    global batch size.

    A :class:`~torch.utils.data.DistributedSampler`, so that Lightning leaves it in
    place and tells it the epoch.

    Attributes:
        start: How many samples of this rank's share an iteration leaves out at first.
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
        """Initialise the sampler.

        Args:
            dataset: What is sampled from; only its length is used.
            samples_per_epoch: Samples of an epoch over all ranks, more or fewer than
                the dataset has. None is each sample once.
            seed: Seed that all ranks share.
            num_replicas: Number of ranks. None is what ``torch.distributed`` says, or
                1 without it.
            rank: This process's rank. None is what ``torch.distributed`` says, or 0.
            drop_last: If the ranks can't share evenly, drop the last samples of the
                order; otherwise its first samples come again at the end.

        Raises:
            ValueError: If the dataset is empty, ``samples_per_epoch`` is not positive
                or there is no such rank.
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
                f'samples_per_epoch is {samples_per_epoch}: give at least 1, or None '
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

    @property
    def takes_turns(self) -> bool:
        """Whether the ranks take turns along the order of the epoch.

        Then the samples of a step are the same for any number of ranks.
        """
        return True

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


class Visits(Dataset[dict[str, Any]]):
    """A dataset whose samples are visited more than once an epoch.

    Item ``p * len(dataset) + i`` is sample i with that number as its ``index``: what is
    drawn from a sample's index (its mask) then differs from visit to visit.
    """

    def __init__(self, dataset: Any) -> None:
        """Initialise the visits.

        Args:
            dataset: A dataset with a length, whose samples have an ``index``.
        """
        self.dataset = dataset
        self.size = len(dataset)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample ``index % size`` under the number of this visit."""
        return {**self.dataset[index % self.size], 'index': index}
