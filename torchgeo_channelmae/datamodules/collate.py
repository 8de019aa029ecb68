"""Batches with names in them, which stock TorchGeo tasks can take apart again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate


class HostList(list[Any]):
    """What a batch holds on the host, a value a sample: a list that ``unbind`` takes.

    TorchGeo's ``unbind_samples`` unbinds whatever a batch holds, and its tasks call it
    on every batch that they plot.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Any, ...]:
        """Unbind into the values; nothing else of torch works on them."""
        return tuple(args[0]) if func is torch.unbind else NotImplemented


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples to a batch.

    Args:
        samples: Samples with tensors, numbers, a ``patch_id`` and an ``index`` each.

    Returns:
        A tensor for each key, and on the host ``patch_id``, the names, and ``visit``,
        each sample's index again, which is read there without waiting for a device.
    """
    batch: dict[str, Any] = default_collate(samples)
    batch['patch_id'] = HostList(batch['patch_id'])
    batch['visit'] = HostList(sample['index'] for sample in samples)
    return batch
