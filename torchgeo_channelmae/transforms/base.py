"""Base of the band augmentations: names, statistics and random draws.

Kornia's own intensity augmentations are for photographs: most clamp to [0, 1], which
destroys standardized bands, or accept only three channels. These take images
(B, C, H, W) whose bands have a mean of about 0 and a standard deviation of about 1.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from ..sensors import check_names, default_names


class BandAugmentation(IntensityAugmentationBase2D):
    """An augmentation that draws one value per sample and band.

    A subclass draws in :meth:`draw` and computes in :meth:`apply`. Parameters are drawn
    from torch's global CPU generator and suffice to replay an augmentation
    (``augmentation(images, params=...)``).
    """

    def __init__(
        self,
        bands: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        """Initialize a new augmentation.

        Args:
            bands: Names of the bands, in the order of the channels. If names are
                needed, defaults to
                :func:`~torchgeo_channelmae.sensors.default_names`.
            mean: Mean of each band that was subtracted, in physical units (digital
                numbers of reflectance x 10,000, decibels).
            std: Standard deviation of each band that was divided by.
            p: Probability that a sample is augmented.
            same_on_batch: Whether all samples of a batch get the same draw.
            keepdim: Whether (C, H, W) stays that instead of becoming (1, C, H, W).
        """
        if not 0 <= p <= 1:
            raise ValueError(f'p is {p}. Use a probability from 0 to 1.')
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.bands: tuple[str, ...] | None = None
        self.mean: Tensor | None = None
        self.std: Tensor | None = None
        self.bind(bands, mean, std)

    def bind(
        self,
        bands: Sequence[str] | None,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> Self:
        """Set names and statistics (physical units) of bands that are still unknown.

        Raises a ValueError if names and statistics differ in number, or the arguments
        of the augmentation do not fit these bands.
        """
        if bands is not None:
            check_names(bands)
            if self.bands not in (None, tuple(bands)):
                raise ValueError(
                    f'{self._name} is for the bands {", ".join(self.bands or ())}, '
                    f'but the data have {", ".join(bands)}. Remove its `bands`.'
                )
            self.bands = tuple(bands)
        for name, given in (('mean', mean), ('std', std)):
            if given is not None and getattr(self, name) is None:
                values = torch.as_tensor(given, dtype=torch.float32).cpu()
                if self.bands is not None and values.shape != (len(self.bands),):
                    raise ValueError(
                        f'{name} of {self._name} has the shape {tuple(values.shape)}. '
                        f'Use one value for each of the {len(self.bands)} bands.'
                    )
                setattr(self, name, values)
        if self.std is not None and not bool((self.std > 0).all()):
            raise ValueError(
                f'std of {self._name} is {self.std.tolist()}. Use values above 0.'
            )
        if self.bands is not None:
            self.check_bands(self.bands)
        return self

    def check_bands(self, bands: tuple[str, ...]) -> None:
        """Check that the arguments of the augmentation fit these bands."""

    @abstractmethod
    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw the parameters of B samples with C bands, one row per sample."""

    @abstractmethod
    def apply(self, images: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Augment images (B, C, H, W) with parameters of :meth:`draw`."""

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Augment images, as Kornia calls it."""
        return self.apply(input, params)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw the parameters of a batch (B, C, H, W), as Kornia calls it."""
        samples, channels = int(batch_shape[0]), int(batch_shape[1])
        if self.bands is not None and len(self.bands) != channels:
            raise ValueError(
                f'{self._name} is for {len(self.bands)} bands '
                f'({", ".join(self.bands)}), but the images have {channels}.'
            )
        if not self.same_on_batch:
            return self.draw(samples, channels)
        return {
            name: value.expand(samples, *value.shape[1:]).contiguous()
            for name, value in self.draw(1, channels).items()
        }

    def names(self, channels: int) -> tuple[str, ...]:
        """Return the names of the bands, by their number if nothing else is known."""
        if self.bands is not None:
            return self.bands
        names = default_names(channels)
        self.check_bands(names)
        return names

    def statistics(self, channels: int) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each band, (C,) each, on the CPU."""
        if self.mean is None or self.std is None or len(self.std) != channels:
            raise ValueError(
                f'{self._name} needs the mean and std of the {channels} bands. Pass '
                f'mean=[...] and std=[...], or use it in AugmentBatches with a '
                f'datamodule that has them.'
            )
        return self.mean, self.std

    @property
    def _name(self) -> str:
        return type(self).__name__


class LinearAugmentation(BandAugmentation):
    """An augmentation ``gain * x + bias``, with one gain and bias per band."""

    def apply(self, images: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Apply ``gain`` (B, C), if there is one, and ``bias`` (B, C)."""
        bias = per_band(params['bias'], images)
        if 'gain' not in params:
            return images + bias
        return torch.addcmul(bias, images, per_band(params['gain'], images))


def per_band(values: Tensor, images: Tensor) -> Tensor:
    """Return values (B, C) as (B, C, 1, 1) on the device and in the type of images."""
    moved = values.to(device=images.device, dtype=images.dtype, non_blocking=True)
    return moved[:, :, None, None]


def check_protected(protect: Sequence[str], bands: Sequence[str]) -> None:
    """Raise a ValueError if a protected band does not exist."""
    for name in protect:
        if name not in bands:
            raise ValueError(
                f'Unknown protected band {name!r}. The bands are {", ".join(bands)}.'
            )


def uniform(span: tuple[float, float], *shape: int) -> Tensor:
    """Draw uniformly from a span, on the CPU."""
    return torch.empty(shape).uniform_(*span)


def check_span(
    name: str, span: Sequence[float], least: float = -math.inf
) -> tuple[float, float]:
    """Return both ends of a span; a ValueError if not in order or below `least`."""
    if len(span) != 2 or not span[0] <= span[1]:
        raise ValueError(f'{name} is {list(span)}. Use two numbers, the lower first.')
    if span[0] < least:
        raise ValueError(f'{name} is {list(span)}. Use at least {least:g}.')
    return float(span[0]), float(span[1])
