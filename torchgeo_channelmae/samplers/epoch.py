"""The order of an epoch, as a function of seed and epoch."""

import math
from collections.abc import Iterator, Sized
from typing import Any, override

import torch
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

from ..randomness import generator


class EpochSampler(DistributedSampler[Any]):
    """Draws a dataset in an order that depends on the seed and the epoch only.

    The order of an epoch is one random permutation of the dataset, or as many
    independent ones as ``samples_per_epoch`` needs, cut to that length. In pass p,
    sample i has the number ``p * len(dataset) + i`` (see :class:`RepeatedDataset`).
    Ranks take turns along the order, so that the samples of a step are the same for any
    number of processes with the same global batch size. An iteration skips the first
    ``start`` samples of its rank.

    It is a :class:`~torch.utils.data.DistributedSampler`, so that Lightning leaves it
    in place and sets its epoch.
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
            dataset: The dataset to sample from; only its length is used.
            samples_per_epoch: Samples per epoch over all ranks, more or fewer than the
                dataset has. None for each sample once.
            seed: Seed that all ranks share.
            num_replicas: Number of ranks. None is that of ``torch.distributed``, or 1.
            rank: Rank of this process. None is that of ``torch.distributed``, or 0.
            drop_last: If the ranks cannot share evenly, drop the last samples of the
                order; otherwise repeat its first samples at the end.

        Raises:
            ValueError: If the dataset is empty or an argument is wrong.
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
                f'samples_per_epoch is {samples_per_epoch}. Use at least 1, or null '
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
        order = self.order()
        while len(order) < self.total_size:  # as many as the ranks can share evenly
            order += order[: self.total_size - len(order)]
        share = order[self.rank : self.total_size : self.num_replicas]
        return iter(share[self.start :])

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


class RepeatedDataset(Dataset[dict[str, Any]]):
    """A dataset whose samples are drawn more than once per epoch.

    Item ``p * len(dataset) + i`` is sample i with that number as its ``index``: what is
    drawn from a sample's index (its mask) then differs from draw to draw.
    """

    def __init__(self, dataset: Any) -> None:
        """Initialize from a dataset with a length, whose samples have an ``index``."""
        self.dataset = dataset

    def __len__(self) -> int:
        """Return the number of distinct samples."""
        return len(self.dataset)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample ``index % len(self)`` under the number of this draw."""
        return {**self.dataset[index % len(self)], 'index': index}
