"""Batches with names in them, which stock TorchGeo tasks can take apart again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
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
        samples: Samples with tensors, numbers and an ``index`` each; ``patch_id``, if
            they have it, and ``native`` pixels (see
            :class:`~torchgeo_channelmae.datasets.BigEarthNetLMDB`). Samples
            that say why they were ``skipped`` are left out of the batch.

    Returns:
        A tensor for each key, and on the host ``patch_id``, the names, ``visit``, each
        sample's index again, which is read there without waiting for a device, and,
        where samples were left out, ``skipped``: a (name, reason) each.

        A batch of which nothing is left has ``skipped`` alone.
    """
    skipped = [sample for sample in samples if 'skipped' in sample]
    kept = [sample for sample in samples if 'skipped' not in sample]
    listed = HostList((sample['patch_id'], sample['skipped']) for sample in skipped)
    if not kept:
        return {'skipped': listed}
    native = [sample['native'] for sample in kept if 'native' in sample]
    rest = [
        {key: value for key, value in sample.items() if key != 'native'}
        for sample in kept
    ]
    batch: dict[str, Any] = default_collate(rest)
    if native:
        batch['native'] = {
            names: torch.from_numpy(np.stack([pixels[names] for pixels in native]))
            for names in native[0]
        }
    if 'patch_id' in batch:
        batch['patch_id'] = HostList(batch['patch_id'])
    batch['visit'] = HostList(sample['index'] for sample in kept)
    if skipped:
        batch['skipped'] = listed
    return batch
