"""Datamodules: what feeds the tasks."""

from .bigearthnet import BigEarthNetS1S2DataModule

__all__ = ['BigEarthNetS1S2DataModule']
