"""What all augmentations of bands share: names, statistics and how they draw.

Kornia's own intensity augmentations are for photographs: most clamp to [0, 1], which
destroys standardised bands, or take three channels alone. These here take images
(B, C, H, W) whose bands have a mean of about 0 and a standard deviation of about 1.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from ..sensors import check_names, default_names


class BandAugmentation(IntensityAugmentationBase2D):
    """An augmentation that draws a value a sample and band.

    A subclass draws in :meth:`draw` and computes in ``apply_transform``. What it draws
    comes from torch's global generator, on the CPU wherever the images are, and is
    enough to compute the same again (``augmentation(images, params=...)``).

    Attributes:
        bands: Names of the bands, None where they are not known.
        mean: (C,) mean of each band in physical units, None where it is not known.
        std: (C,) standard deviation of each band, None where it is not known.
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
            bands: Names of the bands, in the order of the channels. Defaults to those
                that the number of channels stands for
                (:func:`~torchgeo_channelmae.sensors.default_names`), where names are
                needed.
            mean: Mean of each band in physical units (digital numbers of reflectance x
                10,000, decibels), that was subtracted.
            std: Standard deviation of each band in physical units, divided by.
            p: Probability that a sample is augmented.
            same_on_batch: Whether all samples of a batch get the same draw.
            keepdim: Whether (C, H, W) comes back as that, not as (1, C, H, W).

        Raises:
            ValueError: If an argument does not fit.
        """
        if not 0 <= p <= 1:
            raise ValueError(f'p is {p}: give a probability, from 0 to 1.')
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
        """Take over what is known of the bands, where it is not yet known.

        Args:
            bands: Names of the bands.
            mean: Mean of each band in physical units.
            std: Standard deviation of each.

        Returns:
            The augmentation itself.

        Raises:
            ValueError: If the numbers of names and statistics differ, or what is
                asked for does not fit these bands.
        """
        if bands is not None:
            check_names(bands)
            if self.bands not in (None, tuple(bands)):
                raise ValueError(
                    f'{self._name} is for the bands {", ".join(self.bands or ())}, '
                    f'but the data have {", ".join(bands)}: make them agree, or leave '
                    f'out bands of the augmentation.'
                )
            self.bands = tuple(bands)
        for name, given in (('mean', mean), ('std', std)):
            if given is not None and getattr(self, name) is None:
                values = torch.as_tensor(given, dtype=torch.float32).cpu()
                if self.bands is not None and values.shape != (len(self.bands),):
                    raise ValueError(
                        f'{name} of {self._name} has the shape {tuple(values.shape)} '
                        f'for {len(self.bands)} bands: give one value a band.'
                    )
                setattr(self, name, values)
        if self.std is not None and not bool((self.std > 0).all()):
            raise ValueError(
                f'std of {self._name} is {self.std.tolist()}: each has to be above 0.'
            )
        if self.bands is not None:
            self.check_bands(self.bands)
        return self

    def check_bands(self, bands: tuple[str, ...]) -> None:
        """Check that the augmentation can do what it is asked for with some bands.

        Args:
            bands: Their names.

        Raises:
            ValueError: If it can not.
        """

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw what the augmentation needs.

        Args:
            samples: Number of samples, B.
            channels: C, number of bands.

        Returns:
            Tensors with one row a sample, on the CPU.
        """
        raise NotImplementedError

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw the parameters of a batch, as Kornia asks for them.

        Args:
            batch_shape: (B, C, H, W).

        Returns:
            Tensors with one row a sample.

        Raises:
            ValueError: If the images have other channels than the bands named.
        """
        samples, channels = int(batch_shape[0]), int(batch_shape[1])
        if self.bands is not None and len(self.bands) != channels:
            raise ValueError(
                f'{self._name} is for {len(self.bands)} bands '
                f'({", ".join(self.bands)}), but the images have {channels}.'
            )
        if not self.same_on_batch:
            return self.draw(samples, channels)
        drawn = self.draw(1, channels)
        return {
            name: value.expand(samples, *value.shape[1:]).contiguous()
            for name, value in drawn.items()
        }

    def names(self, channels: int) -> tuple[str, ...]:
        """Names of the bands, by their number where nothing else is known."""
        if self.bands is not None:
            return self.bands
        names = default_names(channels)
        self.check_bands(names)
        return names

    def statistics(self, channels: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each band, (C,) each, on the CPU.

        Raises:
            ValueError: If they are not known.
        """
        if self.mean is None or self.std is None or len(self.std) != channels:
            raise ValueError(
                f'{self._name} acts on physical units and does not know the mean and '
                f'std of the {channels} bands: give mean=[...] and std=[...], a value '
                f'a band, or use it in AugmentBatches with a datamodule that has them.'
            )
        return self.mean, self.std

    @property
    def _name(self) -> str:
        return type(self).__name__


class LinearAugmentation(BandAugmentation):
    """An augmentation of the form ``gain * x + bias``, with one of each a band."""

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Compute it.

        Args:
            input: (B, C, H, W).
            params: ``gain`` and ``bias`` (B, C); either may be missing.
            flags: Not used.
            transform: Not used.

        Returns:
            (B, C, H, W), of the input's type.
        """
        gain, bias = (
            None if values is None else per_band(values, input)
            for values in (params.get('gain'), params.get('bias'))
        )
        if gain is None:
            return input if bias is None else input + bias
        return input * gain if bias is None else torch.addcmul(bias, input, gain)


def per_band(values: Tensor, images: Tensor) -> Tensor:
    """Shape values of each sample and band to be computed with images.

    Args:
        values: (B, C).
        images: (B, C, H, W).

    Returns:
        (B, C, 1, 1), on the device and of the type of the images.
    """
    moved = values.to(device=images.device, dtype=images.dtype, non_blocking=True)
    return moved[:, :, None, None]


def uniform(span: tuple[float, float], *shape: int) -> Tensor:
    """Draw from a span with torch's global generator, on the CPU."""
    return torch.empty(shape).uniform_(*span)


def check_span(
    name: str, span: Sequence[float], least: float | None, unit: str = ''
) -> tuple[float, float]:
    """Check a span to draw from.

    Args:
        name: What it is, for the error.
        span: Its two ends.
        least: The least that may be, None for no bound.
        unit: What the bound is said in.

    Returns:
        The two ends.

    Raises:
        ValueError: If they are not two numbers in order, or below the bound.
    """
    if len(span) != 2 or not span[0] <= span[1]:
        raise ValueError(f'{name} is {list(span)}: give two numbers, the lower first.')
    if least is not None and span[0] < least:
        raise ValueError(
            f'{name} is {list(span)}: it can not be below {least:g}{unit}.'
        )
    return float(span[0]), float(span[1])
