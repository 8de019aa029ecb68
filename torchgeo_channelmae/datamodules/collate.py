"""Batches with names in them, which stock TorchGeo tasks can take apart again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate


class PatchNames(list[str]):
    """The names of a batch's patches: a list that ``torch.unbind`` takes.

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
    ) -> tuple[str, ...]:
        """Unbind into strings; nothing else of torch works on names."""
        return tuple(args[0]) if func is torch.unbind else NotImplemented


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples to a batch.

    Args:
        samples: Samples with tensors, numbers and a ``patch_id`` each.

    Returns:
        A tensor for each key, and :class:`PatchNames` under ``patch_id``.
    """
    batch: dict[str, Any] = default_collate(samples)
    batch['patch_id'] = PatchNames(batch['patch_id'])
    return batch
