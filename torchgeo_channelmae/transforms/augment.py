"""Augment the training batches of any datamodule."""

from collections.abc import Mapping, Sequence
from typing import Any

import kornia.augmentation
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ..config import ClassSpec, build, find_class
from ..randomness import derive_seed, global_seed
from .bands import RandomBandDropout, RandomBandGain, RandomBandNoise
from .base import BandAugmentation
from .haze import RandomHaze
from .speckle import RandomSpeckle


class AugmentBatches(Callback):
    """Augment training batches after the datamodule has normalized them.

    ``train_aug`` of a TorchGeo datamodule replaces ``aug``, and with it the
    normalization; this callback augments the normalized batches. Draws are a function
    of seed, step and process, so a resumed run repeats those of an uninterrupted one.
    Validation and test are not augmented::

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
            augmentations: The augmentations, in order: modules, or ``class_path`` and
                ``init_args``, with short names for those of this package and Kornia.
                Defaults to :func:`spectral_augmentations`.
            bands: Names of the bands. Defaults to those of the datamodule or the model.
            mean: Mean of each band in physical units. Defaults to the datamodule's.
            std: Standard deviation of each band. Defaults to the datamodule's.
            key: Key of the images in a batch, all bands in one tensor.
        """
        self.augmentations: list[ClassSpec | nn.Module] = (
            [*spectral_augmentations()] if augmentations is None else augmentations
        )
        self.bands = bands
        self.mean = mean
        self.std = std
        self.key = key

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Build the augmentations."""
        if stage == 'fit':
            self.augmentations = [_built(each) for each in self.augmentations]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bind the augmentations to the bands of the datamodule or the model."""
        datamodule = getattr(trainer, 'datamodule', None)
        model = getattr(pl_module, 'model', None)
        bands = self.bands or _names(datamodule) or _names(model)
        mean, std = (
            _statistic(datamodule, name, bands) if given is None else given
            for name, given in (('mean', self.mean), ('std', self.std))
        )
        for augmentation in self.augmentations:
            if isinstance(augmentation, BandAugmentation):
                augmentation.bind(bands, mean, std)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Augment the images of a batch."""
        if self.key not in batch:
            raise ValueError(
                f'AugmentBatches finds no {self.key!r} in the batch, which has '
                f'{", ".join(batch)}. Set `key`.'
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


def spectral_augmentations() -> list[nn.Module]:
    """Return the default set: mild, for optical and radar bands.

    Haze, gain and speckle for half of the samples, noise for a quarter, and at most one
    band dropped.
    """
    return [
        RandomHaze(p=0.5),
        RandomBandGain(p=0.5),
        RandomBandNoise(p=0.25),
        RandomBandDropout(count=(0, 1)),
        RandomSpeckle(p=0.5),
    ]


def _built(augmentation: Mapping[str, Any] | nn.Module) -> nn.Module:
    """Return an augmentation, building it if needed."""
    if isinstance(augmentation, nn.Module):
        return augmentation
    folders = (__package__, kornia.augmentation)
    kind = find_class(augmentation, 'augmentations', folders)
    made: nn.Module = build(augmentation, 'augmentations', kind)
    return made


def _names(owner: object) -> tuple[str, ...] | None:
    """Return the names of the bands of a datamodule or a model; None if unknown."""
    bands = getattr(owner, 'bands', None)
    if isinstance(bands, Sequence) and bands and all(isinstance(b, str) for b in bands):
        return tuple(bands)
    return None


def _statistic(
    datamodule: object, name: str, bands: Sequence[str] | None
) -> torch.Tensor | None:
    """Return mean or std of a datamodule, if it has one per band."""
    values = getattr(datamodule, name, None)
    if not torch.is_tensor(values) or values.ndim != 1:
        return None
    return values if bands is None or len(values) == len(bands) else None
