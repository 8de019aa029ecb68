"""Augmentations in the training of any datamodule, ours and TorchGeo's."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import kornia.augmentation
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ..config import ClassSpec, build, find_class
from ..randomness import derive_seed, global_seed
from ..sensors import default_names
from .atmosphere import RandomHaze
from .bands import RandomBandDropout, RandomBandGain, RandomBandNoise
from .base import BandAugmentation
from .radar import RandomSpeckle


class AugmentBatches(Callback):
    """Augment training batches after the datamodule has normalised them.

    TorchGeo's ``train_aug`` of a datamodule takes the place of ``aug``, and with it of
    the normalisation. This callback takes nothing's place: the datamodule transfers,
    normalises and augments as it does, then these come on top. Draws depend on the
    seed, the step and the process alone, so a resumed training draws what an unbroken
    one does. Validation and test are left alone::

        trainer:
          callbacks:
            - class_path: torchgeo_channelmae.transforms.AugmentBatches
    """

    def __init__(
        self,
        augmentations: list[ClassSpec | nn.Module] | None = None,
        bands: list[str] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        key: str = 'image',
    ) -> None:
        """Initialize a new AugmentBatches instance.

        Args:
            augmentations: What to do, in this order: those of this package, or any of
                Kornia's that takes the bands; each as it is, or as ``class_path``,
                short for those, and ``init_args``. Defaults to
                :func:`spectral_augmentations`.
            bands: Names of the bands. Defaults to those of the datamodule or the
                model, or to those that the number of channels stands for.
            mean: Mean of each band in physical units. Defaults to the datamodule's.
            std: Standard deviation of each. Defaults to the datamodule's.
            key: Which images of a batch: one draw serves one image, so bands of several
                sensors have to be in one.

        """
        self.augmentations: list[ClassSpec | nn.Module] = (
            [*spectral_augmentations()] if augmentations is None else augmentations
        )
        self.bands = bands
        self.mean = mean
        self.std = std
        self.key = key

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Build the augmentations, so that what is wrong with one is told in a line.

        Args:
            trainer: The trainer.
            pl_module: The task.
            stage: Either 'fit', 'validate', 'test' or 'predict'.

        Raises:
            ValueError: If there is none, or one can not be made.
        """
        if stage != 'fit':
            return
        if not self.augmentations:
            raise ValueError(
                'augmentations of AugmentBatches is empty: name one, or leave it out '
                'for the default ones.'
            )
        self.augmentations = [_built(each) for each in self.augmentations]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the augmentations what is known of the bands.

        Args:
            trainer: The trainer, whose datamodule is asked.
            pl_module: The task, whose model is asked.

        Raises:
            ValueError: If an augmentation does not fit the bands.
        """
        datamodule = getattr(trainer, 'datamodule', None)
        model = getattr(pl_module, 'model', None)
        bands = self.bands or _names(datamodule) or _names(model)
        mean, std = (
            getattr(self, name)
            if getattr(self, name) is not None
            else _statistic(datamodule, name, bands)
            for name in ('mean', 'std')
        )
        for augmentation in self.augmentations:
            if isinstance(augmentation, BandAugmentation):
                augmentation.bind(bands, mean, std)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Augment a batch, in place of the images in it.

        Args:
            trainer: The trainer.
            pl_module: The task.
            batch: Its images are normalised.
            batch_idx: Number of the batch in the epoch.

        Raises:
            ValueError: If the batch has no such images.
        """
        if not isinstance(batch, dict) or self.key not in batch:
            keys = ', '.join(batch) if isinstance(batch, dict) else 'no keys'
            raise ValueError(
                f'AugmentBatches finds no {self.key!r} in the batch, which has '
                f'{keys}: give the key of its images.'
            )
        seed = derive_seed(
            global_seed(), 'bands', trainer.global_step, batch_idx, trainer.global_rank
        )
        images = batch[self.key]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            for augmentation in self.augmentations:
                images = _built(augmentation)(images)
        batch[self.key] = images


def spectral_augmentations(radar: bool = True) -> list[nn.Module]:
    """Make the default set: mild, and right for optical and radar bands alike.

    Args:
        radar: Whether speckle is one of them.

    Returns:
        Haze and gain half of the time, noise a quarter, one band or none dropped, and
        speckle half of the time.
    """
    steps: list[nn.Module] = [
        RandomHaze(p=0.5),
        RandomBandGain(p=0.5),
        RandomBandNoise(p=0.25),
        RandomBandDropout(count=(0, 1)),
    ]
    return [*steps, RandomSpeckle(p=0.5)] if radar else steps


def _built(augmentation: Mapping[str, Any] | nn.Module) -> nn.Module:
    """Return an augmentation, built if it is only named."""
    if isinstance(augmentation, nn.Module):
        return augmentation
    folders = (sys.modules[__package__], kornia.augmentation)
    kind = find_class(augmentation, 'augmentations', folders)
    made: nn.Module = build(augmentation, 'augmentations', kind)
    return made


def _names(owner: object) -> tuple[str, ...] | None:
    """Names of the bands of a datamodule or a model, where it tells them."""
    bands = getattr(owner, 'bands', None)
    if isinstance(bands, Sequence) and bands and all(isinstance(b, str) for b in bands):
        return tuple(bands)
    return None


def _statistic(
    datamodule: object, name: str, bands: Sequence[str] | None
) -> torch.Tensor | None:
    """Mean or std of a datamodule, where there is one a band."""
    values = getattr(datamodule, name, None)
    if not torch.is_tensor(values) or values.ndim != 1:
        return None
    if bands is None:
        try:
            bands = default_names(len(values))
        except ValueError:
            return None
    return values if len(values) == len(bands) else None
