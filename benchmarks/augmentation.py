"""What the augmentations of bands cost, beside a pretraining step.

    uv run python -m benchmarks.augmentation

Each on 64 x 12 x 128 x 128 float32 (speckle on radar bands), and the default set, against
a pretraining step of ViT-S with the same batch (patch 16, mask 0.75, decoder 512 wide, 4
deep). Times alternate in one process; medians and the best of the runs in milliseconds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from torchgeo_channelmae.models import ChannelMAEDecoder
from torchgeo_channelmae.sensors import SENTINEL1_GRD, SENTINEL2_L2A, names
from torchgeo_channelmae.tasks import ChannelMAE
from torchgeo_channelmae.transforms import (
    BandAugmentation,
    RandomBandDropout,
    RandomBandGain,
    RandomBandNoise,
    RandomHaze,
    RandomSpeckle,
    RandomSpectralShift,
    spectral_augmentations,
)

SHAPE = (64, 12, 128, 128)


def known(kind: str) -> dict[str, list[float] | list[str]]:
    """Twelve bands: those of Sentinel-2, or as many of radar."""
    if kind == 'radar':
        bands = (SENTINEL1_GRD * 6)[:12]
        labels = ['VV', 'VH', 'HH', 'HV', *(f'B{i}' for i in range(8))]
        return {
            'bands': labels,
            'mean': [b.mean for b in bands],
            'std': [b.std for b in bands],
        }
    return {
        'bands': list(names(SENTINEL2_L2A)),
        'mean': [band.mean for band in SENTINEL2_L2A],
        'std': [band.std for band in SENTINEL2_L2A],
    }
