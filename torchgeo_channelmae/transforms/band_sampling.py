"""Hierarchical channel sampling: train each step on a random subset of the bands."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..models.channelvit import ChannelViT
from ..randomness import generator, global_seed
from .augment import AugmentBatches
from .base import check_protected


class SampleBands(Callback):
    """Fine-tune on a random subset of the bands each step, evaluate on all.

    ChannelViT's hierarchical channel sampling (https://arxiv.org/abs/2309.16108): first
    the number of bands is drawn uniformly, then the bands. Fewer bands are fewer
    tokens, so steps are faster, and the model learns to work with the bands it gets.
    All processes draw the same bands at a step, as a function of seed and step.

    For tasks whose ``model`` is a :class:`~..models.ChannelViT`::

        trainer:
          callbacks:
            - class_path: torchgeo_channelmae.transforms.SampleBands
    """

    def __init__(self, min_bands: int = 1, protect: Sequence[str] = ()) -> None:
        """Initialize a new SampleBands instance.

        Args:
            min_bands: Smallest number of bands of a step.
            protect: Names of bands that every step has.
        """
        self.min_bands = min_bands
        self.protect = tuple(protect)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the task, the protected bands and the order of the callbacks.

        Raises a ValueError if the task is not a fine-tuning of a ChannelViT, a
        protected band does not exist, or AugmentBatches comes later.
        """
        model = getattr(pl_module, 'model', None)
        if not isinstance(model, ChannelViT) or hasattr(pl_module, 'decoder'):
            raise ValueError(
                'SampleBands only fine-tunes channel-token encoders, but '
                f'{type(pl_module).__name__} trains {type(model).__name__}. Remove it; '
                f'in pretraining, use `masking` to hide bands.'
            )
        sample_bands(model.bands, self.min_bands, self.protect, 0)
        later = trainer.callbacks[trainer.callbacks.index(self) :]  # type: ignore[attr-defined]
        if any(isinstance(callback, AugmentBatches) for callback in later):
            raise ValueError(
                'SampleBands comes before AugmentBatches, which needs all bands. List '
                'AugmentBatches first in trainer.callbacks.'
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep only the bands of this step, in the batch and in the model."""
        model: Any = pl_module.model
        model.choose_bands(None)
        step = trainer.fit_loop.total_batch_idx
        chosen = sample_bands(model.bands, self.min_bands, self.protect, step)
        batch['image'] = batch['image'][:, chosen.to(batch['image'].device)]
        model.choose_bands([model.bands[i] for i in chosen.tolist()])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Restore all bands of the model."""
        model: Any = pl_module.model
        model.choose_bands(None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore all bands of the model, whatever stopped the step."""
        model = getattr(pl_module, 'model', None)
        if isinstance(model, ChannelViT):
            model.choose_bands(None)


def sample_bands(
    bands: Sequence[str], min_bands: int, protect: Sequence[str], step: int
) -> Tensor:
    """Draw the bands of a step: (k,) int64 positions in `bands`, in order.

    At least `min_bands` of them, and always those in `protect`. Raises a ValueError if
    `min_bands` does not fit, or a protected band does not exist.
    """
    if not 1 <= min_bands <= len(bands):
        raise ValueError(
            f'min_bands is {min_bands}. Use 1 to {len(bands)}, the number of bands.'
        )
    check_protected(protect, bands)
    drawn = generator(global_seed(), 'bands of a step', step)
    least = max(min_bands, len(set(protect)))
    count = int(torch.randint(least, len(bands) + 1, (1,), generator=drawn))
    order = torch.rand(len(bands), generator=drawn)
    order[[list(bands).index(name) for name in protect]] = -1.0
    return order.argsort()[:count].sort().values
