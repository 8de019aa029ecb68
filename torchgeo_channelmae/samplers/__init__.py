"""Samplers of training epochs."""

from .epoch import EpochSampler, LandCoverBalancedSampler, Visits

__all__ = ['EpochSampler', 'LandCoverBalancedSampler', 'Visits']
