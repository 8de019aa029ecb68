"""Collect predictions over batches and ranks, each sample once."""

from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DistributedSampler

_LOADER = 1 << 56  # numbers per loader
_RANK = 1 << 40  # numbers per rank, where no distributed sampler splits a loader
_UNSIZED = 1 << 20  # numbers per batch, where the loader does not know its size


class PredictionStore:
    """Rows of predictions on the CPU, each with the number of its sample.

    torchmetrics cannot gather strings, so ranks exchange rows as objects.

    Example:
        >>> store = PredictionStore()
        >>> store.update(torch.tensor([1, 0]), score=torch.tensor([0.2, 0.7]))
        >>> store.update(torch.tensor([1]), score=torch.tensor([0.2]))
        >>> store.gather()['score']
        tensor([0.7000, 0.2000])
    """

    def __init__(self) -> None:
        """Start empty."""
        self._batches: list[dict[str, Any]] = []

    def update(self, index: Tensor, **columns: Tensor | list[str]) -> None:
        """Store a batch: tensors (B, ...) or lists of B strings, always the same ones.

        `index` is the number of each sample, int64 (B,); the same on every rank.
        """
        rows = {'index': index, **columns}
        for name, values in rows.items():
            if torch.is_tensor(values):  # a copy, as their memory may be used again
                rows[name] = values.detach().to('cpu', copy=True)
        self._batches.append(rows)

    def gather(self) -> dict[str, Any]:
        """Return the rows of all ranks, sorted by number, each number once, and forget.

        All ranks must call it, and get the same rows. No rows raise a ValueError.
        """
        batches, self._batches = self._batches, []
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, batches)
            batches = [batch for part in parts for batch in part]
        if not batches:
            raise ValueError('No predictions were stored: the data set is empty.')
        index = torch.cat([batch['index'] for batch in batches])
        first = np.unique(index.numpy(), return_index=True)[1]
        rows: dict[str, Any] = {}
        for name, values in batches[0].items():
            parts = [batch[name] for batch in batches]
            if torch.is_tensor(values):
                rows[name] = torch.cat(parts)[torch.from_numpy(first)]
            else:
                names = list(chain.from_iterable(parts))
                rows[name] = [names[row] for row in first]
        return rows


def sample_numbers(
    trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int = 0
) -> Tensor:
    """Number the samples of a batch by loader and position in it, (B,) int64.

    In the first loader the numbers are the positions themselves. A distributed sampler
    repeats the first samples so that all ranks have the same number of samples; a
    repeat gets the number of its sample. If unreadable samples were skipped, the batch
    needs ``index`` (B,), the position of each sample in its dataset.
    """
    stage: Any = trainer.state.stage
    loaders = getattr(trainer, f'{stage.dataloader_prefix}_dataloaders')
    loader = CombinedLoader(loaders, 'sequential').flattened[dataloader_idx]
    batches = getattr(loader, 'batch_sampler', None)
    sampler = getattr(batches, 'sampler', None)
    size = getattr(batches, 'batch_size', None)
    count, start = len(batch['image']), batch_idx * (size or _UNSIZED)
    numbers = torch.arange(start, start + count)
    if size is None or not isinstance(sampler, DistributedSampler):
        numbers += trainer.global_rank * _RANK
    elif count < min(size, sampler.num_samples - start):
        numbers = batch['index'].cpu()
    else:
        numbers = numbers * sampler.num_replicas + sampler.rank
        numbers %= len(sampler.dataset)  # type: ignore[arg-type]
    return numbers + dataloader_idx * _LOADER


def sample_names(batch: Any, numbers: Tensor) -> list[str]:
    """Return the patch ids of a batch; without them the numbers of its samples."""
    if 'patch_id' in batch:
        return list(batch['patch_id'])
    parts = [divmod(number, _LOADER) for number in numbers.tolist()]
    return [f'{loader}-{row}' if loader else str(row) for loader, row in parts]
