"""Samplers of training epochs."""

from .balanced import LandCoverBalancedSampler
from .epoch import EpochSampler, RepeatedDataset

__all__ = ['EpochSampler', 'LandCoverBalancedSampler', 'RepeatedDataset']
