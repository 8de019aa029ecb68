"""Haze: less light from the ground and more from the air, mostly in the blue."""

from typing import Any

import torch
from torch import Tensor

from .bands import wavelengths
from .base import LinearAugmentation, check_span, uniform


class RandomHaze(LinearAugmentation):
    """Add haze: reflectance becomes t * reflectance + (1 - t) * airlight.

    The transmission t of a band is exp(-thickness (wavelength / 550 nm)^-exponent),
    Angstrom's law of the optical thickness of aerosols
    (https://doi.org/10.1080/20014422.1929.11880498), so that haze is strong in the
    blue and weak in the infrared. Bands without a wavelength (radar) do not change.
    """

    def __init__(
        self,
        thickness: tuple[float, float] = (0.0, 0.3),
        exponent: tuple[float, float] = (1.0, 2.0),
        airlight: float = 3000.0,
        **kwargs: Any,
    ) -> None:
        """Initialize a new RandomHaze instance.

        Args:
            thickness: Span of the optical thickness at 550 nm.
            exponent: Span of Angstrom's exponent; small for coarse particles.
            airlight: Value of dense haze, in the unit of the bands' mean: digital
                numbers of reflectance x 10,000.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`; the bands' mean and
                std are needed.
        """
        self.thickness = check_span('thickness of RandomHaze', thickness, 0)
        self.exponent = check_span('exponent of RandomHaze', exponent, 0)
        if not airlight >= 0:
            raise ValueError(f'airlight of RandomHaze is {airlight}. Use 0 or more.')
        self.airlight = airlight
        super().__init__(**kwargs)

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw one haze per sample, as ``gain`` and ``bias``, (B, C) each."""
        ratio = wavelengths(self.names(channels)) / 550
        mean, std = self.statistics(channels)
        thickness = uniform(self.thickness, samples, 1)
        exponent = uniform(self.exponent, samples, 1)
        depth = (thickness * ratio ** (-exponent)).nan_to_num(0)
        gain = torch.exp(-depth)
        bias = (1 - gain) * (self.airlight - mean) / std
        return {'gain': gain.float(), 'bias': bias.float()}
