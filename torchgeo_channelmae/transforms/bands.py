"""Augmentations of single bands: missing, brighter, shifted, noisy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..sensors import find
from .base import (
    BandAugmentation,
    LinearAugmentation,
    check_span,
    per_band,
    uniform,
)
from .noise import draw_seeds, normal_field


class RandomBandDropout(BandAugmentation):
    """Set some bands to 0, the mean of a standardised band; never all of them.

    How many is drawn from `count`, each number alike; then that many bands, each set
    of bands alike. Makes a model that does not lean on one band.
    """

    def __init__(
        self,
        count: tuple[int, int] = (0, 2),
        protect: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """Initialize a new RandomBandDropout instance.

        Args:
            count: Fewest and most bands that are dropped.
            protect: Names of bands that never are.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.

        Raises:
            ValueError: If the count is negative or more than there are to drop, or a
                protected band does not exist.
        """
        low, high = check_span('count of RandomBandDropout', count, 0)
        if low != int(low) or high != int(high):
            raise ValueError(
                f'count of RandomBandDropout is {list(count)}: give whole numbers.'
            )
        self.count = int(low), int(high)
        self.protect = tuple(dict.fromkeys(protect))
        super().__init__(**kwargs)

    def check_bands(self, bands: tuple[str, ...]) -> None:
        """Check that protected bands exist, and that enough can be dropped."""
        for name in self.protect:
            if name not in bands:
                raise ValueError(
                    f'Protected band {name!r} does not exist: the bands are '
                    f'{", ".join(bands)}.'
                )
        self._check_count(len(bands))

    def _check_count(self, channels: int) -> None:
        most = min(channels - len(self.protect), channels - 1)
        if self.count[1] > most:
            raise ValueError(
                f'RandomBandDropout is to drop up to {self.count[1]} of {channels} '
                f'bands, of which {len(self.protect)} are protected and one has to '
                f'stay: set count to at most {most}.'
            )

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``drop`` (B, C), which bands are dropped."""
        if self.protect:
            names = self.names(channels)
            self.check_bands(names)
        self._check_count(channels)
        order = torch.rand(samples, channels)
        if self.protect:
            order[:, [names.index(name) for name in self.protect]] = 2
        low, high = self.count
        count = torch.randint(low, high + 1, (samples, 1))
        return {'drop': order.argsort(1).argsort(1) < count}

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Set the bands of ``drop`` to 0; what they held, NaN even, is gone."""
        drop = params['drop'].to(input.device, non_blocking=True)
        return input.masked_fill(drop[:, :, None, None], 0)


class RandomBandGain(LinearAugmentation):
    """Stretch and shift every band by draws of its own, as a poor calibration does."""

    def __init__(
        self,
        gain: tuple[float, float] = (0.9, 1.1),
        bias: tuple[float, float] = (-0.1, 0.1),
        **kwargs: Any,
    ) -> None:
        """Initialize a new RandomBandGain instance.

        Args:
            gain: Span of the factor around a band's mean.
            bias: Span of what is added, in standard deviations of the band.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.

        Raises:
            ValueError: If a span is in the wrong order, or a gain negative.
        """
        self.gain = check_span('gain of RandomBandGain', gain, 0)
        self.bias = check_span('bias of RandomBandGain', bias, None)
        super().__init__(**kwargs)

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``gain`` and ``bias``, (B, C) each."""
        return {
            'gain': uniform(self.gain, samples, channels),
            'bias': uniform(self.bias, samples, channels),
        }


class RandomSpectralShift(LinearAugmentation):
    """Shift bands such that neighbours in wavelength go together.

    The shift is a Gaussian process over the logarithm of the wavelength: of one
    surface to the next, spectra differ smoothly. Its correlation between two bands is
    exp(-0.5 (ln(a / b) / length)^2). Bands without a wavelength, such as radar's, stay
    as they are.
    """

    def __init__(
        self, std_shift: float = 0.2, length: float = 0.3, **kwargs: Any
    ) -> None:
        """Initialize a new RandomSpectralShift instance.

        Args:
            std_shift: Standard deviation of the shift of a band, in standard
                deviations of the band.
            length: Over which ratio of wavelengths it changes, as a natural logarithm;
                0.3 is from green to near infrared one and a half times.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.

        Raises:
            ValueError: If one of them is not positive.
        """
        for name, value in (('std_shift', std_shift), ('length', length)):
            if not value > 0:
                raise ValueError(
                    f'{name} of RandomSpectralShift is {value}: it has to be above 0.'
                )
        self.std_shift = std_shift
        self.length = length
        super().__init__(**kwargs)

    def covariance(self, channels: int) -> Tensor:
        """Covariance of the shifts of the bands.

        Returns:
            (C, C) float64, in squared standard deviations of the bands.
        """
        lengths = wavelengths(self.names(channels))
        distance = (lengths[:, None].log() - lengths.log()) / self.length
        correlation = torch.exp(-0.5 * distance**2).nan_to_num(0)
        return self.std_shift**2 * correlation

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``bias`` (B, C)."""
        values, vectors = torch.linalg.eigh(self.covariance(channels))
        root = vectors * values.clamp(min=0).sqrt()  # root @ root.T is the covariance
        draws = torch.randn(samples, channels, dtype=torch.float64)
        return {'bias': (draws @ root.T).float()}


class RandomBandNoise(BandAugmentation):
    """Add normal noise to every pixel, in each band as strong as drawn for it."""

    def __init__(
        self, std_noise: tuple[float, float] = (0, 0.1), **kwargs: Any
    ) -> None:
        """Initialize a new RandomBandNoise instance.

        Args:
            std_noise: Span of the standard deviation of the noise of a band, in
                standard deviations of the band.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`.

        Raises:
            ValueError: If the span is in the wrong order or negative.
        """
        self.std_noise = check_span('std_noise of RandomBandNoise', std_noise, 0)
        super().__init__(**kwargs)

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``strength`` (B, C) and ``seed`` (B,), which the field is made from."""
        strength = uniform(self.std_noise, samples, channels)
        return {'strength': strength, 'seed': draw_seeds(samples)}

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Add the noise."""
        field = normal_field(input, params['seed'])
        return torch.addcmul(input, field, per_band(params['strength'], input))


def wavelengths(bands: Sequence[str]) -> Tensor:
    """Central wavelengths of bands.

    Args:
        bands: Their names.

    Returns:
        (C,) float64 in nm, NaN where a band has none or is not known.
    """
    found = [find(name) for name in bands]
    return torch.tensor(
        [
            float('nan') if band is None or band.wavelength is None else band.wavelength
            for band in found
        ],
        dtype=torch.float64,
    )
