"""Datasets that TorchGeo lacks, or reads otherwise than they are stored."""

from .archives import BigEarthNetV1GeoTIFF, BigEarthNetV2GeoTIFF
from .bigearthnet import BigEarthNetLMDB
from .copernicus import CopernicusBenchBigEarthNet

__all__ = [
    'BigEarthNetLMDB',
    'BigEarthNetV1GeoTIFF',
    'BigEarthNetV2GeoTIFF',
    'CopernicusBenchBigEarthNet',
]
