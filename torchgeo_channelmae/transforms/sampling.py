"""Hierarchical channel sampling: train on some of the bands, each step on others."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..models.channelvit import ChannelViT
from ..randomness import generator, global_seed


class SampleBands(Callback):
    """Fine-tune on a random subset of the bands each step, evaluate on all.

    ChannelViT's hierarchical channel sampling (https://arxiv.org/abs/2309.16108): first
    how many bands, each number alike, then which, each set alike. Fewer bands are fewer
    tokens, so steps are faster, and the model learns to do with what is there. All
    processes draw the same bands at a step, from the seed and the step alone.

    For tasks whose ``model`` is a :class:`~..models.ChannelViT`::

        trainer:
          callbacks:
            - class_path: torchgeo_channelmae.transforms.SampleBands
    """

    def __init__(self, min_bands: int = 1, protect: Sequence[str] = ()) -> None:
        """Initialize a new SampleBands instance.

        Args:
            min_bands: The fewest bands of a step.
            protect: Names of bands that are there at every step.
        """
        self.min_bands = min_bands
        self.protect = tuple(protect)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the model can do with fewer bands, and has those asked for.

        Args:
            trainer: The trainer.
            pl_module: The task.

        Raises:
            ValueError: If it can not.
        """
        model = getattr(pl_module, 'model', None)
        if not isinstance(model, ChannelViT) or hasattr(pl_module, 'decoder'):
            raise ValueError(
                'SampleBands needs a task that fine-tunes a channel-token encoder '
                f'(channelmae_*), but {type(pl_module).__name__} trains '
                f'{type(model).__name__}: leave it out; in a pretraining `masking` '
                f'hides bands.'
            )
        sample_bands(model.bands, self.min_bands, self.protect, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the bands of this step.

        Args:
            trainer: The trainer.
            pl_module: The task.
            batch: Its ``image`` loses the other bands.
            batch_idx: Number of the batch in the epoch.
        """
        model: Any = pl_module.model
        model.choose_bands(None)
        step = trainer.fit_loop.total_batch_idx
        chosen = sample_bands(model.bands, self.min_bands, self.protect, step)
        batch['image'] = batch['image'][:, chosen.to(batch['image'].device)]
        model.choose_bands([model.bands[i] for i in chosen.tolist()])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Give the model all of its bands back."""
        model: Any = pl_module.model
        model.choose_bands(None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the model all of its bands back, whatever stopped the step."""
        model = getattr(pl_module, 'model', None)
        if isinstance(model, ChannelViT):
            model.choose_bands(None)


def sample_bands(
    bands: Sequence[str], min_bands: int, protect: Sequence[str], step: int
) -> Tensor:
    """Draw the bands of a step.

    Args:
        bands: Names of all C bands.
        min_bands: The fewest.
        protect: Names of bands that are always there.
        step: Number of the step.

    Returns:
        (k,) int64, their numbers in order.

    Raises:
        ValueError: If there are fewer bands, or none is to stay, or a protected one
            does not exist.
    """
    if not 1 <= min_bands <= len(bands):
        raise ValueError(
            f'min_bands is {min_bands}, but there are {len(bands)} bands '
            f'({", ".join(bands)}): give 1 to {len(bands)}.'
        )
    for name in protect:
        if name not in bands:
            raise ValueError(
                f'Protected band {name!r} does not exist: the bands are '
                f'{", ".join(bands)}.'
            )
    drawn = generator(global_seed(), 'bands of a step', step)
    least = max(min_bands, len(set(protect)))
    count = int(torch.randint(least, len(bands) + 1, (1,), generator=drawn))
    order = torch.rand(len(bands), generator=drawn)
    order[[list(bands).index(name) for name in protect]] = -1.0
    return order.argsort()[:count].sort().values
