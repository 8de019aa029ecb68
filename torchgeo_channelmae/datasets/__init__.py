"""BigEarthNet with Sentinel-1 and Sentinel-2 bands by name, as they are stored."""

from .bigearthnet import BigEarthNetLMDB

__all__ = ['BigEarthNetLMDB']
