"""TorchGeo's datasets for pretraining, as their files are rather than as documented.

What each class here says was read from TorchGeo 0.10.1, which a test runs on tiny
folders in which every band is another constant. Product levels and units are those of
the datasets' papers and download scripts.
"""

from collections.abc import Sequence
from typing import Any

import torchgeo.datasets as tg

from ...datasets import BigEarthNetLMDB
from .bigearthnet import (
    BigEarthNetV1,
    BigEarthNetV2,
    CopernicusBench,
    OwnBigEarthNet,
)
from .mmearth import MMEarth
from .patches import SEN12MS, EuroSAT, S2100k, So2Sat
from .seasons import SSL4EOS12, SeasonalContrast
from .source import LEVELS, Coordinates, Names, Rows, Source, described_bands

__all__ = [
    'KNOWN',
    'LEVELS',
    'Coordinates',
    'Names',
    'Rows',
    'Source',
    'described_bands',
    'make_source',
    'source_class',
]

KNOWN: dict[type, type[Source]] = {
    BigEarthNetLMDB: OwnBigEarthNet,
    tg.BigEarthNet: BigEarthNetV1,
    tg.BigEarthNetV2: BigEarthNetV2,
    tg.CopernicusBenchBigEarthNetS1: CopernicusBench,
    tg.CopernicusBenchBigEarthNetS2: CopernicusBench,
    tg.EuroSAT: EuroSAT,
    tg.MMEarth: MMEarth,
    tg.S2100k: S2100k,
    tg.SEN12MS: SEN12MS,
    tg.SSL4EOS12: SSL4EOS12,
    tg.SeasonalContrastS2: SeasonalContrast,
    tg.So2Sat: So2Sat,
}
"""Class of datasets: what is known of it."""


def make_source(
    dataset: Any,
    level: str | None = None,
    image_key: str = 'image',
    dataset_bands: Sequence[str] | None = None,
    nodata: float | None = None,
) -> Source:
    """Return a dataset with what is known of it.

    Args:
        dataset: A dataset, built.
        level: Product level of its Sentinel-2 bands: 'L1C' or 'L2A'.
        image_key: Key of the image in a sample, for a dataset that is not known.
        dataset_bands: Names of its channels, in order, for a dataset that is not known.
        nodata: Pixel value that stands for no data.

    Raises:
        ValueError: If its bands are not known and not given.
    """
    kind = source_class(type(dataset))
    return kind(dataset, level, image_key, dataset_bands, nodata)


def source_class(kind: type) -> type[Source]:
    """Return what is known of a class of datasets."""
    return next((KNOWN[base] for base in kind.__mro__ if base in KNOWN), Source)
