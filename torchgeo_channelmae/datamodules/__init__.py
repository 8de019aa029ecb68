"""Datamodules: what feeds the tasks."""

from .bigearthnet import BigEarthNetS1S2DataModule
from .geo import GeoPretrainingDataModule
from .pretraining import PretrainingDataModule

__all__ = [
    'BigEarthNetS1S2DataModule',
    'GeoPretrainingDataModule',
    'PretrainingDataModule',
]
