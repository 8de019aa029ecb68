"""Kornia augmentations of standardised bands, for any number of bands."""

from .atmosphere import RandomHaze
from .augment import AugmentBatches, spectral_augmentations
from .bands import (
    RandomBandDropout,
    RandomBandGain,
    RandomBandNoise,
    RandomSpectralShift,
)
from .base import BandAugmentation
from .radar import RandomSpeckle
from .sampling import SampleBands

__all__ = (
    'AugmentBatches',
    'BandAugmentation',
    'RandomBandDropout',
    'RandomBandGain',
    'RandomBandNoise',
    'RandomHaze',
    'RandomSpeckle',
    'RandomSpectralShift',
    'SampleBands',
    'spectral_augmentations',
)
