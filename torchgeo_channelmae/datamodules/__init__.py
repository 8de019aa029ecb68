"""Datamodules: what feeds the tasks."""

from .bigearthnet import BigEarthNetS1S2DataModule
from .copernicus import CopernicusBenchBigEarthNetDataModule
from .geo import GeoPretrainingDataModule
from .pretraining import PretrainingDataModule

__all__ = [
    'BigEarthNetS1S2DataModule',
    'CopernicusBenchBigEarthNetDataModule',
    'GeoPretrainingDataModule',
    'PretrainingDataModule',
]
