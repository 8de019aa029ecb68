"""Samplers of training epochs."""

from .epoch import EpochSampler, LandCoverBalancedSampler, RepeatedDataset

__all__ = ['EpochSampler', 'LandCoverBalancedSampler', 'RepeatedDataset']
