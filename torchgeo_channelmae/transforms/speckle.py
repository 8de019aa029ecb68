"""Speckle, the multiplicative noise of radar."""

import math
from typing import Any

import torch
from torch import Tensor

from ..sensors import SENTINEL1_GRD, names
from .base import BandAugmentation, check_span, per_band
from .noise import draw_seeds, speckle_field

_RADAR = (*names(SENTINEL1_GRD), 'HH', 'HV')
_STEPS = 8


class RandomSpeckle(BandAugmentation):
    """Multiply the power of radar bands by gamma noise of mean 1.

    Its variance is 1 / looks: the noise of fully developed speckle in a multi-look
    intensity image (Goodman, https://doi.org/10.1364/JOSA.66.001145). Bands are
    standardized decibels, so the product is a sum. Optical bands do not change.
    """

    def __init__(
        self, looks: tuple[float, float] = (10.0, 50.0), **kwargs: Any
    ) -> None:
        """Initialize a new RandomSpeckle instance.

        Args:
            looks: Span of the number of looks; each sample draws one of 8 steps of
                equal ratio. Sentinel-1 GRD has about 4.4 looks; this adds to it.
            **kwargs: Arguments of :class:`~.base.BandAugmentation`; the bands' std is
                needed.
        """
        self.looks = check_span('looks of RandomSpeckle', looks)
        if not self.looks[0] > 0:
            raise ValueError(f'looks of RandomSpeckle is {looks}. Use values above 0.')
        super().__init__(**kwargs)

    def draw(self, samples: int, channels: int) -> dict[str, Tensor]:
        """Draw ``looks`` (B,), ``scale`` (B, C) in stds per dB, and ``seed`` (B,)."""
        scale = torch.tensor([float(name in _RADAR) for name in self.names(channels)])
        if scale.any():
            scale = scale / self.statistics(channels)[1]
        low, high = map(math.log10, self.looks)
        steps = torch.logspace(low, high, _STEPS).tolist()
        looks = torch.tensor(steps)[torch.randint(_STEPS, (samples,))]
        return {
            'looks': looks,
            'scale': scale.expand(samples, -1).contiguous(),
            'seed': draw_seeds(samples),
        }

    def apply(self, images: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Add the noise in decibels to the radar bands."""
        scale = params['scale']
        radar = scale[0].nonzero().flatten().tolist()
        if not radar:
            return images
        chosen = images[:, radar]
        field = speckle_field(chosen, params['seed'], params['looks'].tolist())
        noisy = torch.addcmul(chosen, field, per_band(scale[:, radar], images))
        index = torch.tensor(radar, device=images.device)
        return images.index_copy(1, index, noisy)
