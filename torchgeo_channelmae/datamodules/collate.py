"""Collate samples with names into batches that stock TorchGeo tasks can unbind."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import default_collate


class HostList(list[Any]):
    """A list with one value per sample, kept on the host, that ``torch.unbind`` takes.

    TorchGeo's tasks unbind every value of a batch that they plot.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Any, ...]:
        """Unbind into the values; no other function of torch takes them."""
        return tuple(args[0]) if func is torch.unbind else NotImplemented


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples into a batch.

    Args:
        samples: Samples with tensors, numbers and an ``index`` each and, optionally,
            ``patch_id`` and ``native`` pixels (see
            :class:`~torchgeo_channelmae.datasets.BigEarthNetLMDB`). Samples with
            ``skipped``, a reason, are left out.

    Returns:
        A tensor per key and, on the host, ``patch_id``, ``visit`` (``index`` again)
        and, if samples were left out, ``skipped``: a (name, reason) each. A batch with
        no sample left has only ``skipped``.
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


def list_skipped(folder: str, stage: str, skipped: Mapping[str, str]) -> Path:
    """Add skipped patches to ``skipped.csv`` of a folder, and return its path.

    Args:
        folder: The folder, created if missing.
        stage: What was run, such as ``fit``.
        skipped: The reason per name of a patch.
    """
    path = Path(folder) / 'skipped.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame(
        [(stage, *item) for item in skipped.items()],
        columns=['stage', 'patch_id', 'reason'],
    )
    if path.is_file():
        rows = pd.concat([pd.read_csv(path, dtype=str), rows])
    rows.drop_duplicates().to_csv(path, index=False)
    return path
