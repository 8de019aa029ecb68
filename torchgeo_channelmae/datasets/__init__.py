"""Datasets that TorchGeo lacks."""

from .bigearthnet import BigEarthNetLMDB

__all__ = ['BigEarthNetLMDB']
