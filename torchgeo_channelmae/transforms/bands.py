"""Augmentations of bands: dropout, gain, spectral shift, noise."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..sensors import wavelength
from .base import (
    BandAugmentation,
    LinearAugmentation,
    check_protected,
    check_span,
    per_band,
    uniform,
)
from .noise import draw_seeds, normal_field


class RandomBandDropout(BandAugmentation):
    """Set some bands to 0, the mean of a standardized band; never all of them.

    The number of bands is drawn uniformly from `count`, then the bands uniformly among
    sets of that size, so that a model does not depend on any single band.
    """

    def __init__(
        self,
        count: tuple[int, int] = (0, 2),
        protect: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """Initialize a new RandomBandDropout instance.

        Args:
            count: Smallest and largest number of bands that are dropped.
            protect: Names of bands that are never dropped.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.
        """
        low, high = check_span('count of RandomBandDropout', count, 0)
        if low != int(low) or high != int(high):
            raise ValueError(f'count of RandomBandDropout is {count}. Use integers.')
        self.count = int(low), int(high)
        self.protect = tuple(dict.fromkeys(protect))
        super().__init__(**kwargs)

    def check_bands(self, bands: tuple[str, ...]) -> None:
        """Check that protected bands exist, and that enough can be dropped."""
        check_protected(self.protect, bands)
        self._check_count(len(bands))

    def _check_count(self, channels: int) -> None:
        most = min(channels - len(self.protect), channels - 1)
        if self.count[1] > most:
            raise ValueError(
                f'RandomBandDropout cannot drop {self.count[1]} of {channels} bands, '
                f'{len(self.protect)} of them protected. Set count to at most {most}.'
            )

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``drop`` (B, C), the bands to drop."""
        names = self.names(channels) if self.protect else ()
        self._check_count(channels)
        order = torch.rand(samples, channels)
        order[:, [names.index(name) for name in self.protect]] = 2
        low, high = self.count
        count = torch.randint(low, high + 1, (samples, 1))
        return {'drop': order.argsort(1).argsort(1) < count}

    def apply(self, images: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Set the bands of ``drop`` to 0, whatever they held (even NaN)."""
        drop = params['drop'].to(images.device, non_blocking=True)
        return images.masked_fill(drop[:, :, None, None], 0)


class RandomBandGain(LinearAugmentation):
    """Scale and shift every band independently, like a poor calibration."""

    def __init__(
        self,
        gain: tuple[float, float] = (0.9, 1.1),
        bias: tuple[float, float] = (-0.1, 0.1),
        **kwargs: Any,
    ) -> None:
        """Initialize a new RandomBandGain instance.

        Args:
            gain: Span of the factor around a band's mean.
            bias: Span of the shift, in standard deviations of the band.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.
        """
        self.gain = check_span('gain of RandomBandGain', gain, 0)
        self.bias = check_span('bias of RandomBandGain', bias)
        super().__init__(**kwargs)

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``gain`` and ``bias``, (B, C) each."""
        return {
            'gain': uniform(self.gain, samples, channels),
            'bias': uniform(self.bias, samples, channels),
        }


class RandomSpectralShift(LinearAugmentation):
    """Shift bands so that neighbors in wavelength move together.

    The shift is a Gaussian process over the logarithm of the wavelength, as spectra of
    surfaces differ smoothly. The correlation of two bands at wavelengths a and b is
    exp(-0.5 (ln(a / b) / length)^2). Bands without a wavelength (radar) do not change.
    """

    def __init__(
        self, std_shift: float = 0.2, length: float = 0.3, **kwargs: Any
    ) -> None:
        """Initialize a new RandomSpectralShift instance.

        Args:
            std_shift: Standard deviation of the shift of a band, in standard
                deviations of the band.
            length: Natural logarithm of the ratio of wavelengths over which the shift
                changes; green to near infrared is 1.5 times 0.3.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.
        """
        if not (std_shift > 0 and length > 0):
            raise ValueError(
                f'RandomSpectralShift has std_shift {std_shift} and length {length}. '
                f'Use values above 0.'
            )
        self.std_shift = std_shift
        self.length = length
        super().__init__(**kwargs)

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``bias`` (B, C)."""
        lengths = wavelengths(self.names(channels))
        distance = (lengths[:, None].log() - lengths.log()) / self.length
        correlation = torch.exp(-0.5 * distance**2).nan_to_num(0)
        values, vectors = torch.linalg.eigh(self.std_shift**2 * correlation)
        root = vectors * values.clamp(min=0).sqrt()  # root @ root.T is the covariance
        draws = torch.randn(samples, channels, dtype=torch.float64)
        return {'bias': (draws @ root.T).float()}


class RandomBandNoise(BandAugmentation):
    """Add normal noise to every pixel, with a random strength per band."""

    def __init__(
        self, std_noise: tuple[float, float] = (0, 0.1), **kwargs: Any
    ) -> None:
        """Initialize a new RandomBandNoise instance.

        Args:
            std_noise: Span of the standard deviation of the noise of a band, in
                standard deviations of the band.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.
        """
        self.std_noise = check_span('std_noise of RandomBandNoise', std_noise, 0)
        super().__init__(**kwargs)

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``strength`` (B, C) and ``seed`` (B,) of the noise."""
        strength = uniform(self.std_noise, samples, channels)
        return {'strength': strength, 'seed': draw_seeds(samples)}

    def apply(self, images: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Add the noise."""
        field = normal_field(images, params['seed'])
        return torch.addcmul(images, field, per_band(params['strength'], images))


def wavelengths(bands: Sequence[str]) -> Tensor:
    """Return the (C,) central wavelengths of bands in nm, NaN if there is none."""
    known = [wavelength(name) or math.nan for name in bands]
    return torch.tensor(known, dtype=torch.float64)
