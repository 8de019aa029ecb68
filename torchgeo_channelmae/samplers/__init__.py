"""Samplers of training epochs."""

from .balanced import LandCoverBalancedSampler
from .epoch import EpochSampler, Visits

__all__ = ['EpochSampler', 'LandCoverBalancedSampler', 'Visits']
