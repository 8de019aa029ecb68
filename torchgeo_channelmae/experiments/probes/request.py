"""What a command over frozen features asks for: read, checked and named."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchgeo.datamodules import BaseDataModule

from ...models.weights import FreshBands
from ..configuration import configured
from .classifiers import hold_out
from .encoders import check_policy
from .features import depths_of, split_size

_PRECISIONS = ('32', 'bf16')


def check_request(out: Path, split: str, samples: int | None) -> None:
    """Check what can be checked before anything is read.

    Raises:
        FileExistsError: If the folder to make exists.
        ValueError: If samples of such a split are not scored, or none are asked for.
    """
    if out.exists():
        raise FileExistsError(f'{out} exists: give another out, or move it away.')
    if split not in ('test', 'val'):
        raise ValueError(f'split is {split!r}: use test or val.')
    if samples is not None and samples < 1:
        raise ValueError(f'samples is {samples}: give at least 1, or null for all.')


def fresh_policy(config: Sequence[str | Path], given: str | None) -> FreshBands:
    """Return how bands start that weights do not know.

    Raises:
        ValueError: If there is no such policy.
    """
    policy = given or configured(config, 'model', 'fresh_bands') or 'sample'
    check_policy(policy)
    return policy  # type: ignore[return-value]


def where(
    device: str, precision: str
) -> tuple[torch.device, Callable[[], AbstractContextManager[Any]]]:
    """Return the device to compute on, and what makes the context to compute in.

    Raises:
        ValueError: If there is no such device or precision.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f'precision is {precision!r}: use 32 or bf16.')
    try:
        place = torch.device('cpu' if device == 'auto' else device)
        if device == 'auto' and torch.accelerator.is_available():
            place = torch.accelerator.current_accelerator() or place
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip('.')
        raise ValueError(f'device {device!r} can not be used: {reason}.') from None
    if precision == '32':
        return place, nullcontext
    return place, partial(torch.autocast, place.type, torch.bfloat16)


def chosen_depths(model: nn.Module, asked: str) -> list[str]:
    """Return the depths that a user asks for.

    Raises:
        ValueError: If the encoder has not got one of them.
    """
    known = depths_of(model)
    if asked == 'all':
        return known
    wanted = [part.strip() for part in asked.split(',')]
    for depth in wanted:
        if depth not in known:
            listed = f'0 to {known[-2]}, out' if len(known) > 1 else 'out'
            raise ValueError(f'depth is {depth!r}: this encoder has {listed} or all.')
    return list(dict.fromkeys(wanted))


def set_up(datamodule: BaseDataModule, *splits: str) -> None:
    """Make the datasets of the splits, beside those of training and validation."""
    datamodule.prepare_data()
    datamodule.setup('fit')
    if 'test' in splits:
        datamodule.setup('test')


def learning_splits(datamodule: BaseDataModule, split: str) -> list[str]:
    """Name the splits that a probe reads beside the one scored, see `Protocol`."""
    is_tuned = split == 'test' and split_size(datamodule, 'val')
    return ['train', 'val'] if is_tuned else ['train']


def learners(datamodule: BaseDataModule, split: str, samples: int | None) -> int:
    """Return how many samples a probe learns from, see :class:`Protocol`."""
    count = split_size(datamodule, 'train')
    count = min(samples or count, count)
    if 'val' in learning_splits(datamodule, split):
        return count
    return int((~hold_out(count)).sum())
