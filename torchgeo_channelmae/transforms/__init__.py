"""Kornia augmentations for any number of standardized bands."""

from .augment import AugmentBatches, spectral_augmentations
from .band_sampling import SampleBands
from .bands import (
    RandomBandDropout,
    RandomBandGain,
    RandomBandNoise,
    RandomSpectralShift,
)
from .base import BandAugmentation
from .haze import RandomHaze
from .speckle import RandomSpeckle

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
